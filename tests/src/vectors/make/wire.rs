//! Bodies of the API and the OPAQUE flow: golden files, and what is refused of them.

use super::account::{ORIGIN, statement};
use super::record::{content, vault_keys};
use crate::vectors::run::BODIES;
use crate::vectors::world::{A, B, PASSPHRASE, UTC, WORLD, fixed, hash, record, rng};
use crate::vectors::{File, Golden, Reject, hex};
use lockstep_client_crypto::account::Enrolment;
use lockstep_client_crypto::vault::SealAs;
use lockstep_proto::api::{account, auth, notice, object, server, session, usage, vault};
use lockstep_proto::cbor::{ByteArray, Bytes, Wire};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{BlobId, DeviceId, Epoch, Revision, Seq, SessionId, VaultId};
use serde_json::{Value, json};

pub(super) fn golden() -> Vec<File> {
    vec![bodies(), opaque()]
}

fn bytes(n: u8, length: usize) -> Bytes {
    Bytes(vec![n; length])
}

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn sign_in_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let (entry, signature) = (&WORLD.log[0], ByteArray([6; 64]));
    let finish = auth::RegisterFinish {
        name: "someone@example.org".into(),
        invite: String::new(),
        ticket: digest(1),
        opaque_record: bytes(2, 192),
        key_header: entry.key_header.clone(),
        entry: entry.entry.clone(),
        keyring_create: WORLD.keyring.create.clone(),
        keyring_genesis: WORLD.keyring.genesis.clone(),
    };
    let session = auth::Session {
        token: "A".repeat(43),
        account: WORLD.id(),
        device: DeviceId::ZERO,
        kind: auth::SESSION_PROVISIONAL,
        expires_utc: UTC,
    };
    let info = auth::SessionInfo {
        account: WORLD.id(),
        device: WORLD.devices[A].id(),
        kind: auth::SESSION_DEVICE,
        expires_utc: UTC,
    };
    vec![
        ("register-start", auth::RegisterStart { account: WORLD.id(), request: bytes(1, 32) }.encode()),
        ("opaque-started", auth::OpaqueStarted { ticket: digest(1), response: bytes(2, 64) }.encode()),
        ("authorised", auth::Authorised { bytes: finish.encode().into(), action: signature }.encode()),
        ("register-finish", finish.encode()),
        ("login-start", auth::LoginStart { name: "a".into(), ke1: bytes(3, 96) }.encode()),
        (
            "login-started",
            auth::LoginStarted { login: digest(4), account: WORLD.id(), ke2: bytes(5, 320) }.encode(),
        ),
        ("login-finish", auth::LoginFinish { login: digest(4), ke3: bytes(6, 64) }.encode()),
        ("recovery-start", auth::RecoveryStart { name: "a".repeat(64) }.encode()),
        ("recovery-started", auth::RecoveryStarted { account: WORLD.id(), nonce: digest(7) }.encode()),
        (
            "device-login-start",
            auth::DeviceLoginStart { account: WORLD.id(), device: WORLD.devices[B].id() }.encode(),
        ),
        ("device-login-started", auth::DeviceLoginStarted { nonce: digest(8) }.encode()),
        ("statement", statement(auth::PURPOSE_RECOVERY).1.encode()),
        ("session", session.encode()),
        ("session-info", info.encode()),
    ]
}

fn account_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let last = Enrolment { key_header: WORLD.log[0].key_header.clone(), entry: WORLD.log[2].entry.clone() };
    let entries = vec![WORLD.log[2].entry.clone(), WORLD.log[5].entry.clone()];
    let pair = account::EnrolDevice { key_header: last.key_header.clone(), entry: last.entry.clone() };
    let recover = account::Recover {
        ticket: digest(1),
        opaque_record: bytes(2, 192),
        key_header: last.key_header.clone(),
        entry: last.entry.clone(),
    };
    let change = account::ChangeCredentials {
        record: Some(account::NewRecord { ticket: digest(1), opaque_record: bytes(2, 192) }),
        key_header: last.key_header.clone(),
        entry: last.entry.clone(),
    };
    let devices =
        account::Devices { total: 6, entries: entries.clone(), key_header: last.key_header.clone() };
    let heal = account::HealDevices {
        account: WORLD.id(),
        entries: entries.clone(),
        key_header: last.key_header.clone(),
    };
    let session = |kind: u8, is_this: bool| session::SessionEntry {
        id: SessionId::from_bytes([kind; 16]),
        device: WORLD.devices[A].id(),
        kind,
        created_utc: UTC,
        used_utc: UTC + 1,
        expires_utc: UTC + 600,
        is_this,
    };
    vec![
        ("opaque-start", account::OpaqueStart { request: bytes(1, 32) }.encode()),
        ("devices", devices.encode()),
        ("enrol-device", pair.encode()),
        ("recover", recover.encode()),
        ("change-credentials", change.encode()),
        ("change-credentials", account::ChangeCredentials { record: None, ..change }.encode()),
        ("delete-account", account::DeleteAccount { account: WORLD.id() }.encode()),
        ("delete-vault", account::DeleteVault { vault: WORLD.files_id() }.encode()),
        ("heal-devices", heal.encode()),
        ("sessions", session::Sessions(vec![session(1, false), session(2, true)]).encode()),
        ("usage", usage::Usage { used: 5_000_000_000, quota: None, objects: 3, records: 70_000 }.encode()),
        ("usage", usage::Usage { used: 0, quota: Some(1 << 40), objects: 0, records: 0 }.encode()),
    ]
}

fn vault_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let seal_as = SealAs { kind: 1, revision: Revision::new(1), epoch: Epoch::new(1) };
    let keys = vault_keys(WORLD.files_id());
    let envelope = Bytes(keys.seal(seal_as, &content(5), &WORLD.devices[A], &mut rng("page")).unwrap());
    let entry = vault::Entry {
        seq: Seq::new(1),
        record: record(1),
        revision: Revision::new(1),
        kind: 1,
        envelope: envelope.clone(),
    };
    let (commit, changes) = WORLD.plain[1].clone();
    let page = vault::Page {
        head_seq: Seq::new(4),
        commits: vec![
            vault::CommitEntry { commit: commit.clone(), changes: Some(changes.clone().into()) },
            vault::CommitEntry { commit: commit.clone(), changes: None },
        ],
        more: true,
        entries: vec![entry.clone()],
    };
    let info =
        vault::VaultInfo { vault: WORLD.files_id(), seq: Seq::new(4), head: hash(&commit), records: 3 };
    let push = vault::PushCommit {
        commit,
        changes: changes.into(),
        envelopes: vec![envelope.clone()],
        heals: false,
    };
    let create =
        vault::CreateVault { create: WORLD.files.create.clone(), genesis: WORLD.files.genesis.clone() };
    vec![
        ("vaults", vault::Vaults(vec![info]).encode()),
        ("vaults", vault::Vaults(Vec::new()).encode()),
        ("create-vault", create.encode()),
        ("vault-log", vault::VaultLog(vec![WORLD.files.create.clone()]).encode()),
        ("stage-envelopes", vault::StageEnvelopes(vec![envelope]).encode()),
        ("staged-envelopes", vault::StagedEnvelopes(vec![digest(1), digest(2)]).encode()),
        ("push-commit", push.encode()),
        ("pushed", vault::Pushed { seq: Seq::new(1), head: digest(1) }.encode()),
        ("page", page.encode()),
        ("entries", vault::Entries { more: false, entries: vec![entry.clone()] }.encode()),
        (
            "get-envelopes",
            vault::GetEnvelopes(vec![(Seq::new(1), record(1)), (Seq::new(300), record(2))]).encode(),
        ),
        ("history", vault::History(vec![entry]).encode()),
    ]
}

fn notice_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let heads = notice::Heads(vec![
        (WORLD.files_id(), Seq::new(4)),
        (VaultId::from_bytes([0xff; 16]), Seq::new(300)),
    ]);
    let token = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8".to_owned();
    vec![
        ("heads", heads.encode()),
        ("heads", notice::Heads::default().encode()),
        ("listen", notice::Listen { token, heads: heads.clone() }.encode()),
        ("wait-for-heads", notice::WaitForHeads { heads, seconds: 25 }.encode()),
    ]
}

fn object_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let blob = |n: u8| BlobId::from_bytes([n; 16]);
    let info = server::ServerInfo {
        versions: vec![lockstep_proto::version::VERSION],
        suite: 1,
        origin: ORIGIN.into(),
        registration: server::REGISTRATION_INVITE,
        utc: UTC,
        limits: vec![("envelope-bytes".into(), 1 << 20), ("devices".into(), 64)],
    };
    vec![
        ("stored", object::Stored(vec![blob(1), blob(2)]).encode()),
        ("begin-upload", object::BeginUpload { blob: blob(1), size: 1 << 33, digest: digest(1) }.encode()),
        ("upload-state", object::UploadState { complete: false, parts: vec![0, 1, 23, 24, 1000] }.encode()),
        ("object-list", object::ObjectList(vec![blob(1)]).encode()),
        ("server-info", info.encode()),
        ("signed", WORLD.files.create.encode()),
    ]
}

fn all_bodies() -> Vec<(&'static str, Vec<u8>)> {
    [sign_in_bodies(), account_bodies(), vault_bodies(), object_bodies(), notice_bodies()].concat()
}

fn bodies() -> File {
    let about = "Bodies of the API. Nothing in them is authenticated by its encoding alone";
    let mut file = Golden::new("bodies", "decode", "12.2", about).plain(&["bytes"]);
    let all = all_bodies();
    for (name, _) in BODIES.iter().filter(|body| body.0 != "checkpoint") {
        assert!(all.iter().any(|body| body.0 == *name), "no golden body {name}");
    }
    for (name, bytes) in all {
        file.case(name, json!({ "type": name, "bytes": hex(bytes) }), json!({}));
    }
    file.file()
}

/// The server's half, from fixed randomness.
mod half {
    use opaque_ke::rand::{CryptoRng, Error, RngCore};
    use rand::Rng as _;

    /// The suite of the protocol; the server stretches nothing.
    pub(super) struct Suite;

    impl opaque_ke::CipherSuite for Suite {
        type OprfCs = opaque_ke::Ristretto255;
        type KeyExchange = opaque_ke::TripleDh<opaque_ke::Ristretto255, sha2_010::Sha512>;
        type Ksf = opaque_ke::ksf::Identity;
    }

    /// A generator behind the older traits.
    pub(super) struct Old(pub(super) rand::rngs::ChaCha20Rng);

    impl RngCore for Old {
        fn next_u32(&mut self) -> u32 {
            self.0.next_u32()
        }
        fn next_u64(&mut self) -> u64 {
            self.0.next_u64()
        }
        fn fill_bytes(&mut self, out: &mut [u8]) {
            self.0.fill_bytes(out);
        }
        fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
            self.0.fill_bytes(out);
            Ok(())
        }
    }

    impl CryptoRng for Old {}
}

/// A flow: the inputs of op `opaque`, and what the client has to send.
fn flow() -> (Value, Value) {
    use half::{Old, Suite};
    use lockstep_client_crypto::opaque::{Login, Registration};
    use lockstep_client_crypto::passphrase::Passphrase;
    use opaque_ke as ke;
    use rand::SeedableRng as _;
    let (account, credential, seed) = (WORLD.id(), fixed::<16>("credential"), fixed::<32>("client"));
    let mut server_rng = Old(rng("opaque server"));
    let mut client_rng = rand::rngs::ChaCha20Rng::from_seed(seed);
    let setup = ke::ServerSetup::<Suite>::new(&mut server_rng);
    let passphrase = Passphrase::new(PASSPHRASE).unwrap();
    let (registration, request) = Registration::start(&passphrase, &mut client_rng).unwrap();
    let asked = ke::RegistrationRequest::<Suite>::deserialize(&request).unwrap();
    let response = ke::ServerRegistration::<Suite>::start(&setup, asked, &credential).unwrap().message;
    let response = response.serialize().to_vec();
    let record = registration.finish(&passphrase, account, &response, &mut client_rng).unwrap();
    let upload = ke::RegistrationUpload::<Suite>::deserialize(&record).unwrap();
    let kept = ke::ServerRegistration::<Suite>::finish(upload);
    let (login, ke1) = Login::start(&passphrase, &mut client_rng).unwrap();
    let context = lockstep_proto::cbor::encode(&(lockstep_proto::label::OPAQUE.as_str(), ORIGIN));
    let identifiers = ke::Identifiers { client: Some(account.as_bytes()), server: None };
    let parameters = ke::ServerLoginParameters { context: Some(&context), identifiers };
    let asked = ke::CredentialRequest::<Suite>::deserialize(&ke1).unwrap();
    let started =
        ke::ServerLogin::<Suite>::start(&mut server_rng, &setup, Some(kept), asked, &credential, parameters)
            .unwrap();
    let ke2 = started.message.serialize().to_vec();
    let ke3 = login.finish(&passphrase, account, ORIGIN, &ke2, &mut client_rng).unwrap();
    let finalization = ke::CredentialFinalization::<Suite>::deserialize(&ke3).unwrap();
    started.state.finish(finalization, ke::ServerLoginParameters::default()).unwrap();
    let input = json!({
        "passphrase": PASSPHRASE,
        "account": hex(account.as_bytes()),
        "origin": ORIGIN,
        "made-client-seed": hex(seed),
        "made-server-setup": hex(setup.serialize()),
        "made-credential": hex(credential),
        "registration-response": hex(response),
        "ke2": hex(ke2),
    });
    let known = json!({ "registration-request": hex(request), "record": hex(record), "ke1": hex(ke1), "ke3": hex(ke3) });
    (input, known)
}

fn opaque() -> File {
    let about =
        "Registration and sign-in. The client's randomness is ChaCha20 with 20 rounds under made-client-seed";
    let mut file = Golden::new("opaque", "opaque", "2.4", about);
    let (input, known) = flow();
    file.case("one flow", input, known);
    file.file()
}

pub(super) fn reject() -> Vec<File> {
    let mut file = Reject::new("opaque", "opaque", "2.4");
    let good = flow().0;
    let mut change = |fault: &str, name: &str, value: Value, class: &str| {
        let mut input = good.clone();
        input[name] = value;
        file.case(fault, input, class);
    };
    change("another passphrase", "passphrase", "correct horse battery stable".into(), "open");
    change("another origin", "origin", "https://backup.example".into(), "open");
    change("another account", "account", hex([1; 16]).into(), "open");
    let ke2 = good["ke2"].as_str().unwrap();
    change("KE2 is a byte short", "ke2", ke2[..638].into(), "malformed");
    change("a byte follows KE2", "ke2", format!("{ke2}00").into(), "malformed");
    change(
        "KE2's evaluated element is no point",
        "ke2",
        format!("{}{}", "ff".repeat(32), &ke2[64..]).into(),
        "malformed",
    );
    change(
        "KE2's evaluated element is the identity",
        "ke2",
        format!("{}{}", "00".repeat(32), &ke2[64..]).into(),
        "malformed",
    );
    // Fields of KE2: evaluated element 32, masking nonce 32, masked response 128, server nonce 32, key share 32, MAC 64.
    for (name, place) in [("masking nonce", 32), ("masked response", 64), ("server nonce", 192), ("MAC", 256)]
    {
        let mut bytes = crate::vectors::unhex(ke2).unwrap();
        bytes[place] ^= 1;
        change(&format!("a bit of KE2's {name} is another"), "ke2", hex(bytes).into(), "open");
    }
    let response = good["registration-response"].as_str().unwrap();
    change(
        "the registration's answer is a byte short",
        "registration-response",
        response[..126].into(),
        "malformed",
    );
    vec![file.file(), super::coding_reject::bodies(&all_bodies())]
}
