//! Tests of the key hierarchy.

use super::*;
use rand::SeedableRng;
use rand::rngs::ChaCha20Rng;

struct Fixture {
    account: UnlockedAccount,
    device: DeviceKeys,
    passphrase: Passphrase,
    recovery: RecoveryKey,
    header: VerifiedKeyHeader,
    log: DeviceLog,
    rng: ChaCha20Rng,
}

fn join<'a>(device: &'a DeviceKeys, name: &'a str, pins: Vec<Pin>) -> Joining<'a> {
    Joining { device, name, pins }
}

fn fixture() -> Fixture {
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let account = UnlockedAccount::create(&mut rng).unwrap();
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let passphrase = Passphrase::new("correct horse battery staple").unwrap();
    let recovery = RecoveryKey::generate(&mut rng);
    let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let first = account.first_enrolment(credentials, join(&device, "laptop", Vec::new()), &mut rng).unwrap();
    let header = VerifiedKeyHeader::verify(account.account(), &first.key_header).unwrap();
    let mut log = DeviceLog::new(*header.identity());
    log.append(&first.entry).unwrap();
    log.check_key_header(&header).unwrap();
    Fixture { account, device, passphrase, recovery, header, log, rng }
}

#[test]
fn passphrase_recovery_key_and_device_open_the_same_keyring() {
    let f = fixture();
    let by_passphrase = UnlockedAccount::unlock(&f.header, Credential::Passphrase(&f.passphrase)).unwrap();
    let by_recovery = UnlockedAccount::unlock(&f.header, Credential::Recovery(&f.recovery)).unwrap();
    let by_device = KeyringKeys::open_as_device(&f.header, &f.device).unwrap();
    let expected = f.account.keyring().vault_secret();
    for keyring in [by_passphrase.keyring(), by_recovery.keyring(), &by_device] {
        assert_eq!(keyring.vault_secret().expose(), expected.expose());
    }
    let device = f.log.device(f.device.id()).unwrap();
    assert_eq!(by_device.open_name(device).unwrap(), "laptop");
}

#[test]
fn wrong_credentials_fail_alike() {
    let mut f = fixture();
    let wrong = Passphrase::new("correct horse battery stable").unwrap();
    let error = UnlockedAccount::unlock(&f.header, Credential::Passphrase(&wrong)).unwrap_err();
    assert_eq!(error.to_string(), "it does not open with this key");
    let other = RecoveryKey::generate(&mut f.rng);
    let error = UnlockedAccount::unlock(&f.header, Credential::Recovery(&other)).unwrap_err();
    assert_eq!(error.to_string(), "it does not open with this key");
}

#[test]
fn enrolling_and_recovering_follow_the_log() {
    let mut f = fixture();
    let second = DeviceKeys::generate(&mut f.rng).unwrap();
    let keyring = keyring_id(f.account.identity());
    let pins = vec![Pin { vault: keyring, seq: lockstep_proto::Seq::new(0), head: Digest::ZERO }];
    let unlocked = UnlockedAccount::unlock(&f.header, Credential::Passphrase(&f.passphrase)).unwrap();
    let enrolled =
        unlocked.enrol(&f.header, &f.log, None, join(&second, "phone", pins.clone()), &mut f.rng).unwrap();
    let header = VerifiedKeyHeader::verify(unlocked.account(), &enrolled.key_header).unwrap();
    f.log.append(&enrolled.entry).unwrap();
    f.log.check_key_header(&header).unwrap();
    assert!(f.log.check_key_header(&f.header).is_err(), "the older header is refused");
    KeyringKeys::open_as_device(&header, &second).unwrap();
    KeyringKeys::open_as_device(&header, &f.device).unwrap();

    let third = DeviceKeys::generate(&mut f.rng).unwrap();
    let passphrase = Passphrase::new("a new passphrase entirely").unwrap();
    let recovery = RecoveryKey::generate(&mut f.rng);
    let new = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let unlocked = UnlockedAccount::unlock(&header, Credential::Recovery(&f.recovery)).unwrap();
    let recovered =
        unlocked.enrol(&header, &f.log, Some(new), join(&third, "new", pins), &mut f.rng).unwrap();
    let header = VerifiedKeyHeader::verify(unlocked.account(), &recovered.key_header).unwrap();
    f.log.append(&recovered.entry).unwrap();
    f.log.check_key_header(&header).unwrap();
    UnlockedAccount::unlock(&header, Credential::Passphrase(&passphrase)).unwrap();
    UnlockedAccount::unlock(&header, Credential::Recovery(&recovery)).unwrap();
    assert!(UnlockedAccount::unlock(&header, Credential::Passphrase(&f.passphrase)).is_err());
    assert!(UnlockedAccount::unlock(&header, Credential::Recovery(&f.recovery)).is_err());
}

#[test]
fn enrolments_without_pins_repeats_and_foreign_identities_are_refused() {
    let mut f = fixture();
    let second = DeviceKeys::generate(&mut f.rng).unwrap();
    let unpinned =
        f.account.enrol(&f.header, &f.log, None, join(&second, "x", Vec::new()), &mut f.rng).unwrap();
    assert!(f.log.append(&unpinned.entry).is_err(), "no pin of the keyring");
    let keyring = keyring_id(f.account.identity());
    let pins = vec![Pin { vault: keyring, seq: lockstep_proto::Seq::new(0), head: Digest::ZERO }];
    let again =
        f.account.enrol(&f.header, &f.log, None, join(&f.device, "x", pins.clone()), &mut f.rng).unwrap();
    assert!(f.log.append(&again.entry).is_err(), "the same device twice");
    let stranger = UnlockedAccount::create(&mut f.rng).unwrap();
    let forged = stranger.enrol(&f.header, &f.log, None, join(&second, "x", pins), &mut f.rng).unwrap();
    assert!(f.log.append(&forged.entry).is_err(), "another identity");
    assert!(VerifiedKeyHeader::verify(f.account.account(), &forged.key_header).is_err());
}

#[test]
fn every_flipped_byte_of_a_key_header_is_refused() {
    let f = fixture();
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    let account = UnlockedAccount::create(&mut rng).unwrap();
    let credentials = NewCredentials { passphrase: &f.passphrase, recovery: &f.recovery };
    let first =
        account.first_enrolment(credentials, join(&f.device, "laptop", Vec::new()), &mut rng).unwrap();
    for place in 0..first.key_header.bytes.0.len() {
        let mut damaged = first.key_header.clone();
        damaged.bytes.0[place] ^= 1;
        assert!(VerifiedKeyHeader::verify(account.account(), &damaged).is_err(), "byte {place}");
    }
}
