//! Accounts, devices and births of vaults without a passphrase: enough for a store, which verifies no
//! header, and cheap, because nothing is stretched.

use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::vault::{Parent, give_birth};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::chain::{Authors, verify_birth};
use lockstep_proto::id::{AccountId, DeviceId, Epoch, Seq, VaultId};
use lockstep_proto::key_header::{
    DeviceSeal, KeyHeader, Keyring, ROLE_PASSPHRASE, ROLE_RECOVERY, Wrap, account_id,
};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, Signed, label};
use lockstep_server::store::{EntryEffect, NewAccount, NewEntry, NewSignIn, NewVault, SignInChange};
use rand::SeedableRng;
use rand::rand_core::Rng as _;
use rand::rngs::ChaCha20Rng;

/// A generator of its own for each purpose.
pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

pub(crate) fn bytes_of(rng: &mut ChaCha20Rng, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    rng.fill_bytes(&mut bytes);
    bytes
}

pub(crate) fn id16(rng: &mut ChaCha20Rng) -> [u8; 16] {
    let mut bytes = [0; 16];
    rng.fill_bytes(&mut bytes);
    bytes
}

pub(crate) fn digest(rng: &mut ChaCha20Rng) -> Digest {
    let mut bytes = [0; 32];
    rng.fill_bytes(&mut bytes);
    Digest::from_bytes(bytes)
}

/// A device and the place of the log that it last saw.
pub(crate) struct Author {
    pub(crate) keys: DeviceKeys,
    pub(crate) log_index: u64,
    pub(crate) log_head: Digest,
}

impl Author {
    pub(crate) fn new(seed: u64) -> Self {
        let keys = DeviceKeys::generate(&mut rng(seed)).unwrap();
        Self { keys, log_index: 0, log_head: Digest::ZERO }
    }
}

/// An account with one device.
pub(crate) struct World {
    pub(crate) account: AccountId,
    pub(crate) identity: PublicKey,
    pub(crate) author: Author,
    pub(crate) seed: u64,
}

struct OneDevice<'a>(&'a Author);

impl Authors for OneDevice<'_> {
    fn entry_hash(&self, index: u64) -> Option<Digest> {
        (index == self.0.log_index).then_some(self.0.log_head)
    }

    fn author_key(&self, _: DeviceId, _: u64) -> Option<PublicKey> {
        PublicKey::from_bytes(self.0.keys.sign_public().as_bytes())
    }

    fn counts(&self, _: DeviceId, _: VaultId, _: Seq) -> bool {
        true
    }

    fn last_revocation(&self, _: u64) -> Option<u64> {
        None
    }

    fn keyring_epoch(&self, _: u64) -> Epoch {
        Epoch::new(1)
    }
}

impl World {
    /// The store takes any key for an identity; this one is the first device's.
    pub(crate) fn new(seed: u64) -> Self {
        let mut author = Author::new(seed);
        let identity = PublicKey::from_bytes(author.keys.sign_public().as_bytes()).unwrap();
        let account = account_id(&identity.to_bytes());
        author.log_head = fake_entry(&identity, &author, 0, Digest::ZERO).hash;
        Self { account, identity, author, seed }
    }

    pub(crate) fn entry(&self) -> NewEntry {
        fake_entry(&self.identity, &self.author, 0, Digest::ZERO)
    }

    /// A further device and the entry that enrols it after the first.
    pub(crate) fn second(&self, seed: u64) -> (Author, NewEntry) {
        let mut author = Author::new(seed);
        let entry = fake_entry(&self.identity, &author, 1, self.author.log_head);
        author.log_index = 1;
        author.log_head = entry.hash;
        (author, entry)
    }

    pub(crate) fn birth(&self, vault: VaultId, utc: u64) -> NewVault {
        let parent = Parent {
            account: self.account,
            identity: &self.identity,
            device_log_index: self.author.log_index,
            device_log_head: self.author.log_head,
            utc,
        };
        let birth = give_birth(vault, &parent, &self.author.keys);
        let known = OneDevice(&self.author);
        let verified =
            verify_birth(vault, self.account, &self.identity, &known, &birth.create, &birth.genesis).unwrap();
        NewVault { tip: verified.tip(), create: birth.create, genesis: birth.genesis }
    }

    pub(crate) fn keyring(&self) -> VaultId {
        keyring_vault_id(&self.identity.to_bytes())
    }

    pub(crate) fn registration(&self, name: &str) -> NewAccount {
        NewAccount {
            name: name.to_owned(),
            sign_in: sign_in(self.seed),
            entry: self.entry(),
            keyring: self.birth(self.keyring(), 1),
            invite: None,
            now_utc: 1000,
        }
    }
}

pub(crate) fn sign_in(seed: u64) -> NewSignIn {
    let mut rng = rng(seed ^ 0x5151);
    NewSignIn {
        credential: bytes_of(&mut rng, 16),
        opaque_record: bytes_of(&mut rng, 192),
        recovery: digest(&mut rng),
    }
}

/// The same as a change of an account that is there.
pub(crate) fn renewed(seed: u64) -> SignInChange {
    let NewSignIn { credential, opaque_record, recovery } = sign_in(seed);
    SignInChange { passphrase: Some((credential, opaque_record)), recovery: Some(recovery) }
}

fn fake_entry(identity: &PublicKey, author: &Author, index: u64, previous: Digest) -> NewEntry {
    let effect = EntryEffect::Enrol { device: author.keys.id(), sign_key: author.keys.sign_public() };
    entry_of(identity, &format!("enrol {}", author.keys.id()), index, previous, effect)
}

/// An entry that nobody signed, with a key header that decodes.
pub(crate) fn entry_of(
    identity: &PublicKey,
    text: &str,
    index: u64,
    previous: Digest,
    effect: EntryEffect,
) -> NewEntry {
    let signed = |bytes: Vec<u8>| Signed { bytes: bytes.into(), signature: ByteArray([7; 64]) };
    let entry = signed(format!("entry {index}: {text}").into_bytes());
    NewEntry {
        account: account_id(&identity.to_bytes()),
        index,
        previous,
        hash: entry.digest(label::DEVICE_LOG_ENTRY),
        entry,
        key_header: signed(key_header(identity, text, index).encode()),
        effect,
    }
}

/// A store reads nothing but the identity in it.
fn key_header(identity: &PublicKey, text: &str, index: u64) -> KeyHeader {
    let wrap = |role, profile| Wrap {
        role,
        profile,
        salt: ByteArray([0; 16]),
        nonce: ByteArray([0; 24]),
        commitment: Digest::ZERO,
        ciphertext: ByteArray([0; 48]),
    };
    KeyHeader {
        version: VERSION,
        suite: SUITE,
        account: account_id(&identity.to_bytes()),
        counter: index + 1,
        identity: Digest::from_bytes(identity.to_bytes()),
        recovery: Digest::of(label::KEY_HEADER, text.as_bytes()),
        wraps: vec![wrap(ROLE_PASSPHRASE, 1), wrap(ROLE_RECOVERY, 0)],
        keyring: Keyring {
            epoch: Epoch::new(1),
            nonce: ByteArray([0; 24]),
            commitment: Digest::ZERO,
            ciphertext: ByteArray([0; 48]),
            links: Vec::new(),
            seals: vec![DeviceSeal {
                device: DeviceId::ZERO,
                encapsulated: ByteArray([0; 1120]),
                ciphertext: ByteArray([0; 48]),
            }],
        },
    }
}
