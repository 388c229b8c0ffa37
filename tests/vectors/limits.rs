//! Limits whose breaking takes too many bytes for a file.

use lockstep_client_crypto::account::{Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_proto::Digest;
use lockstep_proto::device_log::{DeviceLog, DeviceLogError, Pin};
use lockstep_proto::id::Seq;
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::limits::DEVICES_MAX;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_tests::vectors::world::rng;

#[test]
fn an_account_has_64_live_devices_and_no_more() {
    let mut rng = rng("a device too many");
    let account = UnlockedAccount::create(&mut rng).unwrap();
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let recovery = RecoveryKey::generate(&mut rng);
    let passphrase = Passphrase::new("a passphrase of many devices").unwrap();
    let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let joining = Joining { device: &device, name: "first", pins: Vec::new() };
    let mut last = account.first_enrolment(credentials, joining, &mut rng).unwrap();
    let mut log = DeviceLog::new(*account.identity());
    log.append(&last.entry).unwrap();
    let vault = keyring_vault_id(&account.identity().to_bytes());
    for devices in 2..=DEVICES_MAX + 1 {
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let pins = vec![Pin { vault, seq: Seq::new(0), head: Digest::ZERO }];
        let header = VerifiedKeyHeader::verify(account.account(), &last.key_header).unwrap();
        let joining = Joining { device: &device, name: "next", pins };
        last = account.enrol(&header, &log, None, joining, &mut rng).unwrap();
        match log.append(&last.entry) {
            Ok(_) => assert!(devices <= DEVICES_MAX, "device {devices} is taken"),
            Err(DeviceLogError::Full { what: "devices", max: 64 }) => assert_eq!(devices, DEVICES_MAX + 1),
            Err(error) => panic!("device {devices}: {error}"),
        }
    }
    assert_eq!(log.live().count(), DEVICES_MAX);
}
