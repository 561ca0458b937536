//! What a template may keep in a namespace: no namespace, also not inside of a list. A namespace that holds itself would be
//! written without end, by an engine that asks nobody in between; and memory that holds itself is never free again. The engine
//! has no place to look at what is kept, so the value of every `{% set a.b = ... %}` goes through a filter.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

/// The filter.
pub(crate) const KEPT: &str = "__kept";

/// How deep lists may lie in one another.
const DEEPEST: usize = 200;
/// Values that are looked at for one unit of fuel, of which a list counts as all.
const VALUES_OF_FUEL: u64 = 8;

/// The filter itself: gives the value as it is. Errors: it holds a namespace, is nested too deep, or too large for the fuel.
pub(crate) fn kept(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    let (_, fuel) = state.fuel_levels().unwrap_or((0, u64::MAX));
    let whole = fuel.saturating_mul(VALUES_OF_FUEL);
    let mut left = whole;
    let checked = check(&value, 0, &mut left);
    state.consume_fuel(if left == 0 { u64::MAX } else { (whole - left) / VALUES_OF_FUEL })?;
    checked.map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))?;
    Ok(value)
}

fn check(value: &Value, depth: usize, left: &mut u64) -> Result<(), &'static str> {
    let kind = value.kind();
    let lists = matches!(kind, ValueKind::Seq | ValueKind::Map | ValueKind::Iterable);
    *left = left.saturating_sub(if lists { VALUES_OF_FUEL } else { 1 });
    if *left == 0 || !lists {
        return Ok(());
    }
    if value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace")) {
        return Err("a namespace is kept in a namespace, where it could hold itself");
    }
    if depth == DEEPEST {
        return Err("lists are kept in a namespace that lie too deep in one another");
    }
    let Ok(items) = value.try_iter() else { return Ok(()) };
    for item in items {
        if *left == 0 {
            break;
        }
        check(&item, depth + 1, left)?;
        if kind == ValueKind::Map {
            value.get_item(&item).map_or(Ok(()), |item| check(&item, depth + 1, left))?;
        }
    }
    Ok(())
}

/// A template's source with the filter in every place where something is kept in a namespace.
pub(crate) fn with_filter(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        let (before, tag) = rest.split_at(at);
        out.push_str(before);
        let length = match tag.as_bytes().get(1) {
            Some(b'#') => tag.find("#}").map_or(tag.len(), |end| end + 2),
            Some(b'{') => end_of_tag(tag, b"}}"),
            Some(b'%') => end_of_tag(tag, b"%}"),
            _ => 1,
        };
        let (tag, behind) = tag.split_at(length);
        rest = behind;
        let content = tag.strip_prefix("{%").and_then(|tag| tag.strip_suffix("%}"));
        match content.map(|content| content.trim_matches(['-', '+']).trim()) {
            Some("raw") => {
                out.push_str(tag);
                let end = end_of_raw(rest);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            _ => match content.and_then(filtered) {
                Some(filtered) => out.extend(["{%", &filtered, "%}"]),
                None => out.push_str(tag),
            },
        }
    }
    out + rest
}

/// Where a tag ends, or the source.
fn end_of_tag(tag: &str, end: &[u8; 2]) -> usize {
    let bytes = tag.as_bytes();
    let (mut at, mut quote) = (2, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, byte @ (b'\'' | b'"')) => quote = Some(byte),
            (None, _) if bytes[at..].starts_with(end) => return at + 2,
            (None, _) => {}
        }
        at += 1;
    }
    bytes.len()
}

/// Where text that is written as it is ends.
fn end_of_raw(source: &str) -> usize {
    let mut from = 0;
    while let Some(at) = source[from..].find("{%").map(|at| from + at + 2) {
        if source[at..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw") {
            return at - 2;
        }
        from = at;
    }
    source.len()
}

/// What stands in a `set` tag, with the filter; none for other tags, and where a plain name is set.
fn filtered(content: &str) -> Option<String> {
    let end = content.strip_suffix(['-', '+']).unwrap_or(content);
    let sign = &content[end.len()..];
    let name = end.strip_prefix(['-', '+']).unwrap_or(end).trim_start();
    let target = name.strip_prefix("set").filter(|target| !target.starts_with(is_letter))?;
    let at = target.find(['=', '|'])?;
    if !target[..at].contains('.') {
        return None;
    }
    let split = end.len() - target.len() + at + 1;
    let (before, value) = end.split_at(split);
    Some(match before.ends_with('|') {
        true => format!("{end} | {KEPT} {sign}"),
        false => format!("{before} ({value}) | {KEPT} {sign}"),
    })
}

fn is_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_goes_through_the_filter() {
        let check = |source: &str, expected: &str| assert_eq!(with_filter(source), expected);
        check("a {%- set ns.x = y, z -%} b", "a {%- set ns.x = ( y, z ) | __kept -%} b");
        check("{% set ns.x='%}' ~ \"\\\"%}\"%}{{ x }}", "{% set ns.x= ('%}' ~ \"\\\"%}\") | __kept %}{{ x }}");
        check("{%set (a, ns.b)|upper%}{%endset%}", "{%set (a, ns.b)|upper | __kept %}{%endset%}");
        check("{%\nset\tns.x\n=\n1\n+%}", "{%\nset\tns.x\n= (\n1\n) | __kept +%}");
        for same in [
            "{% set x = ns.y %}",
            "{% set ns.x %}{% endset %}",
            "{% settle ns.x = y %}",
            "{# {% set ns.x = y %} #}",
            "{{ '{% set ns.x = y %}' }}",
            "{%- raw -%}{% set ns.x = y %}{%- endraw %}",
            "{% set ns.x = y",
            "{ {{ {% { é",
        ] {
            check(same, same);
        }
        check("{% raw %}{% endraw %}{% set ns.x = y %}", "{% raw %}{% endraw %}{% set ns.x = ( y ) | __kept %}");
    }
}
