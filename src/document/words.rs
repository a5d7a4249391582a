//! Values with a spelling of their own. Each says its form in the schema, so that editors and the walk check the same.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};

/// Lower-case letters, digits, `-` and `_`, beginning with a letter or digit.
pub fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

/// An [`is_id`] without `-` that begins with a letter: variables become environment variables.
pub fn is_name(text: &str) -> bool {
    is_id(text) && text.starts_with(|c: char| c.is_ascii_lowercase()) && !text.contains('-')
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

text_type!(
    /// What steps, roles and systems are called.
    Id,
    { "type": "string", "format": "id", "pattern": "^[a-z0-9][a-z0-9_-]*$" }
);
text_type!(
    /// What variables are called.
    Name,
    { "type": "string", "format": "name", "pattern": "^[a-z][a-z0-9_]*$" }
);
text_type!(
    /// Text that says something.
    Text,
    { "type": "string", "minLength": 1 }
);

/// A duration in words: `90s`, `40m`, `1h 30m`, `30d`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lasting(pub Duration);

impl Lasting {
    /// Reads what the file says.
    pub fn read(text: &str) -> Result<Duration, String> {
        match humantime::parse_duration(text) {
            Ok(Duration::ZERO) => Err("it is zero".to_owned()),
            Ok(duration) => Ok(duration),
            Err(humantime::DurationError::UnknownUnit { unit, .. }) if unit.is_empty() => {
                Err("its unit is missing".to_owned())
            }
            Err(humantime::DurationError::UnknownUnit { unit, .. }) => Err(format!("there is no unit `{unit}`")),
            Err(humantime::DurationError::NumberExpected(_)) => Err("it begins without a number".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl<'de> Deserialize<'de> for Lasting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).map(Self).map_err(|why| D::Error::custom(format!("`{text}` is not a duration: {why}")))
    }
}

impl JsonSchema for Lasting {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "lasting",
            "description": "A number and a unit, in quotes: 90s, 40m, 1h 30m, 30d.",
            "examples": ["15m", "1h 30m", "30d"]
        })
    }
}

/// A program and its arguments, each item whole; no shell reads it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Argv(pub Vec<String>);

impl JsonSchema for Argv {
    fn schema_name() -> Cow<'static, str> {
        "Argv".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": { "type": "string" },
            "minItems": 1,
            "description": "A program and its arguments, each item whole; no shell reads it.",
            "x-hint": "write the program and each argument as an item of its own: [\"psql\", \"--list\"]"
        })
    }
}

/// A string, a number, or true or false; compared as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar(pub String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            value @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => Ok(Self(value.to_string())),
            other => Err(D::Error::custom(format!("`{other}` is neither text nor a number nor true or false"))),
        }
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
