//! What makes a push acceptable (PROTOCOL.md sections 6.3 and 6.4), apart from where it is stored.

use crate::error::Refusal;
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::PushCommit;
use lockstep_proto::cbor::Wire;
use lockstep_proto::chain::{self, Authors, ChainError, Owner, Tip};
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE, KIND_REPAIR};
use lockstep_proto::envelope::{self, EnvelopeHeader, KIND_DOCUMENT, KIND_TOMBSTONE, blob_list_digest};
use lockstep_proto::id::{AccountId, BlobId, RecordId, Revision, Seq};
use lockstep_proto::sign::PublicKey;
use lockstep_proto::state::StateDigest;
use lockstep_proto::{Digest, Signed, limits};
use std::collections::{BTreeMap, BTreeSet};

/// A push that decodes. Whether it follows the chain, the store finds out in its transaction.
#[derive(Clone)]
pub struct PreparedCommit {
    /// The signed header.
    pub signed: Signed,
    /// The header.
    pub commit: Commit,
    /// Its hash.
    pub hash: Digest,
    /// Encoding of the change list.
    pub change_bytes: Vec<u8>,
    /// The change list.
    pub changes: Changes,
    /// Envelopes that came along, by digest.
    pub envelopes: BTreeMap<Digest, Vec<u8>>,
    /// Whether it gives a restored server back what it had: then envelopes and objects may be missing.
    pub heals: bool,
    /// Whether the session that gives it back is of another device than its author.
    pub is_foreign: bool,
}

impl PreparedCommit {
    /// Decodes a push.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn parse(body: PushCommit) -> Result<Self, Refusal> {
        let malformed = |error: lockstep_proto::CodecError| Refusal::new(Code::Malformed, error.to_string());
        let commit = Commit::decode(&body.commit.bytes.0).map_err(malformed)?;
        let changes = chain::verify_changes(&commit, &body.changes.0).map_err(|error| refuse(&error))?;
        let mut envelopes = BTreeMap::new();
        for bytes in body.envelopes {
            if bytes.0.len() > limits::ENVELOPE_BYTES_MAX {
                return Err(Refusal::new(Code::TooLarge, "an envelope is larger than 1 MiB"));
            }
            envelopes.insert(envelope::digest(&bytes.0), bytes.0);
        }
        let hash = Commit::hash_of(&body.commit.bytes.0);
        let (change_bytes, heals) = (body.changes.0, body.heals);
        Ok(Self {
            signed: body.commit,
            commit,
            hash,
            change_bytes,
            changes,
            envelopes,
            heals,
            is_foreign: false,
        })
    }

    /// Digests of envelopes that did not come along.
    pub fn missing(&self) -> Vec<Digest> {
        let named = self.changes.0.iter().filter_map(|change| change.version().map(|(_, _, digest)| digest));
        named.filter(|digest| !self.envelopes.contains_key(digest)).collect()
    }

    /// Every object that the changes name, each once.
    pub fn blobs(&self) -> BTreeSet<BlobId> {
        self.changes.0.iter().flat_map(|change| change.blobs().iter().copied()).collect()
    }

    /// Records that the changes touch.
    pub fn records(&self) -> Vec<RecordId> {
        self.changes.0.iter().filter_map(|change| change.version().map(|(record, ..)| record)).collect()
    }
}

/// A record's newest version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Live {
    /// Revision.
    pub revision: Revision,
    /// Envelope digest.
    pub digest: Digest,
    /// Commit that put it.
    pub seq: Seq,
}

/// A vault as the store's transaction sees it.
pub struct VaultState {
    /// Owner.
    pub account: AccountId,
    /// The owner's identity; needed for a rotation or a repair, none otherwise.
    pub identity: Option<PublicKey>,
    /// Where the chain stands; for a repair that goes back: its end, and otherwise the commit that it goes back to.
    pub tip: Tip,
    /// Hash of the commit at the next seq's skip target.
    pub skip: Digest,
    /// State digest.
    pub state: StateDigest,
    /// Number of records.
    pub records: u64,
    /// Newest versions of the records that the push touches.
    pub live: BTreeMap<RecordId, Live>,
}

/// What a good push changes.
pub struct Judged {
    /// Where the chain stands afterwards.
    pub tip: Tip,
    /// State afterwards.
    pub state: StateDigest,
    /// Number of records afterwards.
    pub records: u64,
}

/// Judges a push whose envelopes are all at hand.
///
/// # Errors
/// [`Refusal`] names the rule.
pub fn judge(push: &PreparedCommit, vault: &VaultState, authors: &dyn Authors) -> Result<Judged, Refusal> {
    let verified =
        chain::verify_next(&vault.tip, vault.skip, authors, &push.signed).map_err(|error| refuse(&error))?;
    match &vault.identity {
        Some(identity) => {
            let owner = Owner { account: vault.account, identity };
            chain::verify_kind(&vault.tip, owner, authors, &verified, &push.changes)
                .map_err(|error| refuse(&error))?;
        }
        None if push.commit.kind != KIND_CHANGE || !push.changes.is_plain() => {
            return Err(invalid("its changes are not what its kind allows"));
        }
        None => {}
    }
    let mut state = vault.state.clone();
    let mut records = vault.records;
    for change in &push.changes.0 {
        let Some((record, revision, digest)) = change.version() else { continue };
        let before = vault.live.get(&record);
        if revision != before.map_or(Revision::new(1), |live| live.revision.next()) {
            return Err(invalid(format!("record {record}: its revision is not the last one plus one")));
        }
        match before {
            Some(live) => state.remove(record, live.revision, live.digest, live.seq),
            None => records = records.saturating_add(1),
        }
        state.add(record, revision, digest, push.commit.seq);
        check_envelope(push, change, record, revision, digest)?;
    }
    if records > limits::RECORDS_MAX {
        return Err(Refusal::new(
            Code::LimitReached,
            "the vault has 16,777,216 records and can not have more",
        ));
    }
    if state.checksum() != push.commit.state {
        return Err(invalid("the state digest is not the one after these changes"));
    }
    Ok(Judged { tip: verified.tip(), state, records })
}

/// Before anything is read for a commit that goes back: it is a repair, and the identity signed it.
///
/// # Errors
/// [`Refusal`].
pub fn check_authority(
    push: &PreparedCommit,
    account: AccountId,
    identity: &PublicKey,
) -> Result<(), Refusal> {
    if push.commit.kind != KIND_REPAIR {
        return Err(invalid("its changes are not what its kind allows"));
    }
    chain::verify_authority(Owner { account, identity }, &push.commit, &push.changes)
        .map_err(|error| refuse(&error))
}

/// Bytes of staged envelopes that one commit takes at most: they are held in memory.
const STAGED_BYTES_MAX: usize = 16 * limits::MIB;

/// Before staged envelopes of so many bytes are read for a commit: they fit into memory.
///
/// # Errors
/// [`Refusal`].
pub fn check_staged(bytes: u64) -> Result<(), Refusal> {
    if usize::try_from(bytes).is_ok_and(|bytes| bytes <= STAGED_BYTES_MAX) {
        return Ok(());
    }
    Err(Refusal::new(
        Code::TooLarge,
        "the staged envelopes of a commit have more than 16 MiB; make several commits of it",
    ))
}

fn check_envelope(
    push: &PreparedCommit,
    change: &Change,
    record: RecordId,
    revision: Revision,
    digest: Digest,
) -> Result<(), Refusal> {
    let Some(bytes) = push.envelopes.get(&digest) else {
        if push.heals {
            return Ok(());
        }
        let mut refusal =
            Refusal::new(Code::MissingEnvelope, "an envelope that the commit names is not there");
        refusal.names.push(digest.to_string());
        return Err(refusal);
    };
    let (_, header): (_, EnvelopeHeader) = envelope::decode(bytes)
        .map_err(|error| Refusal::new(Code::Malformed, format!("record {record}: {error}")))?;
    let kind = if matches!(change, Change::Put { .. }) { KIND_DOCUMENT } else { KIND_TOMBSTONE };
    let commit = &push.commit;
    let expected = (commit.vault, record, revision, kind, commit.epoch, commit.device);
    if (header.vault, header.record, header.revision, header.kind, header.epoch, header.device) != expected {
        return Err(invalid(format!("record {record}: its envelope belongs elsewhere")));
    }
    if header.blobs != blob_list_digest(change.blobs()) {
        return Err(invalid(format!("record {record}: its envelope names other objects than the change")));
    }
    Ok(())
}

fn invalid(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidChain, detail)
}

/// A chain error as a refusal.
pub fn refuse(error: &ChainError) -> Refusal {
    let code = match error {
        ChainError::Codec(_) => Code::Malformed,
        ChainError::Signature { .. } => Code::InvalidSignature,
        _ => Code::InvalidChain,
    };
    Refusal::new(code, error.to_string())
}
