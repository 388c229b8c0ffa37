//! Device logs and key headers: only what the identity signed, in its order, is taken; a spoilt header opens for nobody.

use super::edit::Input;
use super::fixture::fixture;
use lockstep_client_crypto::account::{Credential, KeyringKeys, UnlockedAccount};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::device_log::DeviceLog;
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::sign::Signed;

/// Entries of the real log, spoilt as the input says; then a key header.
pub(super) fn target(data: &[u8]) {
    let fixture = fixture();
    let mut input = Input(data);
    let mut log = DeviceLog::new(fixture.identity);
    let mut taken = 0;
    for _ in 0..input.byte() % 8 {
        let which = usize::from(input.byte()) % fixture.entries.len();
        let mut entry = fixture.entries[which].encode();
        input.spoil(&mut entry);
        let is_next = fixture.entries.get(taken).is_some_and(|next| next.encode() == entry);
        let Ok(entry) = Signed::decode(&entry) else { continue };
        let is_taken = log.append(&entry).is_ok();
        assert_eq!(is_taken, is_next, "only the next entry is taken");
        taken += usize::from(is_taken);
    }
    let which = usize::from(input.byte()) % fixture.headers.len();
    let real = fixture.headers[which].encode();
    let mut header = real.clone();
    input.spoil(&mut header);
    let Ok(signed) = Signed::decode(&header) else { return };
    let Ok(verified) = VerifiedKeyHeader::verify(fixture.account, &signed) else {
        assert!(header != real, "the real header verifies");
        return;
    };
    assert!(header == real, "only what the identity signed verifies");
    let fits = log.check_key_header(&verified).is_ok();
    assert_eq!(fits, taken == which + 1, "a header belongs to its entry");
    UnlockedAccount::unlock(&verified, Credential::Recovery(&fixture.recovery)).unwrap();
    KeyringKeys::open_as_device(&verified, &fixture.device).unwrap();
}
