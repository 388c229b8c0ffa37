//! Values of documents, and their one order and encoding.

use crate::limits;
use lockstep_proto::cbor::{CodecError, Wire};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// Fields of a document, or of a map in it.
pub type Fields = BTreeMap<String, Value>;

/// Smallest whole number: -2^63.
const INT_MIN: i128 = -(1 << 63);
/// Largest whole number: 2^64 - 1.
const INT_MAX: i128 = (1 << 64) - 1;

/// A value of a document. Numbers have one form each, so that a language that does not tell 1 from 1.0 writes what
/// the others write.
#[derive(Clone)]
pub enum Value {
    /// Nothing.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number from -2^63 to 2^64 - 1.
    Int(i128),
    /// Any other finite number.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    Array(Vec<Value>),
    /// A map with text keys.
    Map(Fields),
}

impl Value {
    /// A number in its one form; none if it is not finite.
    pub fn number(number: f64) -> Option<Self> {
        if !number.is_finite() {
            return None;
        }
        let whole = whole_part(number);
        let is_whole = number.fract() == 0.0 && (INT_MIN..=INT_MAX).contains(&whole);
        Some(if is_whole { Self::Int(whole) } else { Self::Float(number) })
    }

    /// A whole number; one out of range becomes the nearest that there is.
    pub(crate) fn int(number: i128) -> Self {
        Self::Int(number.clamp(INT_MIN, INT_MAX))
    }

    /// A text.
    pub(crate) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 2,
            Self::Text(_) => 3,
            Self::Bytes(_) => 4,
            Self::Array(_) => 5,
            Self::Map(_) => 6,
        }
    }

    /// Checks what a decoder does not: ranges, keys, depth and number of values.
    fn check(&self, depth: usize, count: &mut usize) -> Result<(), &'static str> {
        *count = count.saturating_add(1);
        if *count > limits::VALUES_MAX {
            return Err("more than 65,536 values");
        }
        if depth > limits::DEPTH_MAX {
            return Err("lists and maps more than 24 deep");
        }
        match self {
            Self::Int(number) if !(INT_MIN..=INT_MAX).contains(number) => {
                Err("a whole number beyond 64 bits")
            }
            Self::Float(number) if !matches!(Self::number(*number), Some(Self::Float(_))) => {
                Err("a number that is not in its one form")
            }
            Self::Array(items) => {
                items.iter().try_for_each(|item| item.check(depth.saturating_add(1), count))
            }
            Self::Map(fields) => fields.iter().try_for_each(|(key, value)| {
                if key.len() > limits::KEY_BYTES_MAX {
                    return Err("a key longer than 256 bytes");
                }
                value.check(depth.saturating_add(1), count)
            }),
            _ => Ok(()),
        }
    }

    /// Whether a value that passes the test is in it anywhere.
    pub(crate) fn any(&self, test: &mut dyn FnMut(&Self) -> bool) -> bool {
        test(self)
            || match self {
                Self::Array(items) => items.iter().any(|item| item.any(test)),
                Self::Map(fields) => fields.values().any(|value| value.any(test)),
                _ => false,
            }
    }
}

/// The whole number at or below a finite one; the nearest that the type has, if it is out of range.
#[expect(
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    reason = "it saturates, and that is meant"
)]
fn whole_part(number: f64) -> i128 {
    number.floor() as i128
}

/// A float is never a whole number in range: it can not equal one.
fn int_to_float(int: i128, float: f64) -> Ordering {
    if int <= whole_part(float) { Ordering::Less } else { Ordering::Greater }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b),
            (Self::Int(a), Self::Float(b)) => int_to_float(*a, *b),
            (Self::Float(a), Self::Int(b)) => int_to_float(*b, *a).reverse(),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Array(a), Self::Array(b)) => a.cmp(b),
            (Self::Map(a), Self::Map(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

/// Documents are people's own: nothing of them gets into a log.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value([redacted])")
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => serializer.serialize_u64(value),
                (_, Ok(value)) => serializer.serialize_i64(value),
                _ => Err(serde::ser::Error::custom("a whole number beyond 64 bits")),
            },
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::Bytes(value) => serializer.serialize_bytes(value),
            Self::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                items.iter().try_for_each(|item| seq.serialize_element(item))?;
                seq.end()
            }
            Self::Map(fields) => serialize_fields(fields, serializer),
        }
    }
}

/// Keys in the order of their encodings (RFC 8949 section 4.2.1): the shorter first, then by bytes.
fn serialize_fields<S: Serializer>(fields: &Fields, serializer: S) -> Result<S::Ok, S::Error> {
    let mut sorted: Vec<(&String, &Value)> = fields.iter().collect();
    sorted.sort_by_key(|(key, _)| (key.len(), *key));
    let mut map = serializer.serialize_map(Some(sorted.len()))?;
    sorted.into_iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
    map.end()
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a boolean, a number, text, bytes, a list, or a map with text keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Value::number(value).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::text(value))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(value.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Fields::new();
        while let Some((key, value)) = map.next_entry::<String, Value>()? {
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom("a key stands twice in a map"));
            }
        }
        Ok(Value::Map(fields))
    }
}

/// A document as it stands in an envelope: a CBOR map with text keys.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Raw(pub(crate) Fields);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_fields(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Map(fields) => Ok(Self(fields)),
            _ => Err(D::Error::custom("a document that is no map")),
        }
    }
}

impl Wire for Raw {
    const NAME: &'static str = "document";
    const BYTES_MAX: usize = limits::DOCUMENT_BYTES_MAX;
    const SECRET: bool = true;

    fn check(&self) -> Result<(), CodecError> {
        let mut count = 0;
        self.0
            .iter()
            .try_for_each(|(key, value)| {
                if key.len() > limits::KEY_BYTES_MAX {
                    return Err("a key longer than 256 bytes");
                }
                value.check(1, &mut count)
            })
            .map_err(|rule| CodecError::Rule { what: Self::NAME, rule })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(bytes: &[u8]) -> Result<Raw, CodecError> {
        Raw::decode(bytes)
    }

    #[test]
    fn a_document_has_one_encoding() {
        let text = r#"{"b":1,"aa":[true,null,"x",-5,1.5],"a":{"k":18446744073709551615}}"#;
        let Value::Map(fields) = serde_json::from_str(text).unwrap() else { panic!("a map") };
        let bytes = Raw(fields.clone()).encode();
        // Shorter keys first: a, b, aa.
        assert_eq!(&bytes[..3], [0xa3, 0x61, b'a']);
        assert!(decode(&bytes).unwrap().0 == fields);
    }

    #[test]
    fn other_encodings_of_the_same_are_refused() {
        let refused: [(&[u8], &str); 9] = [
            (&[0xa2, 0x61, b'b', 1, 0x61, b'a', 1], "keys out of order"),
            (&[0xa2, 0x61, b'a', 1, 0x61, b'a', 1], "a key twice"),
            (&[0xa1, 0x61, b'a', 0x18, 1], "a longer integer than needed"),
            (&[0xa1, 0x61, b'a', 0xf9, 0x3c, 0], "1.0 as a float"),
            (&[0xa1, 0x61, b'a', 0xf9, 0x7e, 0], "not a number"),
            (&[0xbf, 0x61, b'a', 1, 0xff], "an indefinite map"),
            (&[0xa1, 0x61, b'a', 0xf7], "undefined"),
            (&[0xa1, 0x61, b'a', 0xc1, 1], "a tag"),
            (&[0xa1, 1, 1], "a key that is no text"),
        ];
        for (bytes, what) in refused {
            assert!(decode(bytes).is_err(), "{what}");
        }
        assert!(decode(&[0x81, 1]).is_err(), "no map");
        assert!(decode(&[0xa1, 0x61, b'a', 0x3b, 255, 255, 255, 255, 255, 255, 255, 255]).is_err(), "-2^64");
    }

    #[test]
    fn limits_are_kept() {
        let mut deep = Value::Null;
        for _ in 0..limits::DEPTH_MAX {
            deep = Value::Array(vec![deep]);
        }
        let fields = |value| Raw(Fields::from([("a".to_owned(), value)]));
        assert!(fields(deep.clone()).check().is_err());
        let Value::Array(inner) = deep else { panic!("an array") };
        assert!(fields(inner[0].clone()).check().is_ok());
        assert!(fields(Value::Array(vec![Value::Null; limits::VALUES_MAX])).check().is_err());
        assert!(Raw(Fields::from([("k".repeat(257), Value::Null)])).check().is_err());
        assert!(fields(Value::Float(2.0)).check().is_err());
    }

    #[test]
    fn numbers_compare_by_what_they_are() {
        let number = |number| Value::number(number).unwrap();
        assert!(matches!(number(-0.0), Value::Int(0)) && matches!(number(1e19), Value::Int(_)));
        let sorted = [-1e300, -2.5, -2.0, 1.0, 1.5, 2.0, 1.8e19, 1.9e19, 1e300];
        assert!(sorted.windows(2).all(|pair| number(pair[0]) < number(pair[1])));
        assert!(Value::number(f64::NAN).is_none() && Value::number(f64::INFINITY).is_none());
    }

    #[test]
    fn nothing_of_a_document_gets_into_a_log() {
        assert_eq!(format!("{:?}", Value::text("diary")), "Value([redacted])");
    }
}
