//! Chains: whatever commits and change lists come, in whatever order, what is accepted is the chain that was written.

use super::edit::Input;
use super::fixture::{Link, fixture};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::chain::{Owner, Tip, verify_birth, verify_changes, verify_kind, verify_next};
use lockstep_proto::hash::Digest;
use lockstep_proto::sign::Signed;

/// Whether a commit goes on a chain, and the tip after it.
fn next(tip: &Tip, hashes: &[Digest], commit: &Signed, changes: &[u8]) -> Option<Tip> {
    let fixture = fixture();
    let skip = tip.seq.next().skip_target().value();
    let skip = hashes.get(usize::try_from(skip).ok()?)?;
    let verified = verify_next(tip, *skip, &fixture.log, commit).ok()?;
    let changes = verify_changes(verified.commit(), changes).ok()?;
    let owner = Owner { account: fixture.account, identity: &fixture.identity };
    verify_kind(tip, owner, &fixture.log, &verified, &changes).ok()?;
    Some(verified.tip())
}

/// Steps: each takes a link of the real chain, or bytes of the input, spoils it, and tries to append it.
pub(super) fn target(data: &[u8]) {
    let fixture = fixture();
    let chain = &fixture.chain;
    let mut input = Input(data);
    let (mut create, mut genesis) = (fixture.birth.create.encode(), fixture.birth.genesis.encode());
    if input.byte() & 1 == 1 {
        input.spoil(&mut create);
        input.spoil(&mut genesis);
    }
    let is_real = create == fixture.birth.create.encode() && genesis == fixture.birth.genesis.encode();
    let (Ok(create), Ok(genesis)) = (Signed::decode(&create), Signed::decode(&genesis)) else { return };
    let born =
        verify_birth(fixture.vault, fixture.account, &fixture.identity, &fixture.log, &create, &genesis);
    assert_eq!(born.is_ok(), is_real, "only the real birth is one");
    let Ok(born) = born else { return };
    let mut tip = born.tip();
    let mut hashes = vec![tip.hash];
    while !input.is_empty() && hashes.len() <= chain.len() {
        let which = usize::from(input.byte());
        let expected = &chain[hashes.len() - 1];
        let Link { commit, changes } = chain.get(which).unwrap_or(expected);
        let (mut commit, mut changes) = (commit.encode(), changes.clone());
        if input.byte() & 1 == 1 {
            input.spoil(&mut commit);
            input.spoil(&mut changes);
        }
        let is_next = commit == expected.commit.encode() && changes == expected.changes;
        let Ok(commit) = Signed::decode(&commit) else { continue };
        let after = next(&tip, &hashes, &commit, &changes);
        assert_eq!(after.is_some(), is_next, "only the next commit goes on");
        if let Some(after) = after {
            hashes.push(after.hash);
            tip = after;
        }
    }
}
