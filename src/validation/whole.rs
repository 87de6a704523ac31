//! Reads JSON text into a value, and notes each member that an object has twice: which of the two counts would be
//! anybody's guess (RFC 8259, section 4).

use std::cell::RefCell;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::fit::TWICE;
use super::{Faults, escaped};

/// The value, and the faults of members that are given twice.
pub(super) fn parse(content: &[u8]) -> Result<(Value, Faults), serde_json::Error> {
    let reading = Reading::default();
    let mut deserializer = serde_json::Deserializer::from_slice(content);
    let value = (&reading).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, reading.faults.into_inner()))
}

#[derive(Default)]
struct Reading {
    /// The pointer of what is being read.
    pointer: RefCell<String>,
    faults: RefCell<Faults>,
}

impl Reading {
    /// Does something a level below, where the pointer is longer by a token.
    fn below<T>(&self, token: &str, read: impl FnOnce() -> T) -> T {
        let length = self.pointer.borrow().len();
        self.pointer.borrow_mut().extend(["/", &escaped(token)]);
        let done = read();
        self.pointer.borrow_mut().truncate(length);
        done
    }
}

impl<'de> DeserializeSeed<'de> for &Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reading {
    type Value = Value;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("a value in JSON")
    }

    fn visit_bool<E>(self, given: bool) -> Result<Value, E> {
        Ok(Value::Bool(given))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let token = items.len().to_string();
            match self.below(&token, || from.next_element_seed(self))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            let value = self.below(&key, || {
                if members.contains_key(&key) {
                    self.faults.borrow_mut().invalid(&*self.pointer.borrow(), TWICE);
                }
                from.next_value_seed(self)
            })?;
            members.insert(key, value);
        }
        Ok(Value::Object(members))
    }
}
