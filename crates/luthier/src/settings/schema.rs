//! The settings as a JSON schema, for editors that check and complete while one types. It says what the readers accept:
//! numbers may be texts (YAML 1.1 reads `1e-4` as one), lists may be texts with commas, and null is the default.

use serde_json::{Map, Value, json};

use super::table::SETTINGS;
use super::{Kind, Setting, Status, Value as Parsed};

/// The schema, with a line for each of its parts.
pub(crate) fn text() -> String {
    let mut properties = Map::new();
    for setting in SETTINGS {
        properties.insert(setting.name.to_owned(), property(setting));
        for alias in setting.aliases {
            let description = format!("The same as {}.", setting.name);
            properties.insert(
                (*alias).to_owned(),
                json!({ "$ref": format!("#/properties/{}", setting.name), "description": description }),
            );
        }
    }
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Luthier's settings",
        "description": "A training: what follows `luthier train`, in YAML, JSON or TOML.",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    });
    format!("{schema:#}\n")
}

fn property(setting: &Setting) -> Value {
    let mut property = Map::new();
    let note = match setting.status {
        Status::Honoured => String::new(),
        Status::NoEffect(reason) => format!(" Accepted without effect: {reason}."),
        Status::Refused(reason) => format!(" Refused unless left at its default: {reason}."),
    };
    property.insert("description".to_owned(), json!(format!("{}{note}", setting.help)));
    let default = default(setting);
    match setting.status {
        Status::Refused(_) => _ = property.insert("enum".to_owned(), json!(refused(&default))),
        // Whatever it is, it is accepted.
        Status::NoEffect(_) => {}
        Status::Honoured => property.extend(accepted(setting.kind)),
    }
    if !default.is_null() {
        property.insert("default".to_owned(), default);
    }
    Value::Object(property)
}

fn refused(default: &Value) -> Vec<Value> {
    if default.is_null() { vec![Value::Null] } else { vec![default.clone(), Value::Null] }
}

fn default(setting: &Setting) -> Value {
    match setting.default_value() {
        Parsed::Unset | Parsed::Nested => Value::Null,
        Parsed::Switch(value) => json!(value),
        Parsed::Whole(value) => json!(value),
        Parsed::Number(value) => json!(value),
        Parsed::Text(value) => json!(value),
        Parsed::Weights(values) => json!(values.into_iter().collect::<std::collections::BTreeMap<_, _>>()),
        Parsed::Options(values) => json!(values.into_iter().collect::<std::collections::BTreeMap<_, _>>()),
        Parsed::Names(values) => json!(values.join(",")),
    }
}

/// What a value may be.
fn accepted(kind: Kind) -> Map<String, Value> {
    let schema = match kind {
        Kind::Switch => json!({ "type": ["boolean", "null"] }),
        Kind::WholeOrAuto(least, _) => json!({ "type": ["integer", "string", "null"], "minimum": least }),
        Kind::Whole(least, i64::MAX) => json!({ "type": ["integer", "string", "null"], "minimum": least }),
        Kind::Whole(least, most) => {
            json!({ "type": ["integer", "string", "null"], "minimum": least, "maximum": most })
        }
        Kind::Number(f64::MIN, f64::MAX) => json!({ "type": ["number", "string", "null"] }),
        Kind::Number(least, f64::MAX) => json!({ "type": ["number", "string", "null"], "minimum": least }),
        Kind::Number(least, most) => {
            json!({ "type": ["number", "string", "null"], "minimum": least, "maximum": most })
        }
        Kind::Choice(names, _) => {
            json!({ "enum": names.iter().map(|name| json!(name)).chain([Value::Null]).collect::<Vec<_>>() })
        }
        Kind::Text => json!({ "type": ["string", "number", "boolean", "null"] }),
        Kind::Names => json!({ "type": ["string", "array", "null"], "items": { "type": ["string", "number"] } }),
        Kind::Weights(names) => {
            let weight = json!({ "type": "number", "minimum": 0 });
            let weights: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), weight.clone())).collect();
            let kinds = ["string", "array", "object", "null"];
            json!({ "type": kinds, "properties": weights, "additionalProperties": false, "items": { "type": "string" } })
        }
        Kind::Options => json!({ "type": ["string", "array", "object", "null"], "items": { "type": "string" } }),
        Kind::Anything => json!({}),
    };
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_in_docs_is_the_one_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/settings.schema.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == super::text(),
            "docs/settings.schema.json is not what the table says: run `cargo xtask settings`"
        );
    }
}
