//! What a repair goes back over: only what devices of the account really wrote comes back from there, all of it, and
//! whatever the server says in between. The server here is restored to a copy that does not know of a revocation, and
//! shows things of its own making.

use crate::heal::{heal, heal_with_cuts};
use crate::proxy::{Cut, Proxy};
use crate::revoke::{login_as, revoke};
use crate::world::{Device, World};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE};
use lockstep_proto::device_log::DeviceLogEntry;
use lockstep_proto::envelope;
use lockstep_proto::id::{Epoch, RecordId, Revision, Seq, VaultId};
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{DeviceId, Digest};

/// The owner's device, a good one, and one that was revoked and writes all the same: the server forgot it.
struct Forgotten {
    world: World,
    owner: Device,
    good: Device,
    revoked: Device,
}

fn forgotten(mut world: World) -> Forgotten {
    let owner = world.signup("a");
    let (revoked, good) = (login_as(&world, "b"), login_as(&world, "c"));
    owner.put("x", "\"old\"").ok();
    owner.put("x", "\"new\"").ok();
    for device in [&good, &revoked] {
        assert_eq!(device.get("x"), "\"new\"");
    }
    let copy = world.path("copy");
    world.server.back_up(&copy);
    revoke(&world, &owner, "b").ok();
    owner.put("n", "\"today\"").ok();
    world.server.put_back(&copy, true, true);
    revoked.put("late", "\"of a device that was revoked\"").ok();
    Forgotten { world, owner, good, revoked }
}

fn digest(bytes: Vec<u8>) -> Digest {
    Digest::from_bytes(bytes.try_into().unwrap())
}

pub(crate) fn number(value: i64) -> u64 {
    value.try_into().unwrap()
}

/// The record that was written twice, and its first envelope.
fn old_version(world: &World) -> (Vec<u8>, Vec<u8>) {
    let text =
        "SELECT l.record, v.envelope FROM live l JOIN version v ON v.vault = l.vault AND v.record = l.record
                JOIN vault k ON k.id = l.vault
                WHERE k.is_keyring = 0 AND l.revision >= 2 AND v.revision = 1";
    world.server.database().query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

/// Key, seq, head, epoch, log index, log head and id of a vault.
type HeadRow = (i64, i64, Vec<u8>, i64, i64, Vec<u8>, Vec<u8>);

/// The server puts a commit on the chain that claims to be by a device; gives what takes it away again.
fn make_up(world: &World, device: DeviceId, record: &[u8], old: &[u8]) -> Vec<String> {
    let database = world.server.database();
    let text = "SELECT id, seq, head, epoch, log_index, log_head, vault FROM vault WHERE is_keyring = 0";
    let row: HeadRow = database
        .query_row(text, [], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
        })
        .unwrap();
    let (key, last, head, epoch, log_index, log_head, vault) = row;
    let seq = Seq::new(number(last)).next();
    let target = i64::try_from(seq.skip_target().value()).unwrap();
    let text = "SELECT hash FROM commit_header WHERE vault = ?1 AND seq = ?2";
    let skip: Vec<u8> = database.query_row(text, [key, target], |row| row.get(0)).unwrap();
    let text = "SELECT bytes, hash FROM device_log ORDER BY position DESC";
    let entry: (Vec<u8>, Vec<u8>) =
        database.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let id = RecordId::from_bytes(record.try_into().unwrap());
    let envelope = envelope::digest(old);
    let changes =
        Changes(vec![Change::Put { record: id, revision: Revision::new(3), envelope, blobs: Vec::new() }])
            .encode();
    let commit = Commit {
        version: VERSION,
        suite: SUITE,
        vault: VaultId::from_bytes(vault.try_into().unwrap()),
        seq,
        previous: digest(head.clone()),
        skip: digest(skip),
        kind: KIND_CHANGE,
        epoch: Epoch::new(number(epoch)),
        device,
        device_log_index: DeviceLogEntry::decode(&entry.0).unwrap().index,
        device_log_head: digest(entry.1),
        vault_log_index: number(log_index),
        vault_log_head: digest(log_head),
        utc: 1,
        changes: Changes::digest_of(&changes),
        state: Digest::ZERO,
    };
    let bytes = commit.encode();
    let hash = Commit::hash_of(&bytes);
    let literal = |bytes: &[u8]| world.server.literal(bytes);
    world.server.change(&format!(
        "INSERT INTO commit_header (vault, seq, hash, bytes, signature, changes) VALUES ({key}, {seq}, {}, {}, {}, {})",
        literal(hash.as_bytes()),
        literal(&bytes),
        literal(&[0; 64]),
        literal(&changes),
    ));
    world.server.change(&format!(
        "INSERT INTO version (vault, seq, record, revision, kind, digest, envelope) VALUES ({key}, {seq}, {}, 3, 1, {}, {})",
        literal(record),
        literal(envelope.as_bytes()),
        literal(old),
    ));
    let set_head = |seq: Seq, head: &[u8]| {
        format!("UPDATE vault SET seq = {seq}, head = {} WHERE id = {key}", literal(head))
    };
    world.server.change(&set_head(seq, hash.as_bytes()));
    vec![
        format!("DELETE FROM commit_header WHERE vault = {key} AND seq = {seq}"),
        format!("DELETE FROM version WHERE vault = {key} AND seq = {seq}"),
        set_head(Seq::new(number(last)), &head),
    ]
}

/// Behind a commit that does not count the server puts one of its own, which claims a good author and brings an old
/// version back: it would go out under the owner's signature.
#[test]
fn what_nobody_signed_is_not_carried_over() {
    let one = forgotten(World::new());
    let claimed: DeviceId = crate::revoke::id_of(&one.good).parse().unwrap();
    let (record, old) = old_version(&one.world);
    let undo = make_up(&one.world, claimed, &record, &old);
    heal(&one.world, &one.owner).ends(6, &["is not signed"]);
    // The old version is nowhere, and nothing was signed over what the server made up.
    let text = "SELECT count(*) FROM version WHERE abandoned IS NOT NULL";
    let abandoned: i64 = one.world.server.database().query_row(text, [], |row| row.get(0)).unwrap();
    assert_eq!(abandoned, 0);
    for statement in undo {
        assert_eq!(one.world.server.change(&statement), 1, "{statement}");
    }
    heal(&one.world, &one.owner).ok();
    for device in [&one.owner, &one.good] {
        device.ok(&["status"]);
        assert_eq!(device.get("x"), "\"new\"");
        assert_eq!(device.get("n"), "\"today\"");
    }
    one.revoked.run(&["status"]).ends(5, &[]);
}

/// A commit of a good device was skipped with others; the server gives another envelope than the one that it names.
#[test]
fn what_is_not_as_it_was_announced_is_not_carried_over() {
    let one = forgotten(World::new());
    let (record, old) = old_version(&one.world);
    one.good.put("x", "\"newest\"").ok();
    one.good.put("y", "\"kept\"").ok();
    let changed = one.world.server.change(&format!(
        "UPDATE version SET envelope = {} WHERE record = {} AND revision = 3",
        one.world.server.literal(&old),
        one.world.server.literal(&record),
    ));
    assert_eq!(changed, 1);
    heal(&one.world, &one.owner).ends(3, &[]);
    for device in [&one.owner, &one.good] {
        device.ok(&["status"]);
        assert_eq!(device.get("x"), "\"new\"");
        assert_eq!(device.get("y"), "\"kept\"");
        device.run(&["record", "get", "--type", "note", "--id", "late"]).ends(11, &[]);
    }
    let kept = one.owner.ok(&["--json", "heal", "--review"]).json().to_string();
    assert!(kept.contains("of a device that was revoked") && !kept.contains("\"old\""), "{kept}");
    heal(&one.world, &one.owner).ok();
}

/// The same behind a proxy; a good device wrote behind the commit that does not count.
fn with_good_writes() -> (Forgotten, Proxy, VaultId) {
    let (world, proxy) = Proxy::with_world();
    let one = forgotten(world);
    one.good.put("good", "\"of a device that was not\"").ok();
    one.good.put("x", "\"newest\"").ok();
    let vault = files_of(&one.world);
    (one, proxy, vault)
}

pub(crate) fn files_of(world: &World) -> VaultId {
    let text = "SELECT vault FROM vault WHERE is_keyring = 0";
    let vault: Vec<u8> = world.server.database().query_row(text, [], |row| row.get(0)).unwrap();
    VaultId::from_bytes(vault.try_into().unwrap())
}

#[track_caller]
fn all_is_carried_over(one: &Forgotten) {
    for device in [&one.owner, &one.good] {
        device.ok(&["status"]);
        assert_eq!(device.get("n"), "\"today\"");
        assert_eq!(device.get("good"), "\"of a device that was not\"");
        assert_eq!(device.get("x"), "\"newest\"");
        device.run(&["record", "get", "--type", "note", "--id", "late"]).ends(11, &[]);
    }
    let kept = one.owner.ok(&["--json", "heal", "--review"]).json();
    assert!(kept.to_string().contains("of a device that was revoked"), "{kept}");
    let done = heal(&one.world, &one.owner).ok();
    assert!(done.out.contains("nothing to heal"), "{done:#?}");
    assert_eq!(one.good.get("x"), "\"newest\"");
}

/// The repair arrives and its answer does not, or nothing after it goes through, or the envelopes do not come: the next
/// run carries over what the first one had looked at.
#[test]
fn a_repair_that_is_the_last_that_arrives_loses_nothing() {
    for which in 0..4 {
        let (one, proxy, vault) = with_good_writes();
        let commits: &'static str = format!("POST /v1/vaults/{vault}/commits HTTP").leak();
        let envelopes: &'static str = format!("POST /v1/vaults/{vault}/envelopes/get HTTP").leak();
        let cut = match which {
            0 => Cut::After(commits),
            1 => Cut::Before(commits),
            2 => Cut::After(envelopes),
            _ => Cut::Before(envelopes),
        };
        let before = proxy.cuts();
        proxy.cut(cut.clone(), u64::MAX);
        let done = heal(&one.world, &one.owner);
        assert!(proxy.cuts() > before && done.status != Some(0), "{cut:?}: {done:#?}");
        proxy.heal();
        heal(&one.world, &one.owner).ok();
        all_is_carried_over(&one);
    }
}

/// Cut off further and further on, with what the runs before had done already.
#[test]
fn what_is_carried_over_outlives_a_cut_at_any_request() {
    let (one, proxy, _) = with_good_writes();
    heal_with_cuts(&one.world, &proxy, &one.owner, 3, |broken| broken % 2 == 0).ok();
    all_is_carried_over(&one);
}
