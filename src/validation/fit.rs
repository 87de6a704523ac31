//! Fits a JSON value into a type, and says in words of JSON what does not fit, and where.
//!
//! serde's own deserializers take an array for an object, by position, and speak of Rust's types. This one takes only
//! objects for objects, and knows the value that it was asked for.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use serde_json::{Map, Value};

use super::{FieldCode, escaped};

/// Why a value does not fit. It never repeats the value, which may be a secret in the wrong place.
#[derive(Debug)]
pub(super) struct Misfit {
    /// The tokens of the pointer, the last one first.
    path: Vec<String>,
    pub(super) code: FieldCode,
    pub(super) detail: String,
}

impl Misfit {
    fn new(code: FieldCode, detail: impl Into<String>) -> Self {
        Self { path: Vec::new(), code, detail: detail.into() }
    }

    fn expected(what: &str) -> Self {
        Self::new(FieldCode::WrongType, format!("expected {what}"))
    }

    fn at(mut self, token: &str) -> Self {
        self.path.push(escaped(token));
        self
    }

    /// The JSON pointer of what does not fit.
    pub(super) fn pointer(&self) -> String {
        self.path.iter().rev().flat_map(|token| ["/", token]).collect()
    }
}

impl std::fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.detail)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    /// The words of a type that reads itself may quote the value.
    fn custom<T: std::fmt::Display>(words: T) -> Self {
        let is_of_uuid = words.to_string().starts_with("UUID parsing failed");
        let what = if is_of_uuid { "a UUID" } else { "another value" };
        Self::new(FieldCode::Invalid, format!("expected {what}"))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(&in_json(&expected.to_string()))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(FieldCode::Invalid, format!("expected {}", in_json(&expected.to_string())))
    }

    fn invalid_length(_: usize, expected: &dyn Expected) -> Self {
        Self::new(FieldCode::Invalid, format!("expected {}", in_json(&expected.to_string())))
    }

    fn unknown_variant(_: &str, known: &'static [&'static str]) -> Self {
        Self::new(FieldCode::Invalid, format!("expected {}", one_of(known)))
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        let detail = format!("there is no such field; expected {}", one_of(known));
        Self::new(FieldCode::UnknownField, detail).at(name)
    }

    fn missing_field(name: &'static str) -> Self {
        Self::new(FieldCode::Required, "it has to be given").at(name)
    }

    fn duplicate_field(name: &'static str) -> Self {
        Self::new(FieldCode::Invalid, TWICE).at(name)
    }
}

/// What is said of a member that is there twice.
pub(super) const TWICE: &str = "it is given twice";

fn one_of(words: &[&str]) -> String {
    match words {
        [] => "none".to_owned(),
        [only] => format!("`{only}`"),
        several => format!("one of `{}`", several.join("`, `")),
    }
}

/// The words of JSON for those in which serde speaks of a type.
fn in_json(expected: &str) -> String {
    let words = match expected {
        "a sequence" => "an array",
        "a map" => "an object",
        "a boolean" => "true or false",
        "unit" => "null",
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64" => "a number from 1",
        of_rust if of_rust.starts_with("struct ") => "an object",
        of_rust if of_rust.starts_with("enum ") => "another value",
        ours => ours,
    };
    words.to_owned()
}

/// How values are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    /// Numbers and booleans are written as texts, as in a query.
    Texts,
    /// As Kubernetes reads YAML: a field that is empty is not given, and YAML 1.1 has more words for true and false.
    Manifest,
}

/// A boolean, in the words of YAML 1.1 too.
pub(crate) fn boolean(value: &Value) -> Option<bool> {
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        None => value.as_bool(),
        Some("true" | "yes" | "on" | "y") => Some(true),
        Some("false" | "no" | "off" | "n") => Some(false),
        Some(_) => None,
    }
}

/// A value to be fitted into a type.
#[derive(Clone, Copy)]
pub(super) struct Fit<'de> {
    value: &'de Value,
    format: Format,
}

impl<'de> Fit<'de> {
    pub(super) fn of_json(value: &'de Value) -> Self {
        Self { value, format: Format::Json }
    }

    pub(super) fn of_texts(value: &'de Value) -> Self {
        Self { value, format: Format::Texts }
    }

    pub(super) fn of_manifest(value: &'de Value) -> Self {
        Self { value, format: Format::Manifest }
    }

    fn with(self, value: &'de Value) -> Self {
        Self { value, ..self }
    }

    fn object(self) -> Result<&'de Map<String, Value>, Misfit> {
        self.value.as_object().ok_or_else(|| Misfit::expected("an object"))
    }

    /// The text of a number or boolean in a query.
    fn text(self) -> Option<&'de str> {
        self.value.as_str().filter(|_| self.format == Format::Texts)
    }

    /// Whether a field with this value is as good as absent.
    fn is_absent(self) -> bool {
        self.format == Format::Manifest && (self.value.is_null() || self.value == "")
    }

    /// A whole number, if there is one within these bounds.
    fn whole<T: TryFrom<i128>>(self, words: &str) -> Result<T, Misfit> {
        let number = match (self.value, self.text()) {
            (_, Some(text)) => text.parse::<i128>().ok(),
            (Value::Number(number), _) => number.as_i128(),
            _ => return Err(Misfit::expected(words)),
        };
        let fits = number.and_then(|number| T::try_from(number).ok());
        fits.ok_or_else(|| Misfit::new(FieldCode::Invalid, format!("expected {words}")))
    }
}

/// Whole numbers, each with its bounds in words.
macro_rules! whole_numbers {
    ($($method:ident $visit:ident $number:ty;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            let words = format!("a number from {} to {}", <$number>::MIN, <$number>::MAX);
            visitor.$visit(self.whole::<$number>(&words)?)
        })*
    };
}

impl<'de> Deserializer<'de> for Fit<'de> {
    type Error = Misfit;

    whole_numbers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(given) => visitor.visit_bool(*given),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(_) => self.deserialize_seq(visitor),
            Value::Object(_) => self.deserialize_map(visitor),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., Some(number)) => visitor.visit_f64(number),
                _ => Err(Misfit::expected("a number")),
            },
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match (self.value, self.text()) {
            (Value::Bool(given), _) => visitor.visit_bool(*given),
            (_, Some("true")) => visitor.visit_bool(true),
            (_, Some("false")) => visitor.visit_bool(false),
            _ => match boolean(self.value).filter(|_| self.format == Format::Manifest) {
                Some(given) => visitor.visit_bool(given),
                None => Err(Misfit::expected("true or false")),
            },
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let text = self.text().and_then(|text| text.parse().ok());
        let number = self.value.as_f64().or(text);
        visitor.visit_f64(number.ok_or_else(|| Misfit::expected("a number"))?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let text = self.value.as_str();
        visitor.visit_borrowed_str(text.ok_or_else(|| Misfit::expected("a string"))?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let items = self.value.as_array().ok_or_else(|| Misfit::expected("an array"))?;
        let nulls = self.format == Format::Manifest;
        let items = items.iter().enumerate().filter(|(_, item)| !(nulls && item.is_null()));
        visitor.visit_seq(Items { fit: self, items })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let members = self.object()?;
        visitor.visit_map(Members::of(self, members, &[]))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let members = self.object()?;
        visitor.visit_map(Members::of(self, members, fields))
    }

    /// A word, or an object with one member: the word and what belongs to it.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self.value {
            Value::String(word) => visitor.visit_enum(StrDeserializer::new(word)),
            Value::Object(members) if members.len() == 1 => {
                visitor.visit_enum(Members::of(self, members, &[]))
            }
            _ => Err(Misfit::expected(&one_of(known))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

struct Items<'de, I> {
    fit: Fit<'de>,
    items: I,
}

impl<'de, I: Iterator<Item = (usize, &'de Value)>> SeqAccess<'de> for Items<'de, I> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Misfit> {
        let Some((index, item)) = self.items.next() else { return Ok(None) };
        let read = seed.deserialize(self.fit.with(item));
        read.map(Some).map_err(|misfit| misfit.at(&index.to_string()))
    }
}

struct Members<'de> {
    fit: Fit<'de>,
    left: serde_json::map::Iter<'de>,
    /// Those that may be absent.
    fields: &'static [&'static str],
    /// The member whose key was read last.
    value: Option<(&'de str, &'de Value)>,
}

impl<'de> Members<'de> {
    fn of(
        fit: Fit<'de>,
        members: &'de Map<String, Value>,
        fields: &'static [&'static str],
    ) -> Self {
        Self { fit, left: members.iter(), fields, value: None }
    }

    fn next(&mut self) -> Option<&'de str> {
        let (fit, fields) = (self.fit, self.fields);
        let is_given = |(key, value): &(&String, &'de Value)| {
            !(fit.with(value).is_absent() && fields.contains(&key.as_str()))
        };
        self.value = self.left.find(is_given).map(|(key, value)| (key.as_str(), value));
        self.value.map(|(key, _)| key)
    }

    fn read<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misfit> {
        let (key, value) = self.value.take().unwrap_or(("", &Value::Null));
        seed.deserialize(self.fit.with(value)).map_err(|misfit| misfit.at(key))
    }
}

impl<'de> MapAccess<'de> for Members<'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Misfit> {
        let Some(key) = self.next() else { return Ok(None) };
        seed.deserialize(key.into_deserializer()).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Misfit> {
        self.read(seed)
    }
}

impl<'de> EnumAccess<'de> for Members<'de> {
    type Error = Misfit;
    type Variant = Self;

    fn variant_seed<K: DeserializeSeed<'de>>(
        mut self,
        seed: K,
    ) -> Result<(K::Value, Self), Misfit> {
        let word = self.next().unwrap_or_default();
        Ok((seed.deserialize(word.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for Members<'de> {
    type Error = Misfit;

    fn unit_variant(mut self) -> Result<(), Misfit> {
        self.read(std::marker::PhantomData::<()>)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(
        mut self,
        seed: T,
    ) -> Result<T::Value, Misfit> {
        self.read(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Misfit> {
        let (key, value) = self.value.unwrap_or(("", &Value::Null));
        self.fit.with(value).deserialize_seq(visitor).map_err(|misfit| misfit.at(key))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let (key, value) = self.value.unwrap_or(("", &Value::Null));
        self.fit.with(value).deserialize_map(visitor).map_err(|misfit| misfit.at(key))
    }
}
