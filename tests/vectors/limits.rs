//! Limits whose breaking takes too many bytes for a file.

use lockstep_client_crypto::account::{Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::seal;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::device_log::{DeviceLog, DeviceLogError, Pin};
use lockstep_proto::envelope::{Envelope, EnvelopeHeader, KIND_DOCUMENT, blob_list_digest, padded_size};
use lockstep_proto::id::{DeviceId, Epoch, OperationId, Revision, Seq, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use lockstep_proto::limits::{DEVICES_MAX, ENVELOPE_BYTES_MAX};
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, label};
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

/// An envelope that is right in everything, with a plaintext of so many bytes.
fn envelope(keys: &VaultKeys, key: [u8; 32], plaintext_bytes: usize) -> Vec<u8> {
    let content = |document: usize| Content {
        record_type: "note".into(),
        name: b"large".as_slice().into(),
        schema: 1,
        codec: 0,
        hlc: Hlc { utc_ms: 0, counter: 0 },
        operation: OperationId::from_bytes([1; 16]),
        base_revision: Revision::new(0),
        conflict_of: Vec::new().into(),
        document: vec![7; document].into(),
        blobs: Vec::new(),
        manifest: (),
    };
    // The document's length takes five bytes.
    let around = content(100_000).encode().len() - 100_000 + 4;
    let encoded = content(plaintext_bytes - around).encode();
    let plaintext = [&u32::try_from(encoded.len()).unwrap().to_be_bytes()[..], &encoded].concat();
    assert_eq!(
        (plaintext.len(), padded_size(plaintext.len() as u64)),
        (plaintext_bytes, plaintext_bytes as u64)
    );
    let header = EnvelopeHeader {
        version: VERSION,
        suite: SUITE,
        kind: KIND_DOCUMENT,
        vault: keys.vault(),
        record: keys.record_id("note", b"large"),
        revision: Revision::new(1),
        epoch: Epoch::new(1),
        device: DeviceId::from_bytes([2; 16]),
        blobs: blob_list_digest(&[]),
        nonce: ByteArray([3; 24]),
    };
    let header = header.encode();
    let (commitment, ciphertext) =
        seal::seal(&SecretKey::from_bytes(&key), label::ENVELOPE_HEADER, &header, &[3; 24], &plaintext);
    Envelope { header: header.into(), commitment, ciphertext: ciphertext.into() }.encode()
}

#[test]
fn an_envelope_that_is_right_in_all_else_opens_up_to_1_mib() {
    let key = [9; 32];
    let keys = VaultKeys::new(VaultId::from_bytes([4; 16]), &SecretKey::from_bytes(&[5; 32]))
        .with_epoch(Epoch::new(1), SecretKey::from_bytes(&key));
    // Sizes of padding, 16 KiB apart.
    let (under, over) = (1024 * 1024 - 16 * 1024, 1024 * 1024);
    let fits = envelope(&keys, key, under);
    assert!(fits.len() < ENVELOPE_BYTES_MAX && keys.open(&fits).is_ok());
    let large = envelope(&keys, key, over);
    assert!(large.len() > ENVELOPE_BYTES_MAX && large.len() < ENVELOPE_BYTES_MAX + 1024);
    assert!(keys.open(&large).is_err(), "an envelope of {} bytes is opened", large.len());
}
