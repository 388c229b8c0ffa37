//! Tests of the key hierarchy.

use super::*;
use lockstep_proto::device_log::DeviceLogError;
use lockstep_proto::id::{Seq, VaultId};
use lockstep_proto::limits;
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
fn a_device_log_has_an_end_and_revocations_go_on_beyond_it() {
    let mut f = fixture();
    let keyring = keyring_id(f.account.identity());
    let mut vaults: Vec<VaultId> = (0..1023_u64)
        .map(|number| VaultId::from_bytes((u128::from(number) << 7).to_be_bytes()))
        .chain([keyring])
        .collect();
    vaults.sort_unstable();
    let pin = |vault: &VaultId| Pin { vault: *vault, seq: Seq::new(1 << 62), head: Digest::ZERO };
    let pins: Vec<Pin> = vaults.iter().map(pin).collect();
    let mut full = None;
    for _ in 0..2 * limits::DEVICE_LOG_BYTES_MAX / limits::DEVICE_LOG_ENTRY_BYTES_MAX {
        let device = DeviceKeys::generate(&mut f.rng).unwrap();
        let joins = join(&device, "x", pins.clone());
        let enrolled = f.account.enrol(&f.header, &f.log, None, joins, &mut f.rng).unwrap();
        let before = f.log.next_index();
        if let Err(error) = f.log.append(&enrolled.entry) {
            assert_eq!(f.log.next_index(), before);
            full = Some(error);
            break;
        }
        f.header = VerifiedKeyHeader::verify(f.account.account(), &enrolled.key_header).unwrap();
        if f.log.live().count() > 60 {
            let gone = f.log.live().map(|device| device.id).find(|id| *id != f.device.id()).unwrap();
            let revoked = f.account.revoke(&f.header, &f.log, gone, pins.clone(), &mut f.rng).unwrap();
            f.log.append(&revoked.entry).unwrap();
            f.header = VerifiedKeyHeader::verify(f.account.account(), &revoked.key_header).unwrap();
            f.account.take_header(&f.header).unwrap();
        }
    }
    let max = u64::try_from(limits::DEVICE_LOG_BYTES_MAX).unwrap();
    assert!(matches!(full, Some(DeviceLogError::Full { max: is, .. }) if is == max), "{full:?}");
    let gone = f.log.live().map(|device| device.id).find(|id| *id != f.device.id()).unwrap();
    let revoked = f.account.revoke(&f.header, &f.log, gone, pins, &mut f.rng).unwrap();
    f.log.append(&revoked.entry).unwrap();
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

/// Below the signature: a header whose wraps are damaged or swapped and which the identity signed all the same opens to
/// one and the same error, whatever was damaged.
#[test]
fn every_flipped_byte_of_a_wrap_and_every_swap_is_one_error() {
    let f = fixture();
    let signed = |header: &KeyHeader| {
        let signed = device::sign_encoding(&f.account.identity, label::KEY_HEADER, header.encode());
        VerifiedKeyHeader::verify(f.account.account(), &signed).unwrap()
    };
    let fails = |header: &KeyHeader, credential: Credential<'_>| {
        let error = UnlockedAccount::unlock(&signed(header), credential).unwrap_err();
        assert!(matches!(error, CryptoError::Open(_)), "{error}");
        assert_eq!(error.to_string(), "it does not open with this key");
    };
    let (by_recovery, by_passphrase) =
        (Credential::Recovery(&f.recovery), Credential::Passphrase(&f.passphrase));
    let flipped = |role: usize, part: usize, place: usize| {
        let mut header = f.header.header().clone();
        let (wrap, keyring) = (&mut header.wraps[role], &mut header.keyring);
        let byte = match part {
            0 => wrap.salt.0.get_mut(place),
            1 => wrap.nonce.0.get_mut(place),
            2 => {
                let mut bytes = *wrap.commitment.as_bytes();
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1;
                }
                wrap.commitment = Digest::from_bytes(bytes);
                return (place < 32).then_some(header);
            }
            3 => wrap.ciphertext.0.get_mut(place),
            4 => keyring.nonce.0.get_mut(place),
            _ => keyring.ciphertext.0.get_mut(place),
        };
        *byte? ^= 1;
        Some(header)
    };
    let mut count = 0;
    for part in 0..6 {
        for header in (0..48).filter_map(|place| flipped(1, part, place)) {
            fails(&header, by_recovery);
            count += 1;
        }
        // Argon2id is run for each: one byte of every part.
        fails(&flipped(0, part, 7).unwrap(), by_passphrase);
    }
    assert_eq!(count, 16 + 24 + 32 + 48 + 24 + 48);
    let mut swapped = f.header.header().clone();
    let (one, other) = swapped.wraps.split_at_mut(1);
    std::mem::swap(&mut one[0].nonce, &mut other[0].nonce);
    std::mem::swap(&mut one[0].commitment, &mut other[0].commitment);
    std::mem::swap(&mut one[0].ciphertext, &mut other[0].ciphertext);
    std::mem::swap(&mut one[0].salt, &mut other[0].salt);
    fails(&swapped, by_recovery);
    fails(&swapped, by_passphrase);
    for role in 0..2 {
        let mut swapped = f.header.header().clone();
        let (wrap, keyring) = (&mut swapped.wraps[role], &mut swapped.keyring);
        std::mem::swap(&mut wrap.nonce, &mut keyring.nonce);
        std::mem::swap(&mut wrap.commitment, &mut keyring.commitment);
        std::mem::swap(&mut wrap.ciphertext, &mut keyring.ciphertext);
        fails(&swapped, by_recovery);
        fails(&swapped, by_passphrase);
    }
}

/// A fixture with a second device.
fn two() -> (Fixture, DeviceKeys, Vec<Pin>) {
    let mut f = fixture();
    let second = DeviceKeys::generate(&mut f.rng).unwrap();
    let keyring = keyring_id(f.account.identity());
    let pins = vec![Pin { vault: keyring, seq: lockstep_proto::Seq::new(0), head: Digest::ZERO }];
    let joining = join(&second, "phone", pins.clone());
    let enrolled = f.account.enrol(&f.header, &f.log, None, joining, &mut f.rng).unwrap();
    take(&mut f, &enrolled);
    (f, second, pins)
}

fn take(f: &mut Fixture, new: &Enrolment) {
    let header = VerifiedKeyHeader::verify(f.account.account(), &new.key_header).unwrap();
    f.log.append(&new.entry).unwrap();
    f.log.check_key_header(&header).unwrap();
    f.account.take_header(&header).unwrap();
    f.header = header;
}

#[test]
fn a_revocation_seals_a_new_key_to_who_stays() {
    let (mut f, second, pins) = two();
    let before = KeyringKeys::open_as_device(&f.header, &second).unwrap();
    let old = f.header.header().clone();
    let revoked = f.account.revoke(&f.header, &f.log, second.id(), pins.clone(), &mut f.rng).unwrap();
    take(&mut f, &revoked);
    let new = f.header.header();
    assert_eq!((new.keyring.epoch, new.keyring.links.len()), (Epoch::new(2), 1));
    assert_eq!((&new.wraps, new.recovery, new.identity), (&old.wraps, old.recovery, old.identity));
    assert!(KeyringKeys::open_as_device(&f.header, &second).is_err());
    let stays = KeyringKeys::open_as_device(&f.header, &f.device).unwrap();
    let key = |keys: &KeyringKeys, epoch| keys.key(Epoch::new(epoch)).map(|key| *key.expose());
    assert_eq!(stays.epoch(), Epoch::new(2));
    assert_eq!(key(&stays, 1), key(&before, 1), "the link opens the older epoch");
    assert_ne!(key(&stays, 2), key(&before, 1));
    assert_eq!(stays.vault_secret().expose(), before.vault_secret().expose());
    for credential in [Credential::Passphrase(&f.passphrase), Credential::Recovery(&f.recovery)] {
        let unlocked = UnlockedAccount::unlock(&f.header, credential).unwrap();
        assert_eq!(key(unlocked.keyring(), 2), key(&stays, 2));
        assert_eq!(key(unlocked.keyring(), 1), key(&stays, 1));
    }
    // Names from before the revocation open through the links.
    assert_eq!(stays.open_name(f.log.device(second.id()).unwrap()).unwrap(), "phone");
    // A third one who joins gets every epoch; nobody is revoked twice, and nobody is left alone without a device.
    let again = f.account.revoke(&f.header, &f.log, second.id(), pins.clone(), &mut f.rng);
    assert!(again.is_err());
    let third = DeviceKeys::generate(&mut f.rng).unwrap();
    let joining = join(&third, "tablet", pins.clone());
    let enrolled = f.account.enrol(&f.header, &f.log, None, joining, &mut f.rng).unwrap();
    take(&mut f, &enrolled);
    assert_eq!(key(&KeyringKeys::open_as_device(&f.header, &third).unwrap(), 1), key(&stays, 1));
    let revoked = f.account.revoke(&f.header, &f.log, f.device.id(), pins.clone(), &mut f.rng).unwrap();
    take(&mut f, &revoked);
    let last = KeyringKeys::open_as_device(&f.header, &third).unwrap();
    assert_eq!([1, 2, 3].map(|epoch| key(&last, epoch).is_some()), [true; 3]);
    let alone = f.account.revoke(&f.header, &f.log, third.id(), pins, &mut f.rng).unwrap();
    assert!(f.log.append(&alone.entry).is_err(), "the only one");
}

#[test]
fn a_damaged_link_opens_nothing_below_it() {
    let (mut f, second, pins) = two();
    let revoked = f.account.revoke(&f.header, &f.log, second.id(), pins, &mut f.rng).unwrap();
    take(&mut f, &revoked);
    let key = f.account.keyring().key(Epoch::new(2)).unwrap().duplicate();
    let mut fields = f.header.header().clone();
    KeyringKeys::open_links(&fields, key.duplicate()).unwrap();
    fields.keyring.links[0].ciphertext.0[3] ^= 1;
    assert!(KeyringKeys::open_links(&fields, key).is_err());
}

#[test]
fn new_credentials_change_only_what_they_say() {
    let (mut f, second, _) = two();
    let passphrase = Passphrase::new("a new passphrase entirely").unwrap();
    let recovery = RecoveryKey::generate(&mut f.rng);
    for (new_passphrase, new_recovery) in [(true, false), (false, true), (true, true), (false, false)] {
        let change = CredentialChange {
            passphrase: new_passphrase.then_some(&passphrase),
            recovery: new_recovery.then_some(&recovery),
        };
        let new = f.account.change_credentials(&f.header, &f.log, change, &mut f.rng).unwrap();
        let header = VerifiedKeyHeader::verify(f.account.account(), &new.key_header).unwrap();
        let mut log = f.log.clone();
        log.append(&new.entry).unwrap();
        log.check_key_header(&header).unwrap();
        let (old, new) = (f.header.header(), header.header());
        assert_eq!((&new.keyring, new.identity, new.counter), (&old.keyring, old.identity, old.counter + 1));
        assert_eq!(new.wraps[0] != old.wraps[0], new_passphrase);
        assert_eq!(new.wraps[1] != old.wraps[1], new_recovery);
        assert_eq!(new.recovery != old.recovery, new_recovery);
        let opens = |credential| UnlockedAccount::unlock(&header, credential).is_ok();
        assert_eq!(opens(Credential::Passphrase(&f.passphrase)), !new_passphrase);
        assert_eq!(opens(Credential::Passphrase(&passphrase)), new_passphrase);
        assert_eq!(opens(Credential::Recovery(&f.recovery)), !new_recovery);
        assert_eq!(opens(Credential::Recovery(&recovery)), new_recovery);
        KeyringKeys::open_as_device(&header, &second).unwrap();
    }
}

#[test]
fn what_is_sealed_is_bound_to_its_place() {
    let (account, device) = (AccountId::from_bytes([1; 16]), DeviceId::from_bytes([2; 16]));
    let (epoch, nonce) = (Epoch::new(3), ByteArray([4; 24]));
    let wrap = Wrap {
        role: ROLE_PASSPHRASE,
        profile: 1,
        salt: ByteArray([5; 16]),
        nonce,
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    };
    let expected = encode(&(VERSION, SUITE, account, wrap.role, wrap.profile, wrap.salt, nonce));
    assert_eq!(wrap_header(account, &wrap), expected);
    assert_eq!(keyring_header(account, epoch, nonce), encode(&(VERSION, SUITE, account, epoch, nonce)));
    let expected = encode(&(VERSION, SUITE, account, device, epoch, nonce));
    assert_eq!(name_header(account, device, epoch, nonce), expected);
}

#[test]
fn names_are_cut_at_a_character() {
    let mut f = fixture();
    for (name, kept) in [
        ("a".repeat(64), "a".repeat(64)),
        ("a".repeat(65), "a".repeat(64)),
        (format!("{}\u{e9}", "a".repeat(62)), format!("{}\u{e9}", "a".repeat(62))),
        (format!("{}\u{e9}", "a".repeat(63)), "a".repeat(63)),
        (format!("{}\u{1f600}", "a".repeat(61)), "a".repeat(61)),
    ] {
        let mut device = f.log.device(f.device.id()).unwrap().clone();
        device.name = f.account.seal_name(device.id, &name, &mut f.rng).unwrap();
        assert_eq!(f.account.keyring().open_name(&device).unwrap(), kept);
    }
}

#[test]
fn the_keys_of_an_archive_open_with_the_recovery_key_of_their_account() {
    let mut f = fixture();
    let bare = BareKeys::of(f.header.header()).unwrap();
    let unlocked = UnlockedAccount::unlock_bare(&bare, &f.recovery).unwrap();
    assert_eq!((unlocked.account(), unlocked.identity()), (f.account.account(), f.account.identity()));
    let keys = |keyring: &KeyringKeys| -> Vec<_> {
        keyring.keys().map(|(epoch, key)| (epoch, *key.expose())).collect()
    };
    assert_eq!(keys(unlocked.keyring()), keys(f.account.keyring()));
    assert_eq!(keys(&unlocked.into_keyring().duplicate()).len(), 1);
    let other = RecoveryKey::generate(&mut f.rng);
    let stranger = UnlockedAccount::create(&mut f.rng).unwrap();
    let foreign = Digest::from_bytes(stranger.identity().to_bytes());
    for (bare, key) in [
        (bare.clone(), &other),
        (BareKeys { account: stranger.account(), ..bare.clone() }, &f.recovery),
        (BareKeys { identity: foreign, ..bare.clone() }, &f.recovery),
        (BareKeys { account: stranger.account(), identity: foreign, ..bare }, &f.recovery),
    ] {
        let error = UnlockedAccount::unlock_bare(&bare, key).unwrap_err();
        assert!(matches!(error, CryptoError::Open(_)), "{error}");
    }
}
