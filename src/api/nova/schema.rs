//! What the bodies of this API must look like, refused in the sentences of Nova's own schemas.
//!
//! Nova checks with Python's jsonschema and shows its first error, values as Python writes them.
//! The few shapes here need no schema engine: an object with known members, each a word of a list
//! or a number.

use std::fmt;

use serde_json::{Map, Value};

use super::fault::Fault;

/// An object's members, in the order in which they are checked.
pub(super) struct Shape<'a> {
    /// The names, and the words each may be.
    pub(super) words: &'a [(&'a str, &'a [&'a str])],
    /// Whether others may stand beside them.
    pub(super) open: bool,
}

/// The only member of `body` there may be, by its name.
pub(super) fn envelope<'a>(body: &'a Value, name: &str, open: bool) -> Result<&'a Value, Fault> {
    let object = body
        .as_object()
        .ok_or_else(|| wrong_type(body, "object", None))?;
    let inner = object.get(name);
    let inner = inner.ok_or_else(|| Fault::bad_request(required(name)))?;
    if !open {
        nothing_beside(object, &[name], None)?;
    }
    Ok(inner)
}

impl Shape<'_> {
    /// The words of `value`, one for each member. `place` is the member that holds it.
    pub(super) fn check<'v>(&self, value: &'v Value, place: &str) -> Result<Vec<&'v str>, Fault> {
        let object = value.as_object();
        let object = object.ok_or_else(|| wrong_type(value, "object", Some(place)))?;
        for (name, words) in self.words {
            object
                .get(*name)
                .map_or(Ok(()), |value| one_of(value, words, name))?;
        }
        let names: Vec<&str> = self.words.iter().map(|(name, _)| *name).collect();
        let word = |name: &&str| {
            let missing = || invalid(place, value, &required(name));
            object
                .get(*name)
                .and_then(Value::as_str)
                .ok_or_else(missing)
        };
        let found = names.iter().map(word).collect::<Result<_, _>>()?;
        if !self.open {
            nothing_beside(object, &names, Some((place, value)))?;
        }
        Ok(found)
    }
}

/// A number from -1 on, or null, or such a number as text; -1 and null are no limit.
pub(super) fn length(value: &Value, place: &str, open: bool) -> Result<Option<u32>, Fault> {
    let object = value.as_object();
    let object = object.ok_or_else(|| wrong_type(value, "object", Some(place)))?;
    if !open {
        nothing_beside(object, &["length"], Some((place, value)))?;
    }
    let length = match object.get("length") {
        None | Some(Value::Null) => return Ok(None),
        Some(length) => length,
    };
    let wrong = |why: &str| invalid("length", length, why);
    let number = match length {
        Value::String(text) => {
            let matching = text
                .trim_start_matches('-')
                .bytes()
                .all(|b| b.is_ascii_digit());
            let parsed = text.parse::<i64>().ok().filter(|_| matching);
            parsed
                .ok_or_else(|| wrong(&format!("{} does not match '^-?[0-9]+$'", Python(length))))?
        }
        other => other.as_i64().ok_or_else(|| {
            wrong(&format!(
                "{} is not of type 'integer', 'string', 'null'",
                Python(length)
            ))
        })?,
    };
    match number {
        ..-1 => Err(wrong(&format!("{number} is less than the minimum of -1"))),
        -1 => Ok(None),
        0.. => Ok(Some(u32::try_from(number).unwrap_or(u32::MAX))),
    }
}

/// No query parameter but these.
pub(super) fn no_parameters<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    unexpected(&names.collect::<Vec<_>>()).map_or(Ok(()), |why| Err(Fault::bad_request(why)))
}

fn one_of(value: &Value, words: &[&str], name: &str) -> Result<(), Fault> {
    let Some(word) = value.as_str() else {
        return Err(wrong_type(value, "string", Some(name)));
    };
    if words.contains(&word) {
        return Ok(());
    }
    let list = Value::from(words.to_vec());
    let why = format!("{} is not one of {}", Python(value), Python(&list));
    Err(invalid(name, value, &why))
}

fn nothing_beside(
    object: &Map<String, Value>,
    names: &[&str],
    place: Option<(&str, &Value)>,
) -> Result<(), Fault> {
    let others = object.keys().map(String::as_str);
    let others: Vec<&str> = others.filter(|key| !names.contains(key)).collect();
    match (unexpected(&others), place) {
        (None, _) => Ok(()),
        (Some(why), None) => Err(Fault::bad_request(why)),
        (Some(why), Some((place, value))) => Err(invalid(place, value, &why)),
    }
}

fn unexpected(names: &[&str]) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let verb = if names.len() == 1 { "was" } else { "were" };
    let names = names
        .iter()
        .map(|name| Python(&Value::from(*name)).to_string());
    let names = names.collect::<Vec<_>>().join(", ");
    Some(format!(
        "Additional properties are not allowed ({names} {verb} unexpected)"
    ))
}

fn required(name: &str) -> String {
    format!("{} is a required property", Python(&Value::from(name)))
}

fn wrong_type(value: &Value, wanted: &str, place: Option<&str>) -> Fault {
    let why = format!("{} is not of type '{wanted}'", Python(value));
    match place {
        Some(place) => invalid(place, value, &why),
        None => Fault::bad_request(why),
    }
}

fn invalid(place: &str, value: &Value, why: &str) -> Fault {
    let shown = match value {
        Value::String(text) => text.clone(),
        other => Python(other).to_string(),
    };
    Fault::bad_request(format!(
        "Invalid input for field/attribute {place}. Value: {shown}. {why}"
    ))
}

/// A value as Python's `repr` writes it.
struct Python<'a>(&'a Value);

impl fmt::Display for Python<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Null => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Number(number) => number.fmt(f),
            Value::String(text) => quoted(text, f),
            Value::Array(items) => {
                f.write_str("[")?;
                for (number, item) in items.iter().enumerate() {
                    f.write_str(if number == 0 { "" } else { ", " })?;
                    Python(item).fmt(f)?;
                }
                f.write_str("]")
            }
            Value::Object(members) => {
                f.write_str("{")?;
                for (number, (name, member)) in members.iter().enumerate() {
                    f.write_str(if number == 0 { "" } else { ", " })?;
                    quoted(name, f)?;
                    f.write_str(": ")?;
                    Python(member).fmt(f)?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    write!(f, "{quote}")?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c == quote => write!(f, "\\{c}")?,
            c if c.is_control() && u32::from(c) < 256 => write!(f, "\\x{:02x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    write!(f, "{quote}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VNC: Shape<'_> = Shape {
        words: &[("type", &["novnc", "xvpvnc"])],
        open: false,
    };

    fn refusal(inner: &Value) -> String {
        let fault = VNC.check(inner, "os-getVNCConsole").unwrap_err();
        fault.message.into_owned()
    }

    #[test]
    fn a_good_body_gives_its_words() {
        let inner = json!({ "type": "novnc" });
        assert_eq!(VNC.check(&inner, "os-getVNCConsole").unwrap(), ["novnc"]);
    }

    #[test]
    fn what_is_wrong_is_told_in_novas_sentences() {
        for (inner, expected) in [
            (
                json!({ "type": "invalid" }),
                "Invalid input for field/attribute type. Value: invalid. 'invalid' is not one of \
                 ['novnc', 'xvpvnc']",
            ),
            (
                json!({}),
                "Invalid input for field/attribute os-getVNCConsole. Value: {}. 'type' is a \
                 required property",
            ),
            (
                json!({ "type": "novnc", "x": true }),
                "Invalid input for field/attribute os-getVNCConsole. Value: {'type': 'novnc', \
                 'x': True}. Additional properties are not allowed ('x' was unexpected)",
            ),
            (
                json!({ "type": 1 }),
                "Invalid input for field/attribute type. Value: 1. 1 is not of type 'string'",
            ),
            (
                json!(null),
                "Invalid input for field/attribute os-getVNCConsole. Value: None. None is not of \
                 type 'object'",
            ),
        ] {
            assert_eq!(refusal(&inner), expected);
        }
    }

    #[test]
    fn a_body_holds_its_member_and_no_other() {
        let refusal = |body: Value| {
            let fault = envelope(&body, "remote_console", false).unwrap_err();
            fault.message.into_owned()
        };
        assert_eq!(
            refusal(json!({})),
            "'remote_console' is a required property"
        );
        assert_eq!(
            refusal(json!({ "remote_console": {}, "a": 1, "b": 2 })),
            "Additional properties are not allowed ('a', 'b' were unexpected)"
        );
        assert_eq!(refusal(json!([1])), "[1] is not of type 'object'");
        let open = json!({ "remote_console": {}, "a": 1 });
        assert!(envelope(&open, "remote_console", true).is_ok());
    }

    #[test]
    fn a_length_is_a_number_or_text_of_one_and_minus_one_is_none() {
        let length = |value: Value| length(&value, "os-getConsoleOutput", false);
        assert_eq!(length(json!({ "length": 50 })).unwrap(), Some(50));
        assert_eq!(length(json!({ "length": "50" })).unwrap(), Some(50));
        for none in [
            json!({}),
            json!({ "length": null }),
            json!({ "length": -1 }),
        ] {
            assert_eq!(length(none).unwrap(), None);
        }
        for bad in [
            json!("-2"),
            json!(-2),
            json!("x"),
            json!(true),
            json!(""),
            json!("--1"),
        ] {
            assert!(length(json!({ "length": bad })).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_written_as_python_writes_them() {
        let value = json!({ "a": [null, "it's", "a\nb\\"] });
        assert_eq!(
            Python(&value).to_string(),
            r#"{'a': [None, "it's", 'a\nb\\']}"#
        );
    }
}
