//! Ids of calls, for the templates that refuse a conversation whose calls have none. Mistral's want nine letters or digits, in
//! the call and in its result. Records that have such ids keep them; most have none, or longer ones of OpenAI's.
//!
//! A made id is a function of the call, its place in the conversation and the id that it had: the same in every run, and in
//! the conversation up to any of its messages.

use crate::conversation::{Message, Role, ToolCall};

/// The length that templates ask for.
const LENGTH: usize = 9;

/// The messages with such an id for every call and every result; `None` where nothing is to be made.
pub(crate) fn with_ids(messages: &[Message]) -> Option<Vec<Message>> {
    let wanting = messages.iter().any(|message| {
        message.tool_calls.iter().any(|call| !fits(call.id.as_deref()))
            || (message.role == Role::Tool && !fits(message.tool_call_id.as_deref()))
    });
    if !wanting {
        return None;
    }
    let mut made = messages.to_vec();
    let mut number = 0;
    // Ids before and after, of the calls that have no result yet.
    let mut open: Vec<(Option<String>, String)> = Vec::new();
    for message in &mut made {
        for call in &mut message.tool_calls {
            number += 1;
            let before = call.id.take();
            let after =
                before.clone().filter(|id| fits(Some(id))).unwrap_or_else(|| new_id(number, before.as_deref(), call));
            call.id = Some(after.clone());
            open.push((before, after));
        }
        if message.role == Role::Tool {
            // The call that the result names, else the first that has none.
            let named = open.iter().position(|(before, _)| before.is_some() && *before == message.tool_call_id);
            let place = named.or((!open.is_empty()).then_some(0));
            if let Some(place) = place {
                message.tool_call_id = Some(open.remove(place).1);
            }
        }
    }
    Some(made)
}

fn fits(id: Option<&str>) -> bool {
    id.is_some_and(|id| id.len() == LENGTH && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// An id from a hash (FNV-1a) of what the call is.
fn new_id(number: usize, before: Option<&str>, call: &ToolCall) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let text = format!("{number}\n{}\n{}\n{}", before.unwrap_or_default(), call.name, call.arguments);
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let mut left = text.bytes().fold(0xcbf2_9ce4_8422_2325, hash);
    let mut letter = || {
        let letter = LETTERS[(left % 62) as usize];
        left /= 62;
        char::from(letter)
    };
    (0..LENGTH).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, id: Option<&str>) -> ToolCall {
        ToolCall { id: id.map(str::to_owned), ..ToolCall::new(name, serde_json::json!({"a": 1})) }
    }

    fn calls(calls: Vec<ToolCall>) -> Message {
        Message { tool_calls: calls, ..Message::new(Role::Assistant, "") }
    }

    fn result(of: Option<&str>) -> Message {
        Message { tool_call_id: of.map(str::to_owned), ..Message::new(Role::Tool, "1") }
    }

    /// The ids of the calls, and of the results.
    fn ids(messages: &[Message]) -> (Vec<&str>, Vec<&str>) {
        let calls = messages.iter().flat_map(|message| &message.tool_calls).filter_map(|call| call.id.as_deref());
        (calls.collect(), messages.iter().filter_map(|message| message.tool_call_id.as_deref()).collect())
    }

    #[test]
    fn results_get_the_ids_of_their_calls() {
        let messages = [
            calls(vec![call("f", Some("call_1")), call("f", Some("call_2"))]),
            result(Some("call_2")),
            result(Some("call_1")),
            calls(vec![call("g", None), call("g", None)]),
            result(None),
            result(None),
        ];
        let made = with_ids(&messages).expect("they are made");
        let (calls, results) = ids(&made);
        assert!(calls.iter().all(|id| fits(Some(id))));
        assert_eq!(results, [calls[1], calls[0], calls[2], calls[3]]);
        let different: std::collections::BTreeSet<&str> = calls.iter().copied().collect();
        assert_eq!(different.len(), 4, "{calls:?}");
        // Whatever follows, they stay.
        let shorter = with_ids(&messages[..4]).expect("they are made");
        assert_eq!(shorter, made[..4]);
        assert_eq!(calls[0], "OFCkiV4Qt");
    }

    #[test]
    fn ids_that_fit_are_kept() {
        let messages = [calls(vec![call("f", Some("abcdEF123"))]), result(Some("abcdEF123"))];
        assert_eq!(with_ids(&messages), None);
        let forgotten = [messages[0].clone(), result(None)];
        assert_eq!(with_ids(&forgotten), Some(messages.to_vec()));
        assert_eq!(with_ids(&[Message::new(Role::User, "a")]), None);
    }
}
