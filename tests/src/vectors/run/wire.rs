//! Bodies of the API, and sign-in by OPAQUE.

use super::account::account;
use crate::vectors::json::{self, Fault, In, hex};
use lockstep_client_crypto::opaque::{Login, Registration};
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_proto::api::{account as api_account, auth, notice, object, server, session, usage, vault};
use lockstep_proto::cbor::Wire;
use lockstep_proto::recovery::Checkpoint;
use lockstep_proto::sign::Signed;
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use serde_json::{Value, json};

type Out = Result<Value, Fault>;

/// Both halves of the client's OPAQUE, from the generator's seeds and the server's answers.
pub(super) fn opaque(input: In<'_>) -> Out {
    let passphrase = Passphrase::new(input.text("passphrase")).map_err(|_| Fault::new("passphrase"))?;
    let account = account(input)?;
    let mut rng = ChaCha20Rng::from_seed(input.array("made-client-seed")?);
    let (registration, request) = Registration::start(&passphrase, &mut rng)?;
    let response = input.bytes("registration-response");
    let record = registration.finish(&passphrase, account, &response, &mut rng)?;
    let (login, ke1) = Login::start(&passphrase, &mut rng)?;
    let ke3 = login.finish(&passphrase, account, input.text("origin"), &input.bytes("ke2"), &mut rng)?;
    Ok(json!({
        "registration-request": hex(request),
        "record": hex(record),
        "ke1": hex(ke1),
        "ke3": hex(ke3),
    }))
}

type Decoder = fn(&[u8]) -> Result<(), Fault>;

fn strict<T: Wire>(bytes: &[u8]) -> Result<(), Fault> {
    T::decode(bytes)?;
    Ok(())
}

/// Every body of section 12.2 by its name, and structures that stand for themselves.
pub(crate) const BODIES: &[(&str, Decoder)] = &[
    ("signed", strict::<Signed>),
    ("checkpoint", strict::<Checkpoint>),
    ("register-start", strict::<auth::RegisterStart>),
    ("opaque-started", strict::<auth::OpaqueStarted>),
    ("authorised", strict::<auth::Authorised>),
    ("register-finish", strict::<auth::RegisterFinish>),
    ("login-start", strict::<auth::LoginStart>),
    ("login-started", strict::<auth::LoginStarted>),
    ("login-finish", strict::<auth::LoginFinish>),
    ("recovery-start", strict::<auth::RecoveryStart>),
    ("recovery-started", strict::<auth::RecoveryStarted>),
    ("device-login-start", strict::<auth::DeviceLoginStart>),
    ("device-login-started", strict::<auth::DeviceLoginStarted>),
    ("statement", strict::<auth::Statement>),
    ("session", strict::<auth::Session>),
    ("session-info", strict::<auth::SessionInfo>),
    ("opaque-start", strict::<api_account::OpaqueStart>),
    ("devices", strict::<api_account::Devices>),
    ("enrol-device", strict::<api_account::EnrolDevice>),
    ("recover", strict::<api_account::Recover>),
    ("change-credentials", strict::<api_account::ChangeCredentials>),
    ("delete-account", strict::<api_account::DeleteAccount>),
    ("delete-vault", strict::<api_account::DeleteVault>),
    ("heal-devices", strict::<api_account::HealDevices>),
    ("stored", strict::<object::Stored>),
    ("begin-upload", strict::<object::BeginUpload>),
    ("upload-state", strict::<object::UploadState>),
    ("object-list", strict::<object::ObjectList>),
    ("server-info", strict::<server::ServerInfo>),
    ("sessions", strict::<session::Sessions>),
    ("usage", strict::<usage::Usage>),
    ("vaults", strict::<vault::Vaults>),
    ("create-vault", strict::<vault::CreateVault>),
    ("vault-log", strict::<vault::VaultLog>),
    ("stage-envelopes", strict::<vault::StageEnvelopes>),
    ("staged-envelopes", strict::<vault::StagedEnvelopes>),
    ("push-commit", strict::<vault::PushCommit>),
    ("pushed", strict::<vault::Pushed>),
    ("page", strict::<vault::Page>),
    ("entries", strict::<vault::Entries>),
    ("get-envelopes", strict::<vault::GetEnvelopes>),
    ("history", strict::<vault::History>),
    ("heads", strict::<notice::Heads>),
    ("listen", strict::<notice::Listen>),
    ("wait-for-heads", strict::<notice::WaitForHeads>),
];

pub(super) fn decode(input: In<'_>) -> Out {
    let (name, bytes) = (input.text("type"), input.bytes("bytes"));
    let (_, decoder) = BODIES.iter().find(|body| body.0 == name).unwrap_or_else(|| panic!("no body {name}"));
    decoder(&bytes)?;
    Ok(json!({ "value": json::value(&bytes) }))
}
