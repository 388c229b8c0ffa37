//! A vault's keys: record ids, envelopes, birth (PROTOCOL.md sections 4 and 5).

use crate::content::Content;
use crate::device::DeviceKeys;
use crate::error::{CryptoError, OpenError};
use crate::kdf;
use crate::seal;
use crate::secret::{SHALLOW, SecretKey, random_bytes, wiped};
use lockstep_proto::cbor::{ByteArray, Wire, encode};
use lockstep_proto::commit::{Changes, Commit, KIND_GENESIS};
use lockstep_proto::envelope::{self, Envelope, EnvelopeHeader, KIND_TOMBSTONE, blob_list_digest};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, DeviceId, Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::sign::{PublicKey, Signed};
use lockstep_proto::state::StateDigest;
use lockstep_proto::vault_log::{KIND_CREATE, KIND_ROTATE, VaultLogEntry};
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{label, limits};
use rand::rand_core::CryptoRng;
use std::collections::BTreeMap;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

/// Keys of one vault: by epoch, and the secrets that survive epochs.
#[derive(Debug)]
pub struct VaultKeys {
    vault: VaultId,
    epochs: BTreeMap<Epoch, SecretKey>,
    record_id: SecretKey,
    content_hash: SecretKey,
    blob: SecretKey,
}

/// What [`VaultKeys::seal`] needs to know beside the content.
#[derive(Debug, Clone, Copy)]
pub struct SealAs {
    /// `KIND_DOCUMENT` or `KIND_TOMBSTONE`.
    pub kind: u8,
    /// The new revision.
    pub revision: Revision,
    /// Key epoch.
    pub epoch: Epoch,
}

/// What one nonce is derived from, beside the contents: 32 random bytes, for one envelope.
#[derive(Debug)]
pub struct Fresh([u8; 32]);

impl Fresh {
    /// Draws it.
    pub fn draw(rng: &mut dyn CryptoRng) -> Self {
        Self(random_bytes(rng))
    }
}

/// An opened envelope.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its header.
    pub header: EnvelopeHeader,
    /// Its content.
    pub content: Content,
}

impl VaultKeys {
    /// Keys of a vault from its secret; epochs are added with [`Self::add_epoch`].
    pub fn new(vault: VaultId, secret: &SecretKey) -> Self {
        Self {
            vault,
            epochs: BTreeMap::new(),
            record_id: kdf::derive_key(secret, label::RECORD_ID_KEY, &[vault]),
            content_hash: kdf::derive_key(secret, label::CONTENT_HASH_KEY, &[vault]),
            blob: kdf::derive_key(secret, label::BLOB_SECRET, &[vault]),
        }
    }

    /// Adds the key of an epoch.
    #[must_use]
    pub fn with_epoch(mut self, epoch: Epoch, key: SecretKey) -> Self {
        self.add_epoch(epoch, key);
        self
    }

    /// Adds the key of an epoch.
    pub fn add_epoch(&mut self, epoch: Epoch, key: SecretKey) {
        self.epochs.insert(epoch, key);
    }

    /// Vault.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The newest epoch whose key is here.
    pub fn newest_epoch(&self) -> Option<Epoch> {
        self.epochs.last_key_value().map(|(epoch, _)| *epoch)
    }

    /// Whether the key of an epoch is here.
    pub fn has_epoch(&self, epoch: Epoch) -> bool {
        self.epochs.contains_key(&epoch)
    }

    pub(crate) fn blob_secret(&self) -> &SecretKey {
        &self.blob
    }

    /// Id of a record: keyed hash of type and name.
    pub fn record_id(&self, record_type: &str, name: &[u8]) -> RecordId {
        let name = lockstep_proto::Bytes::from(name);
        let bytes = encode(&(label::RECORD_ID.as_str(), record_type, name));
        let hash = wiped::<SHALLOW, _>(|| blake3::keyed_hash(self.record_id.expose(), &bytes));
        RecordId::from_bytes(Digest::from_bytes(*hash.as_bytes()).truncate16())
    }

    /// Starts a keyed content hash.
    pub fn content_hasher(&self) -> ContentHasher {
        wiped::<SHALLOW, _>(|| ContentHasher(Box::new(blake3::Hasher::new_keyed(self.content_hash.expose()))))
    }

    /// Seals a content as the next version of its record.
    ///
    /// # Errors
    /// [`CryptoError::Misuse`] if the content is too large or the epoch's key is not here.
    pub fn seal(
        &self,
        seal_as: SealAs,
        content: &Content,
        device: &DeviceKeys,
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, CryptoError> {
        self.seal_with(seal_as, content, device, &Fresh::draw(rng))
    }

    /// The same with randomness that was drawn before: so that many are sealed at once, and yet the generator is asked
    /// in order.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub fn seal_with(
        &self,
        seal_as: SealAs,
        content: &Content,
        device: &DeviceKeys,
        fresh: &Fresh,
    ) -> Result<Vec<u8>, CryptoError> {
        content.check()?;
        let key = self
            .epochs
            .get(&seal_as.epoch)
            .ok_or(CryptoError::Misuse { what: "the key of this vault's epoch is not here" })?;
        let plaintext = content.to_plaintext();
        let mut header = EnvelopeHeader {
            version: VERSION,
            suite: SUITE,
            kind: seal_as.kind,
            vault: self.vault,
            record: self.record_id(&content.record_type, &content.name.0),
            revision: seal_as.revision,
            epoch: seal_as.epoch,
            device: device.id(),
            blobs: blob_list_digest(&content.blob_ids()),
            nonce: ByteArray([0; 24]),
        };
        header.nonce = nonce(device, &header, &plaintext, fresh);
        let header_bytes = header.encode();
        let (commitment, ciphertext) =
            seal::seal(key, label::ENVELOPE_HEADER, &header_bytes, &header.nonce.0, &plaintext);
        let envelope = Envelope { header: header_bytes.into(), commitment, ciphertext: ciphertext.into() };
        let bytes = envelope.encode();
        if bytes.len() > limits::ENVELOPE_BYTES_MAX {
            return Err(CryptoError::Misuse { what: "the record is larger than 1 MiB when sealed" });
        }
        Ok(bytes)
    }

    /// Opens an envelope and checks that its content belongs to its header.
    ///
    /// # Errors
    /// [`OpenError`], whatever the reason.
    pub fn open(&self, bytes: &[u8]) -> Result<Opened, OpenError> {
        let (envelope, header) = envelope::decode(bytes).map_err(|_| OpenError)?;
        if header.vault != self.vault {
            return Err(OpenError);
        }
        let key = self.epochs.get(&header.epoch).ok_or(OpenError)?;
        let plaintext = seal::open(
            key,
            label::ENVELOPE_HEADER,
            &envelope.header.0,
            &header.nonce.0,
            &envelope.commitment,
            &envelope.ciphertext.0,
        )?;
        let content = Content::from_plaintext(&plaintext)?;
        let is_bare = content.document.0.is_empty() && content.blobs.is_empty();
        if self.record_id(&content.record_type, &content.name.0) != header.record
            || blob_list_digest(&content.blob_ids()) != header.blobs
            || (header.kind == KIND_TOMBSTONE && !is_bare)
        {
            return Err(OpenError);
        }
        Ok(Opened { header, content })
    }
}

/// Derives an envelope's nonce so that a cloned random generator does not repeat it for other contents.
fn nonce(
    device: &DeviceKeys,
    header: &EnvelopeHeader,
    plaintext: &[u8],
    Fresh(fresh): &Fresh,
) -> ByteArray<24> {
    let fields = (
        header.version,
        header.suite,
        header.kind,
        header.vault,
        header.record,
        header.revision,
        header.epoch,
        header.device,
        header.blobs,
    );
    let prefix = encode(&(label::ENVELOPE_NONCE.as_str(), ByteArray(*fresh), fields));
    wiped::<SHALLOW, _>(|| {
        let mut hasher = blake3::Hasher::new_keyed(device.nonce_key().expose());
        hasher.update(&prefix).update(plaintext);
        let mut out = [0; 24];
        hasher.finalize_xof().fill(&mut out);
        ByteArray(out)
    })
}

/// Keyed BLAKE3 over contents. Holds the key; wiped on drop.
pub struct ContentHasher(Box<blake3::Hasher>);

impl Drop for ContentHasher {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for ContentHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ContentHasher([redacted])")
    }
}

impl ContentHasher {
    /// Takes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        wiped::<SHALLOW, _>(|| self.0.update(bytes));
    }

    /// Whether it has this content hash; in constant time, because a content hash tells of contents.
    pub(crate) fn is(&self, expected: &Digest) -> bool {
        self.finish().as_bytes().ct_eq(expected.as_bytes()).into()
    }

    /// The content hash.
    pub fn finish(&self) -> Digest {
        wiped::<SHALLOW, _>(|| Digest::from_bytes(*self.0.finalize().as_bytes()))
    }
}

/// A vault's signed birth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Vault-log entry 0.
    pub create: Signed,
    /// Genesis.
    pub genesis: Signed,
}

/// Who gives birth to a vault, and when.
#[derive(Debug, Clone, Copy)]
pub struct Parent<'a> {
    /// Owner.
    pub account: AccountId,
    /// Owner's identity.
    pub identity: &'a PublicKey,
    /// Last verified device-log entry.
    pub device_log_index: u64,
    /// Its hash.
    pub device_log_head: Digest,
    /// Claimed time.
    pub utc: u64,
}

/// Signs the birth of a vault.
pub fn give_birth(vault: VaultId, parent: &Parent<'_>, device: &DeviceKeys) -> Birth {
    let epoch = Epoch::new(1);
    let entry = VaultLogEntry {
        version: VERSION,
        suite: SUITE,
        vault,
        index: 0,
        previous: Digest::ZERO,
        kind: KIND_CREATE,
        account: parent.account,
        identity: Digest::from_bytes(parent.identity.to_bytes()),
        epoch,
        device: device.id(),
        device_log_index: parent.device_log_index,
        device_log_head: parent.device_log_head,
    };
    let create = device.sign(label::VAULT_LOG_ENTRY, entry.encode());
    let commit = Commit {
        version: VERSION,
        suite: SUITE,
        vault,
        seq: Seq::new(0),
        previous: Digest::ZERO,
        skip: Digest::ZERO,
        kind: KIND_GENESIS,
        epoch,
        device: device.id(),
        device_log_index: parent.device_log_index,
        device_log_head: parent.device_log_head,
        vault_log_index: 0,
        vault_log_head: create.digest(label::VAULT_LOG_ENTRY),
        utc: parent.utc,
        changes: Changes::digest_of(&Changes::default().encode()),
        state: StateDigest::default().checksum(),
    };
    let genesis = device.sign(label::COMMIT, commit.encode());
    Birth { create, genesis }
}

/// Where a vault's log stands, and who goes on.
#[derive(Debug, Clone, Copy)]
pub struct Rotating<'a> {
    /// Owner, its identity, and the last verified device-log entry.
    pub parent: &'a Parent<'a>,
    /// Index of the vault log's last entry.
    pub index: u64,
    /// Its hash.
    pub head: Digest,
    /// The new epoch.
    pub epoch: Epoch,
}

/// Signs the vault-log entry that begins a key epoch.
pub fn sign_rotation(vault: VaultId, rotating: &Rotating<'_>, device: &DeviceKeys) -> Signed {
    let parent = rotating.parent;
    let entry = VaultLogEntry {
        version: VERSION,
        suite: SUITE,
        vault,
        index: rotating.index.saturating_add(1),
        previous: rotating.head,
        kind: KIND_ROTATE,
        account: parent.account,
        identity: Digest::from_bytes(parent.identity.to_bytes()),
        epoch: rotating.epoch,
        device: device.id(),
        device_log_index: parent.device_log_index,
        device_log_head: parent.device_log_head,
    };
    device.sign(label::VAULT_LOG_ENTRY, entry.encode())
}

/// Device id for tests and messages.
pub fn author_of(envelope: &[u8]) -> Option<DeviceId> {
    envelope::decode(envelope).ok().map(|(_, header)| header.device)
}

#[cfg(test)]
mod tests {
    mod places;

    use super::*;
    use crate::content::Hlc;
    use lockstep_proto::envelope::KIND_DOCUMENT;
    use lockstep_proto::id::OperationId;
    use rand::SeedableRng;
    use rand::rngs::ChaCha20Rng;

    fn content(name: &[u8], document: Vec<u8>) -> Content {
        Content {
            record_type: "note".into(),
            name: name.into(),
            schema: 1,
            codec: 0,
            hlc: Hlc { utc_ms: 1, counter: 0 },
            operation: OperationId::from_bytes([1; 16]),
            base_revision: Revision::new(0),
            conflict_of: Vec::new().into(),
            document: document.into(),
            blobs: Vec::new(),
            manifest: (),
        }
    }

    fn keys(seed: u8) -> VaultKeys {
        VaultKeys::new(VaultId::from_bytes([seed; 16]), &SecretKey::from_bytes(&[seed; 32]))
            .with_epoch(Epoch::new(1), SecretKey::from_bytes(&[seed.wrapping_add(1); 32]))
    }

    const AS: SealAs = SealAs { kind: KIND_DOCUMENT, revision: Revision::new(1), epoch: Epoch::new(1) };

    #[test]
    fn envelopes_round_trip_in_buckets() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let vault = keys(1);
        let mut sizes = std::collections::BTreeSet::new();
        for length in 0..2000 {
            let content = content(b"a", vec![7; length]);
            let sealed = vault.seal(AS, &content, &device, &mut rng).unwrap();
            sizes.insert(sealed.len());
            if length % 97 == 0 {
                assert_eq!(vault.open(&sealed).unwrap().content, content);
            }
        }
        assert!(sizes.len() < 60, "2,000 lengths fall into {} sizes", sizes.len());
    }

    #[test]
    fn flipped_and_transplanted_envelopes_do_not_open() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let vault = keys(1);
        let sealed = vault.seal(AS, &content(b"a", b"x".to_vec()), &device, &mut rng).unwrap();
        for place in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[place] ^= 1 << bit;
                assert!(vault.open(&damaged).is_err(), "byte {place} bit {bit}");
            }
        }
        assert!(keys(2).open(&sealed).is_err());
        let other_vault_same_key =
            VaultKeys::new(VaultId::from_bytes([9; 16]), &SecretKey::from_bytes(&[1; 32]))
                .with_epoch(Epoch::new(1), SecretKey::from_bytes(&[2; 32]));
        assert!(other_vault_same_key.open(&sealed).is_err());
    }

    #[test]
    fn a_repeating_generator_does_not_repeat_nonces_for_other_contents() {
        let mut rng = ChaCha20Rng::from_seed([3; 32]);
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let vault = keys(1);
        let nonce_of = |document: &[u8]| {
            let mut cloned = ChaCha20Rng::from_seed([5; 32]);
            let sealed = vault.seal(AS, &content(b"a", document.to_vec()), &device, &mut cloned).unwrap();
            envelope::decode(&sealed).unwrap().1.nonce
        };
        assert_eq!(nonce_of(b"one"), nonce_of(b"one"));
        assert_ne!(nonce_of(b"one"), nonce_of(b"two"));
    }

    #[test]
    fn record_ids_depend_on_vault_type_and_name() {
        let vault = keys(1);
        let id = vault.record_id("note", b"a");
        assert_eq!(id, vault.record_id("note", b"a"));
        assert_ne!(id, vault.record_id("note", b"b"));
        assert_ne!(id, vault.record_id("file", b"a"));
        assert_ne!(id, keys(2).record_id("note", b"a"));
    }
}
