//! The one source of randomness and the one clock of the client.

use lockstep_client_crypto::CryptoRng;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use std::time::{SystemTime, UNIX_EPOCH};

/// The operating system's generator.
pub fn system() -> impl CryptoRng {
    UnwrapErr(SysRng)
}

/// Random bytes that are not secret.
pub fn bytes<const N: usize>() -> [u8; N] {
    lockstep_client_crypto::secret::random_bytes(&mut system())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
pub fn now_utc() -> u64 {
    now_ms() / 1000
}
