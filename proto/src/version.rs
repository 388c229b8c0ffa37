//! The version byte and the suite number that every header begins with.

use crate::cbor::CodecError;

/// Draft 2 of version 1: the high bit says "draft", the low seven bits number it.
pub const VERSION: u8 = 0x82;

/// Suite 1 (PROTOCOL.md section 1.4). There is no negotiation.
pub const SUITE: u8 = 1;

/// A version byte in words.
pub fn describe(version: u8) -> String {
    if version & 0x80 == 0 {
        format!("version {version}")
    } else {
        format!("draft {} of version 1", version & 0x7f)
    }
}

/// Reads the version out of the first field of an array, so that another version is named before
/// anything else of the structure is looked at.
pub(crate) fn check(what: &'static str, bytes: &[u8]) -> Result<(), CodecError> {
    let found = match bytes {
        [head, 0x18, version, ..] if head & 0xe0 == 0x80 => *version,
        [head, version, ..] if head & 0xe0 == 0x80 && *version < 0x18 => *version,
        _ => return Err(CodecError::Rule { what, rule: "does not begin with a version" }),
    };
    if found == VERSION { Ok(()) } else { Err(CodecError::Version { what, found }) }
}

/// Checks version and suite of a decoded header.
pub(crate) fn check_suite(what: &'static str, version: u8, suite: u8) -> Result<(), CodecError> {
    if version != VERSION {
        return Err(CodecError::Version { what, found: version });
    }
    if suite != SUITE {
        return Err(CodecError::Rule { what, rule: "the suite is not suite 1; an update is needed" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_named() {
        let error = check("commit", &[0x82, 0x18, 0x81, 0]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "commit is of draft 1 of version 1, this program speaks draft 2 of version 1"
        );
        let error = check("commit", &[0x82, 3, 0]).unwrap_err();
        assert_eq!(error.to_string(), "commit is of version 3, this program speaks draft 2 of version 1");
        let error = check("commit", &[0x82, 0x17, 0]).unwrap_err();
        assert!(matches!(error, CodecError::Version { found: 0x17, .. }));
        check("commit", &[0x82, 0x18, VERSION]).unwrap();
    }

    #[test]
    fn what_does_not_begin_with_a_version_is_not_taken_for_one() {
        let begins: [&[u8]; 8] = [
            &[],
            &[0x82],
            &[0x82, 0x18],
            &[0x82, 0x19, VERSION],
            &[0x62, 0x18, VERSION],
            &[0xa2, 0x18, VERSION],
            &[0x18, 0x18, VERSION],
            &[0x62, 3, 0],
        ];
        for bytes in begins {
            let error = check("commit", bytes).unwrap_err();
            assert!(matches!(error, CodecError::Rule { .. }), "{bytes:02x?}: {error}");
        }
    }
}
