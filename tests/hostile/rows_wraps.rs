//! Row 1: wrapped keys of the key header, changed bit by bit and exchanged, against the real client; and, because that takes
//! a program's run for each, every single bit against the code by which the client opens them.

use crate::scene::{
    Refusal, login_as, refuses, refuses_login, refuses_recovery, served, served_header, world_behind,
};
use crate::world::{Device, PASSPHRASE, World};
use ed25519_dalek::{Signer as _, SigningKey};
use lockstep_client_crypto::account::{Credential, KeyringKeys, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::{CryptoError, kdf, seal};
use lockstep_proto::Signed;
use lockstep_proto::cbor::{ByteArray, Wire as _, encode};
use lockstep_proto::id::AccountId;
use lockstep_proto::key_header::{KeyHeader, VerifiedKeyHeader, Wrap, WrapHeader};
use lockstep_proto::label;
use lockstep_proto::sign::signing_input;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_tests::hostile::scenario::keys::{exchanged, pairs, wrapped_places};
use lockstep_tests::hostile::scenario::{At, rules};
use std::collections::BTreeSet;
use std::ops::Range;

const NOT_VALID: &[&str] = &["not valid"];

/// The same refusal again and again.
fn assert_alike(refusals: &[Refusal]) {
    let first = &refusals[0];
    assert!(!first.trace.is_empty() && !first.err.is_empty());
    for (number, other) in refusals.iter().enumerate() {
        assert_eq!(first, other, "number {number}");
    }
}

/// Each byte of each wrapped key: one error and one trace. The root's wraps are never tried: the signature over them is
/// looked at first. Bytes of the devices' seals and those for who signs in are a sample; all are in the test below.
#[test]
fn row_01_wrapped_keys_flipped() {
    let (world, hostile) = world_behind();
    world.signup("a");
    login_as(&world, "b");
    let header = served_header(&hostile);
    let places = wrapped_places(&header);
    let decoded = KeyHeader::decode(&header).unwrap();
    let of_seals = decoded.keyring.seals.len() * (1120 + 48);
    assert!(of_seals > 0 && places.len() > of_seals + 300);
    let bytes = (0..places.len() - of_seals).chain((places.len() - of_seals..places.len()).step_by(97));
    let refusals: Vec<Refusal> = bytes
        .map(|at| {
            refuses_recovery(&world, &hostile, rules("wrap-flipped", &At::number(at as u64)), NOT_VALID)
        })
        .collect();
    assert!(refusals.len() > 340);
    assert_alike(&refusals);
    assert!(refusals[0].trace.last().unwrap().starts_with("GET /v1/account/devices"), "{:?}", refusals[0]);
    let refusals: Vec<Refusal> = (0..places.len() - of_seals)
        .step_by(31)
        .map(|at| refuses_login(&world, &hostile, rules("wrap-flipped", &At::number(at as u64)), NOT_VALID))
        .collect();
    assert_alike(&refusals);
}

#[test]
fn row_01_wrapped_keys_swapped() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    login_as(&world, "b");
    a.ok(&["status"]);
    let pairs = pairs(&served_header(&hostile));
    assert_eq!(pairs, 5 * 4 / 2 + 3 + 1, "two wraps, the keyring's key, two seals; whole ones of one kind");
    let of = |at: u64| rules("wrap-swapped", &At::number(at));
    assert_alike(
        &(0..pairs).map(|at| refuses_recovery(&world, &hostile, of(at), NOT_VALID)).collect::<Vec<_>>(),
    );
    assert_alike(
        &(0..pairs).map(|at| refuses_login(&world, &hostile, of(at), NOT_VALID)).collect::<Vec<_>>(),
    );
    let devices: Vec<_> =
        (0..pairs).map(|at| refuses(&hostile, &a, of(at), &["status"], (6, NOT_VALID)).trace).collect();
    assert!(devices.iter().all(|trace| *trace == devices[0]));
    a.ok(&["status"]);
}

/// Who opens a key header with what, and the identity, with which a test signs headers that no honest client would make.
struct Holders {
    account: AccountId,
    identity: SigningKey,
    passphrase: Passphrase,
    recovery: RecoveryKey,
    devices: [DeviceKeys; 2],
}

fn associated(account: AccountId, wrap: &Wrap) -> Vec<u8> {
    let Wrap { role, profile, salt, nonce, .. } = *wrap;
    encode(&WrapHeader { version: VERSION, suite: SUITE, account, role, profile, salt, nonce })
}

fn open_wrap(kek: &SecretKey, account: AccountId, wrap: &Wrap) -> Result<SecretKey, String> {
    let bound = associated(account, wrap);
    seal::open(kek, label::ROOT_WRAP, &bound, &wrap.nonce.0, &wrap.commitment, &wrap.ciphertext.0)
        .map(|root| SecretKey::from_slice(&root).unwrap())
        .map_err(|error| error.to_string())
}

impl Holders {
    fn new(world: &World, header: &KeyHeader, devices: [&Device; 2]) -> Self {
        let kit = std::fs::read_to_string(world.path("kit")).unwrap();
        let text = kit.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap();
        let recovery = RecoveryKey::parse(text).unwrap();
        let passphrase = Passphrase::new(PASSPHRASE).unwrap();
        let (account, wrap) = (header.account, &header.wraps[0]);
        let kek = passphrase.derive_kek(account, wrap.profile, &wrap.salt).unwrap();
        let root = open_wrap(&kek, account, wrap).unwrap();
        let identity =
            SigningKey::from_bytes(kdf::derive_key(&root, label::IDENTITY_KEY, kdf::NONE).expose());
        let devices = devices.map(|device| {
            DeviceKeys::from_bytes(&std::fs::read(device.home.join("device")).unwrap()).unwrap()
        });
        Self { account, identity, passphrase, recovery, devices }
    }

    /// A header that passes the check of its signature.
    fn signed(&self, header: &KeyHeader) -> VerifiedKeyHeader {
        let bytes = header.encode();
        let signature = self.identity.sign(&signing_input(label::KEY_HEADER, &bytes));
        let signed = Signed { bytes: bytes.into(), signature: ByteArray(signature.to_bytes()) };
        VerifiedKeyHeader::verify(self.account, &signed).unwrap()
    }

    /// The keyring's keys, or the text of the error, which is of one kind.
    fn open(&self, header: &VerifiedKeyHeader, who: Who) -> Result<Vec<[u8; 32]>, String> {
        let of_account = |credential| {
            UnlockedAccount::unlock(header, credential).map(UnlockedAccount::into_keyring).map_err(|error| {
                assert!(matches!(error, CryptoError::Open(_)), "{error}");
                error.to_string()
            })
        };
        let keyring = match who {
            Who::Passphrase => of_account(Credential::Passphrase(&self.passphrase)),
            Who::Recovery => of_account(Credential::Recovery(&self.recovery)),
            Who::Device(at) => {
                KeyringKeys::open_as_device(header, &self.devices[at]).map_err(|error| error.to_string())
            }
        };
        keyring.map(|keyring| keyring.keys().map(|(_, key)| *key.expose()).collect())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Passphrase,
    Recovery,
    Device(usize),
}

/// Parts of a header's encoding that a holder opens it with, by their numbers in [`parts`].
fn reads(header: &KeyHeader, devices: &[DeviceKeys; 2], who: Who) -> Vec<usize> {
    let links = header.keyring.links.len();
    let of_root = match who {
        Who::Passphrase => vec![0, 2],
        Who::Recovery => vec![1, 2],
        Who::Device(at) => {
            let seal = header.keyring.seals.iter().position(|seal| seal.device == devices[at].id()).unwrap();
            vec![3 + links + seal]
        }
    };
    of_root.into_iter().chain(3..3 + links).collect()
}

/// How many of [`wrapped_places`] each wrapped key has: the root's wraps, the keyring's, its links, the devices' seals.
fn parts(header: &KeyHeader) -> Vec<Range<usize>> {
    let keyring = &header.keyring;
    let sizes = [16 + 24 + 32 + 48; 2].into_iter();
    let sizes = sizes.chain(std::iter::repeat_n(24 + 32 + 48, 1 + keyring.links.len()));
    let mut end = 0;
    sizes
        .chain(std::iter::repeat_n(1120 + 48, keyring.seals.len()))
        .map(|size| {
            end += size;
            end - size..end
        })
        .collect()
}

/// An account with two devices and a third one that was revoked, so that there is a link to an older key.
fn holders() -> (Holders, Signed) {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    let (b, _) = (login_as(&world, "b"), login_as(&world, "c"));
    a.ok(&["device", "revoke", "c", "--passphrase-file", &world.text("passphrase")]);
    a.ok(&["status"]);
    let signed = served(&hostile);
    let header = KeyHeader::decode(&signed.bytes.0).unwrap();
    assert_eq!((header.keyring.links.len(), header.keyring.seals.len()), (1, 2));
    (Holders::new(&world, &header, [&a, &b]), signed)
}

/// Each single bit of each wrapped key, as the server can change it: the header is refused before anything is opened, with
/// one error.
#[test]
fn row_01_every_bit_of_every_wrapped_key_is_refused_at_the_signature() {
    let (holders, signed) = holders();
    let places = wrapped_places(&signed.bytes.0);
    assert_eq!(places.len(), parts(&KeyHeader::decode(&signed.bytes.0).unwrap()).last().unwrap().end);
    VerifiedKeyHeader::verify(holders.account, &signed).unwrap();
    let mut errors = BTreeSet::new();
    for place in places {
        for bit in 0..8 {
            let mut changed = signed.clone();
            changed.bytes.0[place] ^= 1 << bit;
            errors.insert(VerifiedKeyHeader::verify(holders.account, &changed).unwrap_err().to_string());
        }
    }
    assert_eq!(errors.len(), 1, "{errors:?}");
}

/// Below the signature: each single bit of each wrapped key that a holder opens is one and the same error to him, whatever it
/// was, and what he does not open changes nothing. (With the passphrase each byte of its wrap, because Argon2id is run for
/// each; the bits under the key that it gives. A second device: each byte.)
#[test]
fn row_01_every_bit_of_every_wrapped_key_is_one_error_below_the_signature() {
    let (holders, signed) = holders();
    let honest = VerifiedKeyHeader::verify(holders.account, &signed).unwrap();
    let header = honest.header();
    let (places, parts) = (wrapped_places(&signed.bytes.0), parts(header));
    let flipped = |at: usize, bit: u32| {
        let mut bytes = signed.bytes.0.clone();
        bytes[places[at]] ^= 1 << bit;
        holders.signed(&KeyHeader::decode(&bytes).unwrap())
    };
    let mut errors = BTreeSet::new();
    for who in [Who::Recovery, Who::Device(0), Who::Device(1), Who::Passphrase] {
        let keys = holders.open(&honest, who).unwrap();
        assert_eq!(keys.len(), 2, "the key of now, and by the link the one before");
        let own = reads(header, &holders.devices, who);
        for (part, places) in parts.iter().enumerate() {
            if !own.contains(&part) {
                // What he does not read: a bit of it is enough.
                assert_eq!(holders.open(&flipped(places.start, 0), who), Ok(keys.clone()), "{who:?} {part}");
                continue;
            }
            let (step, bits) = match (who, part) {
                (Who::Recovery | Who::Device(0), _) => (1, 0..8),
                (Who::Device(_), _) | (Who::Passphrase, 0) => (1, 0..1),
                // What the root opens is read by the recovery key in the same way.
                (Who::Passphrase, _) => (8, 0..1),
            };
            for at in places.clone().step_by(step) {
                for bit in bits.clone() {
                    let refused = holders.open(&flipped(at, bit), who);
                    errors.insert(refused.expect_err(&format!("{who:?}: bit {bit} of byte {at}")));
                }
            }
        }
    }
    let wrap = &header.wraps[0];
    let kek = holders.passphrase.derive_kek(holders.account, wrap.profile, &wrap.salt).unwrap();
    open_wrap(&kek, holders.account, wrap).unwrap();
    for at in parts[0].clone().skip(16) {
        for bit in 0..8 {
            let changed = flipped(at, bit);
            errors.insert(open_wrap(&kek, holders.account, &changed.header().wraps[0]).unwrap_err());
        }
    }
    assert_eq!(errors.into_iter().collect::<Vec<_>>(), ["it does not open with this key"]);
}

/// Below the signature: any two wrapped keys swapped, alone or with nonce and commitment. Whoever opens one of them gets that
/// one error, and everybody else what he had.
#[test]
fn row_01_any_two_wrapped_keys_swapped_are_one_error_below_the_signature() {
    let (holders, signed) = holders();
    let honest = VerifiedKeyHeader::verify(holders.account, &signed).unwrap();
    let header = honest.header();
    let count = pairs(&signed.bytes.0);
    assert_eq!(count, 6 * 5 / 2 + 4 * 3 / 2 + 1);
    let mut refused = 0;
    for at in 0..count {
        let mut swapped = header.clone();
        let (left, right) = exchanged(&mut swapped, at);
        let changed = holders.signed(&swapped);
        for who in [Who::Recovery, Who::Device(0), Who::Device(1), Who::Passphrase] {
            let own = reads(header, &holders.devices, who);
            let opened = holders.open(&changed, who);
            if own.contains(&left) || own.contains(&right) {
                let error = opened.expect_err(&format!("{who:?}: {left} and {right}"));
                assert_eq!(error, "it does not open with this key");
                refused += 1;
            } else {
                assert_eq!(opened, holders.open(&honest, who), "{who:?}: {left} and {right}");
            }
        }
    }
    assert!(refused > 2 * count, "{refused}");
}
