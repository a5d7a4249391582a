//! The JSON schema of a file, generated from its raw types: what editors complete from and what [`super::shape`] walks.

use std::any::TypeId;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

/// The schema of a whole file.
pub fn of<T: JsonSchema>(title: &str) -> Value {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    schema.insert("title".to_owned(), title.into());
    let mut value = schema.to_value();
    without_null(&mut value);
    value
}

/// TOML has no null: what is optional is left out.
fn without_null(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Object(object) => {
            object.values_mut().for_each(without_null);
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|word| word != "null");
                if let [one] = types.as_slice() {
                    let one = one.clone();
                    object.insert("type".to_owned(), one);
                }
            }
            if let Some(Value::Array(allowed)) = object.get_mut("enum") {
                allowed.retain(|value| !value.is_null());
            }
            if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
                alternatives.retain(|one| one.get("type") != Some(&Value::from("null")));
                if let [Value::Object(one)] = alternatives.as_mut_slice() {
                    let one = std::mem::take(one);
                    object.remove("anyOf");
                    for (key, value) in one {
                        object.entry(key).or_insert(value);
                    }
                }
            }
        }
        _ => {}
    }
}

/// A table whose keys are those of `C`, which every kind has, and those of one variant of `K`, an enum with serde's
/// `tag`. The schema is one closed table a variant. serde's own way to say this, `flatten`, cannot deny unknown keys.
#[derive(Debug, Clone)]
pub struct Tagged<C, K> {
    pub common: C,
    pub kind: K,
}

impl<'de, C: DeserializeOwned + JsonSchema + 'static, K: DeserializeOwned> Deserialize<'de> for Tagged<C, K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let common_keys = properties_of::<C>();
        let (common, kind): (Map<_, _>, Map<_, _>) =
            Map::deserialize(deserializer)?.into_iter().partition(|(key, _)| common_keys.contains(key));
        Ok(Self {
            common: serde_json::from_value(Value::Object(common)).map_err(D::Error::custom)?,
            kind: serde_json::from_value(Value::Object(kind)).map_err(D::Error::custom)?,
        })
    }
}

/// Made once a type: every step of a runbook asks.
fn properties_of<T: JsonSchema + 'static>() -> Arc<BTreeSet<String>> {
    static KNOWN: Mutex<BTreeMap<TypeId, Arc<BTreeSet<String>>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let properties = known.entry(TypeId::of::<T>()).or_insert_with(|| {
        let schema = T::json_schema(&mut SchemaGenerator::default());
        let properties = schema.get("properties").and_then(Value::as_object);
        properties.into_iter().flat_map(Map::keys).cloned().collect::<BTreeSet<_>>().into()
    });
    Arc::clone(properties)
}

impl<C: JsonSchema, K: JsonSchema> JsonSchema for Tagged<C, K> {
    fn schema_name() -> Cow<'static, str> {
        K::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let common = C::json_schema(generator);
        let mut kinds = K::json_schema(generator);
        let Some(Value::Array(variants)) = kinds.get_mut("oneOf") else { return kinds };
        for variant in variants.iter_mut().filter_map(Value::as_object_mut) {
            for part in ["properties", "required"] {
                match (variant.get_mut(part), common.get(part)) {
                    (Some(Value::Object(own)), Some(Value::Object(shared))) => {
                        for (key, value) in shared {
                            own.insert(key.clone(), value.clone());
                        }
                    }
                    (Some(Value::Array(own)), Some(Value::Array(shared))) => own.extend(shared.iter().cloned()),
                    (None, Some(shared)) => {
                        variant.insert(part.to_owned(), shared.clone());
                    }
                    _ => {}
                }
            }
            variant.insert("additionalProperties".to_owned(), false.into());
        }
        if let Some(noun) = common.get("x-noun") {
            kinds.insert("x-noun".to_owned(), noun.clone());
        }
        kinds
    }
}
