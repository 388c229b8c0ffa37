//! Vaults, staged envelopes, commits.

use super::account::known;
use super::pull::{PAGE_RESERVE_BYTES, first_page};
use super::{cbor, nothing};
use crate::domain::commit::{PreparedCommit, refuse};
use crate::error::ApiError;
use crate::extract::Place;
use crate::extract::body::Cbor;
use crate::extract::session::{AnySession, DeviceSession, vault_of};
use crate::state::App;
use crate::store::{NewVault, Pushed};
use crate::time::now_utc;
use axum::extract::State;
use axum::response::Response;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{
    CreateVault, PushCommit, Pushed as PushedBody, StageEnvelopes, StagedEnvelopes, VaultLog, Vaults,
};
use lockstep_proto::cbor::{Wire as _, encode_large};
use lockstep_proto::vault_log::VaultLogEntry;
use lockstep_proto::{envelope, limits};

type Answer = Result<Response, ApiError>;

/// `GET /v1/vaults`.
pub(crate) async fn list(State(app): State<App>, AnySession(session): AnySession) -> Answer {
    Ok(cbor(&Vaults(app.store.vaults(session.account).await?)))
}

/// `POST /v1/vaults`.
pub(crate) async fn create(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    body: Cbor<CreateVault>,
) -> Answer {
    app.check_not_held(session.account, session.device)?;
    let CreateVault { create, genesis } = body.value;
    let entry = VaultLogEntry::decode(&create.bytes.0)?;
    let known = known(&app, session.account).await?;
    let birth = known.check_birth(entry.vault, &create, &genesis).map_err(|error| refuse(&error))?;
    app.store.create_vault(session.account, NewVault { tip: birth.tip(), create, genesis }).await?;
    app.notices.moved(session.account);
    Ok(nothing())
}

/// `GET /v1/vaults/{v}/log`.
pub(crate) async fn log(
    State(app): State<App>,
    AnySession(session): AnySession,
    Place(vault): Place<String>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    Ok(cbor(&VaultLog(app.store.vault_log(vault.key).await?)))
}

/// `POST /v1/vaults/{v}/envelopes`.
pub(crate) async fn stage(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(vault): Place<String>,
    body: Cbor<StageEnvelopes>,
) -> Answer {
    let vault = vault_of(&app, &session, &vault).await?;
    if body.value.0.len() > limits::CHANGES_MAX {
        return Err(ApiError::new(Code::TooLarge, "more than 4,096 envelopes"));
    }
    let mut staged = Vec::with_capacity(body.value.0.len());
    for bytes in body.value.0 {
        envelope::decode(&bytes.0)?;
        staged.push((envelope::digest(&bytes.0), bytes.0));
    }
    staged.sort_by_key(|(digest, _)| *digest);
    staged.dedup_by_key(|(digest, _)| *digest);
    let digests = staged.iter().map(|(digest, _)| *digest).collect();
    app.store.stage(vault.key, staged, now_utc().saturating_add(limits::STAGED_TTL_SECONDS)).await?;
    Ok(cbor(&StagedEnvelopes(digests)))
}

/// `POST /v1/vaults/{v}/commits`.
pub(crate) async fn push(
    State(app): State<App>,
    DeviceSession(session): DeviceSession,
    Place(vault): Place<String>,
    body: Cbor<PushCommit>,
) -> Answer {
    let row = vault_of(&app, &session, &vault).await?;
    let mut prepared = PreparedCommit::parse(body.value)?;
    prepared.is_foreign = prepared.commit.device != session.device;
    let may_post = !prepared.is_foreign || prepared.heals;
    if prepared.commit.vault.to_string() != vault || !may_post {
        return Err(ApiError::new(Code::InvalidChain, "the commit belongs to another vault or device"));
    }
    app.check_not_held(session.account, session.device)?;
    let after = prepared.commit.seq.previous();
    // A request that is dropped in the middle may have been applied all the same.
    let moved = app.notices.moved_when_dropped(session.account);
    match app.store.apply_commit(session.account, row.key, prepared).await? {
        Pushed::Applied { seq, head } => {
            drop(moved);
            Ok(cbor(&PushedBody { seq, head }))
        }
        Pushed::HeadMoved => {
            drop(body.reserved);
            let reserved = app.budget.reserve(PAGE_RESERVE_BYTES).await?;
            let page = first_page(&app, row.key, after).await?;
            Err(ApiError::new(Code::HeadMoved, "the vault's head moved on")
                .with_body(encode_large(&page), reserved))
        }
    }
}
