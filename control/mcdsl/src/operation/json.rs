//! A request of REST as one JSON object: of its path, its query and its body. A name given twice is refused, wherever it stands.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use mc_api::operation::{Kind, Parameter, Rest};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::problem::{self, Problem};

/// The fields of a request, as they come.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Adds the parameters of path or query, each of the type that its field has.
    ///
    /// # Errors
    /// One is unknown, there twice, or not of its type.
    pub(super) fn add_parameters(
        &mut self,
        rest: &Rest,
        pairs: Vec<(String, String)>,
    ) -> Result<(), Problem> {
        let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for (name, text) in pairs {
            let Some(Parameter { kind, .. }) = rest.parameters.iter().find(|known| known.name == name) else {
                let known: Vec<&str> = rest.parameters.iter().map(|known| known.name).collect();
                let hint = crate::config::meant(&name, &known);
                return Err(Problem::field(name, format!("unknown parameter{hint}")));
            };
            let value = match kind {
                Kind::Texts => {
                    lists.entry(name).or_default().push(text.into());
                    continue;
                }
                Kind::Text => text.into(),
                Kind::Integer => {
                    let number =
                        text.parse::<i64>().ok().filter(|number| is_exact(*number)).map(Number::from);
                    let wrong = || Problem::field(name.clone(), "is not a whole number of at most 53 bits");
                    Value::Number(number.ok_or_else(wrong)?)
                }
                Kind::Boolean => {
                    let wrong = || Problem::field(name.clone(), "is neither `true` nor `false`");
                    Value::Bool(text.parse().map_err(|_error| wrong())?)
                }
            };
            self.add(name, value)?;
        }
        lists.into_iter().try_for_each(|(name, values)| self.add(name, values.into()))
    }

    /// Adds the fields of a JSON body.
    ///
    /// # Errors
    /// It is not a JSON object, or has a field that was there before.
    pub(super) fn add_json(&mut self, body: &[u8]) -> Result<(), Problem> {
        let malformed = |detail: String| Problem::new(problem::Kind::Invalid, "malformed", detail);
        let mut reader = serde_json::Deserializer::from_slice(body);
        let left = Cell::new(MAX_WEIGHT);
        let value =
            Strict { left: &left }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
        match value {
            Ok(Value::Object(fields)) => {
                fields.into_iter().try_for_each(|(name, value)| self.add(name, value))
            }
            Ok(_) => Err(malformed("The body must be a JSON object: `{...}`.".to_owned())),
            Err(error) => Err(malformed(format!("The body is not valid JSON: {error}."))),
        }
    }

    /// Adds the fields of a form. Others are ignored (RFC 7662, section 2.1; RFC 6749, section 3.1).
    ///
    /// # Errors
    /// One is there twice.
    pub(super) fn add_form(&mut self, body: &[u8], names: &[&str]) -> Result<(), Problem> {
        let pairs = form_urlencoded::parse(body).into_owned();
        for (name, text) in pairs.filter(|(name, _)| names.contains(&name.as_str())) {
            self.add(name, text.into())?;
        }
        Ok(())
    }

    /// Adds a field.
    ///
    /// # Errors
    /// It is there.
    pub(super) fn add(&mut self, name: String, value: Value) -> Result<(), Problem> {
        if self.0.contains_key(&name) {
            return Err(Problem::field(name, "is given more than once"));
        }
        self.0.insert(name, value);
        Ok(())
    }

    /// The revision in the body.
    pub(super) fn revision(&self) -> Option<&Value> {
        self.0.get("revision")
    }

    /// The request.
    ///
    /// # Errors
    /// A field is missing, unknown or not of its type.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, Problem> {
        serde_path_to_error::deserialize(Value::Object(self.0)).map_err(|error| {
            let path = error.path().to_string();
            let cause = error.into_inner().to_string();
            let quoted = |prefix: &str| cause.strip_prefix(prefix)?.split('`').nth(1).map(str::to_owned);
            let within = |name: String| if path == "." { name } else { format!("{path}.{name}") };
            if let Some(name) = quoted("missing field ") {
                return Problem::field(within(name), "is missing");
            }
            // The path of an unknown field ends with it.
            if path == "." {
                Problem::new(problem::Kind::Invalid, "malformed", cause)
            } else {
                Problem::field(path, cause)
            }
        })
    }
}

/// Whether every reader of JSON takes the number for what it is (RFC 8259, section 6).
const fn is_exact(number: i64) -> bool {
    number.unsigned_abs() < 1 << 53
}

fn inexact<E: Error>(number: impl fmt::Display) -> E {
    E::custom(format!("{number} is out of range; expected at most 53 bits"))
}

/// The beginning of a text that a client sent.
fn short(text: &str) -> String {
    text.chars().take(64).collect()
}

/// How much a body may hold, where a value weighs 1 and an object [`OBJECT_WEIGHT`]: in memory they take 32 and about 600 bytes, and in a body
/// no more than two and five. 16 MiB: a policy with ten thousand rules is a third.
const MAX_WEIGHT: usize = 500_000;

const OBJECT_WEIGHT: usize = 20;

/// Reads any JSON value, and refuses an object with a name given twice (RFC 8259, section 4, leaves that to the reader).
#[derive(Clone, Copy)]
struct Strict<'a> {
    left: &'a Cell<usize>,
}

impl Strict<'_> {
    fn weigh<E: Error>(self, weight: usize) -> Result<(), E> {
        let left =
            self.left.get().checked_sub(weight).ok_or_else(|| E::custom("there are too many values"))?;
        self.left.set(left);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        if is_exact(value) { Ok(value.into()) } else { Err(inexact(value)) }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        i64::try_from(value).map_or_else(|_| Err(inexact(value)), |value| self.visit_i64(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            self.weigh(1)?;
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.weigh(OBJECT_WEIGHT)?;
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            self.weigh(1)?;
            let value = entries.next_value_seed(self)?;
            if object.contains_key(&name) {
                return Err(A::Error::custom(format!("`{}` is given more than once", short(&name))));
            }
            object.insert(name, value);
        }
        Ok(object.into())
    }
}
