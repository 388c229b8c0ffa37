//! Envelopes: only what was sealed opens, and contents that a device may seal come out as they went in.

use super::edit::Input;
use super::fixture::{AS, fixture, rng};
use lockstep_client_crypto::content::Content;
use lockstep_proto::cbor::Wire as _;

/// A real envelope that the input spoils, or a content that it makes up.
pub(super) fn target(data: &[u8]) {
    let fixture = fixture();
    let mut input = Input(data);
    match input.byte() % 3 {
        0 => {
            let mut envelope = fixture.envelope.clone();
            input.spoil(&mut envelope);
            let opened = fixture.vault_keys.open(&envelope);
            assert_eq!(opened.is_ok(), envelope == fixture.envelope, "only what was sealed opens");
        }
        1 => assert!(fixture.vault_keys.open(input.0).is_err() || input.0 == fixture.envelope),
        _ => {
            let Ok(content) = Content::decode(input.0) else { return };
            let Ok(sealed) = fixture.vault_keys.seal(AS, &content, &fixture.device, &mut rng(3)) else {
                return;
            };
            let opened = fixture.vault_keys.open(&sealed).expect("what was sealed opens");
            assert!(opened.content == content, "what went in comes out");
        }
    }
}
