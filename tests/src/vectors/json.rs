//! Inputs and outputs of a vector in JSON, and why one is refused.

use lockstep_client_crypto::{CryptoError, OpenError};
use lockstep_proto::cbor::{ByteArray, CodecError, Wire as _};
use lockstep_proto::chain::ChainError;
use lockstep_proto::device_log::DeviceLogError;
use lockstep_proto::hash::Digest;
use lockstep_proto::key_header::KeyHeaderError;
use lockstep_proto::recovery::RecoveryTextError;
use lockstep_proto::sign::{PublicKey, SignatureError, Signed};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// A refusal: its class, and what was given out before.
#[derive(Debug)]
pub struct Fault {
    /// Class of `vectors/README.md`.
    pub class: &'static str,
    /// Plaintext that was given out.
    pub given: Vec<u8>,
    /// Place of a mistyped character.
    pub position: Option<usize>,
}

impl Fault {
    /// Of a class, with nothing given out.
    pub fn new(class: &'static str) -> Self {
        Self { class, given: Vec::new(), position: None }
    }

    /// Digest of what was given out.
    pub fn released(&self) -> String {
        blake3::hash(&self.given).to_hex().to_string()
    }
}

impl From<CodecError> for Fault {
    fn from(error: CodecError) -> Self {
        Self::new(match error {
            CodecError::TooLong { .. } => "limit",
            CodecError::Version { .. } => "version",
            _ => "malformed",
        })
    }
}

impl From<SignatureError> for Fault {
    fn from(_: SignatureError) -> Self {
        Self::new("signature")
    }
}

impl From<OpenError> for Fault {
    fn from(_: OpenError) -> Self {
        Self::new("open")
    }
}

impl From<ChainError> for Fault {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::Codec(error) => error.into(),
            ChainError::Signature { .. } => Self::new("signature"),
            _ => Self::new("chain"),
        }
    }
}

impl From<DeviceLogError> for Fault {
    fn from(error: DeviceLogError) -> Self {
        match error {
            DeviceLogError::Codec(error) => error.into(),
            DeviceLogError::Signature(error) => error.into(),
            DeviceLogError::Full { .. } => Self::new("limit"),
            _ => Self::new("chain"),
        }
    }
}

impl From<KeyHeaderError> for Fault {
    fn from(error: KeyHeaderError) -> Self {
        match error {
            KeyHeaderError::Codec(error) => error.into(),
            KeyHeaderError::Signature(error) => error.into(),
            _ => Self::new("identity"),
        }
    }
}

impl From<CryptoError> for Fault {
    fn from(error: CryptoError) -> Self {
        match error {
            CryptoError::Open(error) => error.into(),
            CryptoError::Codec(error) => error.into(),
            CryptoError::KeyHeader(error) => error.into(),
            _ => Self::new("malformed"),
        }
    }
}

impl From<RecoveryTextError> for Fault {
    fn from(error: RecoveryTextError) -> Self {
        let position = match error {
            RecoveryTextError::Character { position, .. } | RecoveryTextError::Mistyped { position, .. } => {
                Some(position)
            }
            _ => None,
        };
        Self { position, ..Self::new("text") }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Bytes of lower-case hexadecimal; none for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 2);
    let mut high = None;
    for c in text.as_bytes() {
        let digit = match *c {
            c @ b'0'..=b'9' => c - b'0',
            c @ b'a'..=b'f' => c - b'a' + 10,
            _ => return None,
        };
        high = match high {
            None => Some(digit << 4),
            Some(high) => {
                out.push(high | digit);
                None
            }
        };
    }
    high.is_none().then_some(out)
}

/// A CBOR item in JSON.
pub fn value(bytes: &[u8]) -> Value {
    from_cbor(&serde_cbor::from_slice(bytes).unwrap())
}

fn from_cbor(item: &serde_cbor::Value) -> Value {
    use serde_cbor::Value as Cbor;
    match item {
        Cbor::Null => Value::Null,
        Cbor::Bool(is) => Value::Bool(*is),
        Cbor::Integer(number) => match u64::try_from(*number) {
            Ok(number) => number.into(),
            Err(_) => i64::try_from(*number).unwrap().into(),
        },
        Cbor::Bytes(bytes) => json!({ "bytes": hex(bytes) }),
        Cbor::Text(text) => text.clone().into(),
        Cbor::Array(items) => items.iter().map(from_cbor).collect(),
        _ => panic!("no structure has such an item"),
    }
}

/// A value of the README as a CBOR item.
pub fn to_cbor(value: &Value) -> serde_cbor::Value {
    use serde_cbor::Value as Cbor;
    match value {
        Value::Null => Cbor::Null,
        Value::Bool(is) => Cbor::Bool(*is),
        Value::Number(number) => Cbor::Integer(number.as_i128().unwrap()),
        Value::String(text) => Cbor::Text(text.clone()),
        Value::Array(items) => Cbor::Array(items.iter().map(to_cbor).collect()),
        Value::Object(object) => Cbor::Bytes(unhex(object["bytes"].as_str().unwrap()).unwrap()),
    }
}

/// Encoding of a `signed` pair.
pub fn signed_hex(signed: &Signed) -> String {
    hex(signed.encode())
}

/// The inputs of a case.
#[derive(Clone, Copy)]
pub struct In<'a>(pub &'a Map<String, Value>);

impl In<'_> {
    /// A byte string; what is repeated in it may be said once.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        if let Some(pieces) = self.0.get(name).and_then(|value| value.get("pieces")) {
            return pieces.as_array().unwrap().iter().flat_map(piece).collect();
        }
        let text = self.0.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no input {name}"));
        unhex(text).unwrap_or_else(|| panic!("{name} is not hexadecimal"))
    }

    /// A byte string of a fixed length.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn array<const N: usize>(&self, name: &str) -> Result<[u8; N], Fault> {
        self.bytes(name).try_into().map_err(|_| Fault::new("malformed"))
    }

    /// The same, as structures hold it.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn fixed<const N: usize>(&self, name: &str) -> Result<ByteArray<N>, Fault> {
        self.array(name).map(ByteArray)
    }

    /// A digest or public key.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn digest(&self, name: &str) -> Result<Digest, Fault> {
        self.array(name).map(Digest::from_bytes)
    }

    /// A public key that is accepted.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn public(&self, name: &str) -> Result<PublicKey, Fault> {
        PublicKey::from_bytes(&self.array(name)?).ok_or(Fault::new("signature"))
    }

    /// A number.
    pub fn number(&self, name: &str) -> u64 {
        self.0.get(name).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number {name}"))
    }

    /// A small number.
    pub fn small(&self, name: &str) -> u8 {
        u8::try_from(self.number(name)).unwrap()
    }

    /// A text.
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("no text {name}"))
    }

    /// A list; empty if it is not there.
    pub fn list(&self, name: &str) -> &[Value] {
        self.0.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// A `signed` pair, through the strict decoder.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn signed(&self, name: &str) -> Result<Signed, Fault> {
        Ok(Signed::decode(&self.bytes(name))?)
    }
}

/// A piece of a byte string: hexadecimal, or a byte so many times.
pub fn piece(value: &Value) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return unhex(text).unwrap();
    }
    let number = |name: &str| usize::try_from(value[name].as_u64().unwrap()).unwrap();
    vec![u8::try_from(number("byte")).unwrap(); number("count")]
}

/// The bytes of an item of a list.
pub fn item(value: &Value) -> Vec<u8> {
    unhex(value.as_str().unwrap()).unwrap()
}

/// A fixed-length item of a list.
///
/// # Errors
/// [`Fault`].
pub fn item_array<const N: usize>(value: &Value) -> Result<[u8; N], Fault> {
    item(value).try_into().map_err(|_| Fault::new("malformed"))
}
