//! What counts towards an account's quota, and what may go beyond it (PROTOCOL.md section 12.3).

use super::commit::PreparedCommit;
use crate::error::Refusal;
use lockstep_proto::api::problem::Code;
use lockstep_proto::commit::{Change, Changes};
use lockstep_proto::envelope::{self, KIND_TOMBSTONE};
use lockstep_proto::size::size_text;
use lockstep_proto::{Digest, Signed};

/// What a stored commit, version, staged envelope, object or log entry counts beside its bytes: its rows and
/// their places in the indexes, generously.
pub const ROW_BYTES: u64 = 256;
/// What a vault counts before anything is in it: its row with the state of 2,048 bytes.
pub const VAULT_BYTES: u64 = 2560;
/// What an account may write beyond its quota by deleting, unpinning and in its keyring.
pub const RESERVE_BYTES: u64 = 16 * 1024 * 1024;
/// How much of the reserve a revocation gives back at least: the keys that every vault then needs fit into it.
pub const REVOCATION_BYTES: u64 = 4 * 1024 * 1024;

/// What may be used of the reserve at most after an entry of the device log.
pub fn spared_max(revokes: bool) -> u64 {
    if revokes { RESERVE_BYTES - REVOCATION_BYTES } else { i64::MAX.unsigned_abs() }
}

/// What an account without a quota of its own may use; none is no limit.
#[derive(Debug, Clone, Copy)]
pub struct DefaultQuota(pub Option<u64>);

/// An account's own quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaSetting {
    /// What the server gives everybody.
    Default,
    /// No limit.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

impl QuotaSetting {
    /// Bytes that may be used; none is no limit.
    pub fn bytes(self, default: DefaultQuota) -> Option<u64> {
        match self {
            Self::Default => default.0,
            Self::Unlimited => None,
            Self::Bytes(bytes) => Some(bytes),
        }
    }

    /// The setting as a column: null the default, -1 no limit.
    pub fn from_column(value: Option<i64>) -> Self {
        match value {
            None => Self::Default,
            Some(bytes) => u64::try_from(bytes).map_or(Self::Unlimited, Self::Bytes),
        }
    }
}

/// What a write adds and frees. What only frees meets no quota: any will do then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Charge {
    /// Bytes that count from now on.
    pub added: u64,
    /// Bytes that count no more.
    pub freed: u64,
    /// Objects that are new.
    pub objects_added: u64,
    /// Objects that are gone.
    pub objects_freed: u64,
}

/// The length of bytes.
pub fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// What bytes and their row count.
pub fn row_bytes(bytes: &[u8]) -> u64 {
    length(bytes).saturating_add(ROW_BYTES)
}

/// What a signed structure and its row count.
pub fn signed_bytes(signed: &Signed) -> u64 {
    row_bytes(&signed.bytes.0).saturating_add(length(&signed.signature.0))
}

/// What an empty vault counts: its row, log entry and genesis with an empty change list.
pub fn birth_bytes(create: &Signed, genesis: &Signed, changes: &[u8]) -> u64 {
    let genesis = signed_bytes(genesis).saturating_add(length(changes));
    VAULT_BYTES.saturating_add(signed_bytes(create)).saturating_add(genesis)
}

/// What a commit adds: header, change list, envelopes, the vault log's entry, objects that are `lost`. Envelopes that
/// were staged count once; those that are missing count their rows.
pub fn charge_of(push: &PreparedCommit, staged: &[Digest], lost: u64) -> Charge {
    let size = |digest: &Digest| push.envelopes.get(digest).map_or(ROW_BYTES, |bytes| row_bytes(bytes));
    let header = signed_bytes(&push.signed).saturating_add(length(&push.change_bytes));
    let log = push.changes.rotation().map_or(0, signed_bytes);
    let rows = header.saturating_add(log).saturating_add(lost.saturating_mul(ROW_BYTES));
    let versions = push.changes.0.iter().filter_map(Change::version);
    Charge {
        added: versions.fold(rows, |sum, (_, _, digest)| sum.saturating_add(size(&digest))),
        freed: staged.iter().fold(0, |sum, digest| sum.saturating_add(size(digest))),
        objects_added: lost,
        objects_freed: 0,
    }
}

/// What an account uses and may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Bytes that count.
    pub used: u64,
    /// Bytes that were written beyond the quota, on the reserve, since it was last kept.
    pub spared: u64,
    /// Bytes that may be used; none is no limit.
    pub quota: Option<u64>,
}

/// How a write meets the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowance {
    /// Up to the quota.
    Quota,
    /// Beyond it, on the reserve: what puts nothing new, and the keyring.
    Reserve,
    /// Counted, never refused: devices and credentials, what follows a revocation, and what is freed.
    Always,
}

/// Where an account stands after a write that adds some bytes and frees others.
///
/// # Errors
/// [`Refusal`] `quota_exceeded`; what adds nothing on balance is never refused.
pub fn charge(before: Standing, added: u64, freed: u64, allowance: Allowance) -> Result<Standing, Refusal> {
    let used = before.used.saturating_add(added).saturating_sub(freed);
    let after = Standing { used, ..before };
    let grown = added.saturating_sub(freed);
    let spared = before.spared.saturating_add(grown);
    match allowance {
        Allowance::Always => Ok(after),
        _ if before.quota.is_none_or(|quota| used <= quota) => Ok(Standing { spared: 0, ..after }),
        _ if grown == 0 => Ok(after),
        Allowance::Reserve if spared <= RESERVE_BYTES => Ok(Standing { spared, ..after }),
        Allowance::Quota | Allowance::Reserve => Err(refuse(before, grown)),
    }
}

fn refuse(standing: Standing, wanted: u64) -> Refusal {
    let quota = standing.quota.unwrap_or(u64::MAX);
    let detail = format!(
        "the account's quota is used up: {} of {} are used, and {} more were to be stored",
        size_text(standing.used),
        size_text(quota),
        size_text(wanted)
    );
    Refusal { quota: Some(Box::new((standing.used, quota))), ..Refusal::new(Code::QuotaExceeded, detail) }
}

/// How a commit meets the quota: one that puts nothing (deletions, pins) may use the reserve. A rotation, of which
/// there is one a vault after a revocation, and a repair, which the identity signed, are never refused.
pub fn allowance_of(changes: &Changes) -> Allowance {
    if changes.rotation().is_some() || changes.repair().is_some() {
        return Allowance::Always;
    }
    let puts = changes.0.iter().any(|change| matches!(change, Change::Put { .. }));
    if puts { Allowance::Quota } else { Allowance::Reserve }
}

/// The same of envelopes that are staged for a commit.
pub fn allowance_of_staged<'a>(envelopes: impl IntoIterator<Item = &'a [u8]>) -> Allowance {
    let is_deletion =
        |bytes: &[u8]| envelope::decode(bytes).is_ok_and(|(_, header)| header.kind == KIND_TOMBSTONE);
    if envelopes.into_iter().all(is_deletion) { Allowance::Reserve } else { Allowance::Quota }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: Standing = Standing { used: 90, spared: 0, quota: Some(100) };

    #[test]
    fn a_quota_is_met_to_the_byte() {
        assert_eq!(charge(FULL, 10, 0, Allowance::Quota).unwrap().used, 100);
        let refusal = charge(FULL, 11, 0, Allowance::Quota).unwrap_err();
        assert_eq!((refusal.code, refusal.quota), (Code::QuotaExceeded, Some(Box::new((90, 100)))));
        assert_eq!(charge(FULL, 50, 40, Allowance::Quota).unwrap().used, 100);
        assert_eq!(
            charge(Standing { quota: None, ..FULL }, u64::MAX, 0, Allowance::Quota).unwrap().spared,
            0
        );
    }

    #[test]
    fn the_reserve_has_an_end_and_comes_back() {
        let beyond = charge(FULL, 11, 0, Allowance::Reserve).unwrap();
        assert_eq!((beyond.used, beyond.spared), (101, 11));
        let end = charge(beyond, RESERVE_BYTES - 11, 0, Allowance::Reserve).unwrap();
        assert_eq!(charge(end, 1, 0, Allowance::Reserve).unwrap_err().code, Code::QuotaExceeded);
        assert_eq!(charge(end, 1, 0, Allowance::Always).unwrap().used, end.used + 1);
        assert_eq!(charge(end, 5, 5, Allowance::Quota).unwrap(), end, "nothing on balance is not refused");
        let freed = charge(end, 0, end.used, Allowance::Always).unwrap();
        assert_eq!((freed.used, freed.spared), (0, RESERVE_BYTES), "settled by the next write");
        assert_eq!(charge(freed, 1, 0, Allowance::Quota).unwrap().spared, 0);
        // A quota that was lowered far below what is used still lets deletions through.
        let lowered = Standing { used: 1 << 40, spared: 0, quota: Some(1) };
        assert!(charge(lowered, 1000, 0, Allowance::Reserve).is_ok());
        assert!(charge(lowered, 1, 0, Allowance::Quota).is_err());
    }
}
