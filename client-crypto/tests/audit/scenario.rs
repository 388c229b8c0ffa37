//! A life of every secret of `client-crypto` in a few steps, with secrets that can be worked out again: the generator is
//! a counter, so that who knows the steps knows every secret and who only has the outputs does not need them.

use lockstep_client_crypto::account::{Credential, Joining, KeyringKeys, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::blob::{ObjectOpener, ObjectSealer, new_reference};
use lockstep_client_crypto::content::{BlobRef, Content, Hlc};
use lockstep_client_crypto::device::{DeviceKeys, sign_recovery_statement};
use lockstep_client_crypto::kdf;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_client_crypto::opaque::{Login, Registration};
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{SealAs, VaultKeys};
use lockstep_proto::api::auth::Statement;
use lockstep_proto::cbor::{ByteArray, Wire as _, encode};
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::envelope::KIND_DOCUMENT;
use lockstep_proto::id::{AccountId, DeviceId, Epoch, OperationId, Revision, Seq, VaultId};
use lockstep_proto::key_header::{KeyHeader, VerifiedKeyHeader, Wrap, WrapHeader};
use lockstep_proto::label::{self, Label};
use lockstep_proto::sign::Signed;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{Digest, recovery};
use opaque_ke::{RegistrationRequest, RegistrationUpload, ServerRegistration, ServerSetup};
use rand::rand_core::{TryCryptoRng, TryRng};
use std::convert::Infallible;

/// The passphrase, as typed and as normalised.
pub(crate) const PASSPHRASE: &str = "marmalade-canyon-fugue 4711";
const VAULT: VaultId = VaultId::from_bytes([0x77; 16]);
const ORIGIN: &str = "http://localhost";

/// Bytes of a counter through a mixing function, written where they are wanted and nowhere else: a real generator may
/// keep what it gave out in a buffer of its own.
pub(crate) struct Counter(u64);

impl Counter {
    /// Streams of different numbers have nothing in common.
    pub(crate) fn new(number: u64) -> Self {
        Self(number << 40)
    }

    fn next(&mut self) -> u8 {
        self.0 += 1;
        let mut mixed = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed >> 56) as u8
    }
}

impl TryRng for Counter {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(std::array::from_fn(|_| self.next())))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for place in out {
            *place = self.next();
        }
        Ok(())
    }
}

impl TryCryptoRng for Counter {}

/// What the steps gave out to the world; nothing of it is secret.
pub(crate) struct Outputs {
    pub(crate) header: Signed,
    pub(crate) envelope: Vec<u8>,
    pub(crate) reference: BlobRef,
}

fn content(document: &[u8]) -> Content {
    Content {
        record_type: "note".into(),
        name: b"a".as_slice().into(),
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

fn statement(account: AccountId) -> Statement {
    Statement {
        account,
        device: DeviceId::ZERO,
        purpose: 1,
        server_nonce: Digest::ZERO,
        client_nonce: Digest::ZERO,
        signature: ByteArray([0; 64]),
    }
}

/// How many steps [`live`] has.
pub(crate) const STEPS: usize = 15;

/// Signs up, signs in, unlocks in both ways, seals, opens, revokes, as far as step `last`: what a later step does to the
/// stack hides what an earlier one left there. Every owner of a secret is dropped at the end.
#[inline(never)]
pub(crate) fn live(last: usize) -> Option<Outputs> {
    let mut steps = 1..=last;
    let passphrase = Passphrase::new(PASSPHRASE).unwrap();
    steps.next()?;
    let account = UnlockedAccount::create(&mut Counter::new(1)).unwrap();
    steps.next()?;
    let device = DeviceKeys::generate(&mut Counter::new(2)).unwrap();
    steps.next()?;
    let recovery = RecoveryKey::generate(&mut Counter::new(3));
    let second = DeviceKeys::generate(&mut Counter::new(4)).unwrap();
    let mut rng = Counter::new(5);
    let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let joining = Joining { device: &device, name: "laptop", pins: Vec::new() };
    let first = account.first_enrolment(credentials, joining, &mut rng).unwrap();
    steps.next()?;
    let header = VerifiedKeyHeader::verify(account.account(), &first.key_header).unwrap();
    let mut log = DeviceLog::new(*header.identity());
    log.append(&first.entry).unwrap();
    let outputs = first.key_header.clone();
    drop(account);

    // The device file, the recovery key's text, and back.
    let device = DeviceKeys::from_bytes(&device.to_bytes()).unwrap();
    steps.next()?;
    let recovery = RecoveryKey::parse(&recovery.to_text()).unwrap();
    steps.next()?;

    // Both credentials; a second device joins, the first one leaves.
    drop(UnlockedAccount::unlock(&header, Credential::Recovery(&recovery)).unwrap());
    steps.next()?;
    let account = UnlockedAccount::unlock(&header, Credential::Passphrase(&passphrase)).unwrap();
    steps.next()?;
    let keyring = keyring_vault_id(&account.identity().to_bytes());
    let pins = vec![Pin { vault: keyring, seq: Seq::new(0), head: Digest::ZERO }];
    let joining = Joining { device: &second, name: "phone", pins: pins.clone() };
    let joined = account.enrol(&header, &log, None, joining, &mut rng).unwrap();
    let header = VerifiedKeyHeader::verify(account.account(), &joined.key_header).unwrap();
    log.append(&joined.entry).unwrap();
    let left = account.revoke(&header, &log, device.id(), pins, &mut Counter::new(6)).unwrap();
    steps.next()?;
    let header = VerifiedKeyHeader::verify(account.account(), &left.key_header).unwrap();
    drop(KeyringKeys::open_as_device(&header, &second).unwrap());
    let id = account.account();
    drop(account);
    steps.next()?;

    sign_in(&passphrase, id, &mut rng);
    steps.next()?;
    let _ = device.sign_statement(ORIGIN, statement(id));
    steps.next()?;
    let _ = sign_recovery_statement(&recovery, ORIGIN, statement(id));
    steps.next()?;
    let (envelope, reference) = write(&device, &mut rng);
    steps.next()?;
    let local = LocalKeys::new(device.index_key());
    let row = local.seal_row(b"place", b"row", &mut rng);
    local.open_row(b"place", &row).unwrap();
    let _ = local.tag("kind", b"value");
    steps.next()?;
    Some(Outputs { header: outputs, envelope, reference })
}

/// All steps.
pub(crate) fn whole() -> Outputs {
    assert!(live(STEPS - 1).is_none(), "every step counts");
    live(STEPS).unwrap()
}

/// The server's half of OPAQUE.
struct Server;

impl opaque_ke::CipherSuite for Server {
    type OprfCs = opaque_ke::Ristretto255;
    type KeyExchange = opaque_ke::TripleDh<opaque_ke::Ristretto255, sha2_010::Sha512>;
    type Ksf = opaque_ke::ksf::Identity;
}

/// The counter behind the older traits.
struct Older(Counter);

impl opaque_ke::rand::RngCore for Older {
    fn next_u32(&mut self) -> u32 {
        u32::from(self.0.next())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from(self.0.next())
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        for place in out {
            *place = self.0.next();
        }
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        self.fill_bytes(out);
        Ok(())
    }
}

impl opaque_ke::rand::CryptoRng for Older {}

/// Registers, and signs in whole: both run the key stretching over what the passphrase gives.
fn sign_in(passphrase: &Passphrase, account: AccountId, rng: &mut Counter) {
    let mut own = Older(Counter::new(8));
    let setup = ServerSetup::<Server>::new(&mut own);
    let (registration, request) = Registration::start(passphrase, rng).unwrap();
    let request = RegistrationRequest::<Server>::deserialize(&request).unwrap();
    let answer = ServerRegistration::start(&setup, request, b"credential").unwrap().message.serialize();
    let record = registration.finish(passphrase, account, &answer, rng).unwrap();
    let record = ServerRegistration::finish(RegistrationUpload::<Server>::deserialize(&record).unwrap());
    let (login, ke1) = Login::start(passphrase, rng).unwrap();
    let context = encode(&(label::OPAQUE.as_str(), ORIGIN));
    let identifiers = opaque_ke::Identifiers { client: Some(account.as_bytes()), server: None };
    let parameters = opaque_ke::ServerLoginParameters { context: Some(&context), identifiers };
    let ke1 = opaque_ke::CredentialRequest::deserialize(&ke1).unwrap();
    let begun = opaque_ke::ServerLogin::start(&mut own, &setup, Some(record), ke1, b"credential", parameters)
        .unwrap();
    login.finish(passphrase, account, ORIGIN, &begun.message.serialize(), rng).unwrap();
}

fn write(device: &DeviceKeys, rng: &mut Counter) -> (Vec<u8>, BlobRef) {
    let mut secrets = Counter::new(7);
    let secret = SecretKey::generate(&mut secrets);
    let keys = VaultKeys::new(VAULT, &secret).with_epoch(Epoch::new(1), SecretKey::generate(&mut secrets));
    drop(secret);
    let seal_as = SealAs { kind: KIND_DOCUMENT, revision: Revision::new(1), epoch: Epoch::new(1) };
    let envelope = keys.seal(seal_as, &content(b"a document"), device, rng).unwrap();
    keys.open(&envelope).unwrap();
    let mut hasher = keys.content_hasher();
    hasher.update(b"contents");
    let reference = new_reference(8, hasher.finish(), rng);
    let (mut sealer, mut object) = ObjectSealer::new(&keys, &reference).unwrap();
    sealer.push(b"contents", &mut object).unwrap();
    sealer.finish(&mut object).unwrap();
    let mut opener = ObjectOpener::new(&keys, &reference).unwrap();
    let mut out = Vec::new();
    opener.push(&object, &mut out).unwrap();
    opener.finish().unwrap();
    (envelope, reference)
}

fn drawn<const N: usize>(rng: &mut Counter) -> Vec<u8> {
    (0..N).map(|_| rng.next()).collect()
}

fn key(bytes: &[u8]) -> SecretKey {
    SecretKey::from_slice(bytes).unwrap()
}

fn aead(key: &SecretKey, label: Label, header: &[u8]) -> Vec<u8> {
    kdf::expand::<32>(key, &encode(&(label.as_str(), Digest::of(label, header)))).to_vec()
}

fn wrap_header(account: AccountId, wrap: &Wrap) -> Vec<u8> {
    encode(&WrapHeader {
        version: VERSION,
        suite: SUITE,
        account,
        role: wrap.role,
        profile: wrap.profile,
        salt: wrap.salt,
        nonce: wrap.nonce,
    })
}

/// Every secret that [`live`] had in its hands, by name.
pub(crate) fn secrets(outputs: &Outputs) -> Vec<(&'static str, Vec<u8>)> {
    let mut all = vec![("passphrase", PASSPHRASE.as_bytes().to_vec())];
    let header = KeyHeader::decode(&outputs.header.bytes.0).unwrap();
    let mut rng = Counter::new(1);
    let root = drawn::<32>(&mut rng);
    let keyring = drawn::<32>(&mut rng);
    account_secrets(&header, &root, &keyring, &mut all);
    device_secrets(&mut all);
    recovery_secrets(&header, &mut all);
    let kek =
        Passphrase::new(PASSPHRASE).unwrap().derive_kek(header.account, 1, &header.wraps[0].salt).unwrap();
    all.push(("passphrase KEK", kek.expose().to_vec()));
    let associated = wrap_header(header.account, &header.wraps[0]);
    all.push(("AEAD key of the passphrase wrap", aead(&kek, label::ROOT_WRAP, &associated)));
    vault_secrets(outputs, &mut all);
    all
}

fn account_secrets(header: &KeyHeader, root: &[u8], keyring: &[u8], all: &mut Vec<(&'static str, Vec<u8>)>) {
    let seed = kdf::derive::<32, u8>(&key(root), label::IDENTITY_KEY, kdf::NONE).to_vec();
    all.push(("identity, expanded", expanded_ed25519(&seed)));
    all.push(("identity seed", seed));
    let derived = |from: &[u8], label| kdf::derive_key(&key(from), label, kdf::NONE).expose().to_vec();
    all.push(("keyring wrap key", derived(root, label::KEYRING_WRAP_KEY)));
    all.push(("device-name key", derived(keyring, label::DEVICE_NAME)));
    let secret = kdf::derive_key(&key(keyring), label::KEYRING_SECRET, &[header.account]);
    all.push(("keyring's vault secret", secret.expose().to_vec()));
    all.push(("root key", root.to_vec()));
    all.push(("keyring key of epoch 1", keyring.to_vec()));
    all.push(("keyring key of epoch 2", drawn::<32>(&mut Counter::new(6))));
}

fn device_secrets(all: &mut Vec<(&'static str, Vec<u8>)>) {
    let mut rng = Counter::new(2);
    drawn::<16>(&mut rng);
    let seal = drawn::<32>(&mut rng);
    let sign = drawn::<32>(&mut rng);
    all.push(("device signing key, expanded", expanded_ed25519(&sign)));
    all.push(("device signing seed", sign));
    let wide = expanded_x_wing(&seal);
    all.push(("device X-Wing seed", seal));
    all.push(("device ML-KEM seed d", wide[..32].to_vec()));
    all.push(("device ML-KEM seed z", wide[32..64].to_vec()));
    all.push(("device X25519 key", wide[64..].to_vec()));
    all.push(("device nonce key", drawn::<32>(&mut rng)));
    let index = drawn::<32>(&mut rng);
    for (name, label) in [("local tag key", label::LOCAL_INDEX_TAG), ("local row key", label::LOCAL_ROW)] {
        all.push((name, kdf::derive_key(&key(&index), label, kdf::NONE).expose().to_vec()));
    }
    all.push(("device index key", index));
    let mut rng = Counter::new(4);
    drawn::<16>(&mut rng);
    all.push(("second device's X-Wing seed", drawn::<32>(&mut rng)));
}

fn recovery_secrets(header: &KeyHeader, all: &mut Vec<(&'static str, Vec<u8>)>) {
    let bytes = drawn::<32>(&mut Counter::new(3));
    let recovery = key(&bytes);
    let text = recovery::recovery_key_text(recovery.expose());
    all.push(("recovery key's letters", text.replace(' ', "").split_off(5).into_bytes()));
    all.push(("recovery key's text", text.into_bytes().split_off(8)));
    let seed = kdf::derive::<32, u8>(&recovery, label::RECOVERY_LOGIN, kdf::NONE).to_vec();
    all.push(("recovery login key, expanded", expanded_ed25519(&seed)));
    all.push(("recovery login seed", seed));
    let wrap = &header.wraps[1];
    let info = encode(&(label::RECOVERY_KEK.as_str(), header.account, wrap.salt));
    let kek = key(kdf::expand::<32>(&recovery, &info).as_slice());
    all.push((
        "AEAD key of the recovery wrap",
        aead(&kek, label::ROOT_WRAP, &wrap_header(header.account, wrap)),
    ));
    all.push(("recovery KEK", kek.expose().to_vec()));
    all.push(("recovery key", bytes));
}

fn vault_secrets(outputs: &Outputs, all: &mut Vec<(&'static str, Vec<u8>)>) {
    let mut rng = Counter::new(7);
    let secret = key(&drawn::<32>(&mut rng));
    let epoch = key(&drawn::<32>(&mut rng));
    let derived = |label| kdf::derive_key(&secret, label, &[VAULT]).expose().to_vec();
    all.push(("record-id key", derived(label::RECORD_ID_KEY)));
    all.push(("content-hash key", derived(label::CONTENT_HASH_KEY)));
    let blob = derived(label::BLOB_SECRET);
    let reference = &outputs.reference;
    let info = encode(&(
        label::BLOB_KEY.as_str(),
        VERSION,
        SUITE,
        reference.chunk_log2,
        ByteArray::<32>(blob.as_slice().try_into().unwrap()),
        reference.blob,
        reference.content_hash,
    ));
    all.push(("blob key", kdf::expand::<32>(&SecretKey::from_bytes(&reference.seed.0), &info).to_vec()));
    all.push(("blob secret", blob));
    let (envelope, _) = lockstep_proto::envelope::decode(&outputs.envelope).unwrap();
    all.push(("AEAD key of an envelope", aead(&epoch, label::ENVELOPE_HEADER, &envelope.header.0)));
    all.push(("vault secret", secret.expose().to_vec()));
    all.push(("vault key of epoch 1", epoch.expose().to_vec()));
}

/// RFC 8032 section 5.1.5, step 1; the first half is the scalar before its bits are set, the second the prefix. Only
/// whole halves that no other form changes are looked for: the prefix.
fn expanded_ed25519(seed: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    sha2::Sha512::digest(seed)[32..].to_vec()
}

/// X-Wing's expandDecapsulationKey: ML-KEM's d and z, and the X25519 key.
fn expanded_x_wing(seed: &[u8]) -> [u8; 96] {
    use shake::digest::{ExtendableOutput as _, Update as _, XofReader as _};
    let mut out = [0; 96];
    let mut hasher = shake::Shake256::default();
    hasher.update(seed);
    hasher.finalize_xof().read(&mut out);
    out
}
