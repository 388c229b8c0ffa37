//! What must hold once everything is quiet: invariants 1 to 5 and 8 of docs/RELIABILITY.md. Invariant 7 and the links of
//! chains are looked at as things happen, in `ledger` and `world`.

use crate::documents;
use crate::fixture::FIXTURE;
use crate::ledger::{Ledger, Operation};
use crate::world::World;
use lockstep_client_crypto::content::Content;
use lockstep_engine::effect::Input;
use lockstep_engine::read;
use lockstep_engine::replica::{Base, Policy};
use lockstep_proto::envelope::{KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{OperationId, RecordId, Revision, Seq};
use std::collections::BTreeMap;

type Outcome = Result<(), String>;

/// A committed version, opened.
pub(crate) struct Committed {
    seq: Seq,
    record: RecordId,
    revision: Revision,
    pub(crate) kind: u8,
    pub(crate) content: Content,
}

/// All checks.
pub(crate) fn all(world: &mut World) -> Outcome {
    replicas_equal_the_server(world)?;
    if world.has_repairs {
        every_write_is_somewhere(world)?;
        return next_sync_does_nothing(world);
    }
    let versions = open_all(world)?;
    let operations = by_operation(&versions, &world.ledger)?;
    what_was_pushed_is_there(&versions, &operations, &world.ledger)?;
    no_lost_update(&versions, &operations, &world.ledger)?;
    nothing_is_lost(&versions, &operations, &world.ledger)?;
    let newest = newest(&versions);
    devices_read_the_model(world, &newest)?;
    let places = |operation: &OperationId| {
        operations.get(operation).into_iter().flatten().map(|place| place.0).collect::<Vec<_>>()
    };
    documents::check(world, &newest, &places)?;
    next_sync_does_nothing(world)
}

/// Every committed version: where it lies, and of which write it is.
pub(crate) fn shape(world: &World) -> Vec<String> {
    let opened = open_all(world).unwrap_or_default();
    let lines = opened.values().map(|version| {
        let Committed { seq, record, revision, kind, content } = version;
        format!("{seq} {record} {revision} {kind} {}", content.operation)
    });
    lines.collect()
}

fn demand(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(what()) }
}

fn replicas_equal_the_server(world: &World) -> Outcome {
    let server = &world.server;
    let first = &world.devices[0].replica;
    for (index, device) in world.devices.iter().enumerate() {
        let replica = &device.replica;
        let head = replica.head.as_ref().ok_or("a device has no head")?;
        demand(head.tip == server.tip && head.state == server.state, || {
            format!("device {index} stands at {}, the server at {}", head.tip.seq, server.tip.seq)
        })?;
        demand(replica.pending.is_empty() && replica.in_flight.is_none(), || {
            format!("device {index} still has pending writes or a commit in flight")
        })?;
        demand(replica.staged.is_empty(), || format!("device {index} keeps staged envelopes"))?;
        demand((0..=head.tip.seq.value()).map(Seq::new).eq(replica.commits.keys().copied()), || {
            format!("device {index} has gaps in its commits")
        })?;
        demand(
            replica.commits.values().map(|(hash, ..)| hash).eq(server.commits.iter().map(|c| &c.2)),
            || format!("device {index} holds other commits than the server"),
        )?;
        let rows = replica.records.values().map(|held| &held.row);
        demand(rows.clone().all(|row| row.present), || format!("device {index} lacks an envelope"))?;
        let live = server.live.iter().map(|(record, live)| (*record, live.revision, live.digest, live.seq));
        demand(rows.map(|row| (row.record, row.revision, row.digest, row.seq)).eq(live), || {
            format!("device {index} holds other records than the server")
        })?;
        demand(replica.records == first.records && replica.versions == first.versions, || {
            format!("devices 0 and {index} differ")
        })?;
    }
    Ok(())
}

fn open_all(world: &World) -> Result<BTreeMap<(RecordId, Revision), Committed>, String> {
    let mut versions = BTreeMap::new();
    for ((seq, record), version) in &world.server.versions {
        let opened = FIXTURE.later_keys.open(&version.envelope).map_err(|error| error.to_string())?;
        let (revision, kind) = (version.revision, version.kind);
        let committed = Committed { seq: *seq, record: *record, revision, kind, content: opened.content };
        let is_new = versions.insert((*record, revision), committed).is_none();
        demand(is_new, || format!("record {record} has revision {revision} twice"))?;
    }
    Ok(versions)
}

/// Where the owner gave commits up there are revisions twice; what was written is still all there.
fn every_write_is_somewhere(world: &World) -> Outcome {
    let opened =
        world.server.versions.values().filter_map(|version| FIXTURE.keys.open(&version.envelope).ok());
    let held: Vec<OperationId> = opened.map(|opened| opened.content.operation).collect();
    for operation in world.ledger.operations.keys() {
        demand(held.contains(operation), || format!("operation {operation} is lost"))?;
    }
    Ok(())
}

type Versions = BTreeMap<(RecordId, Revision), Committed>;
/// Where the writes came to be committed: each at one place, but for those that a copy of their device had too.
type Places = BTreeMap<OperationId, Vec<(RecordId, Revision)>>;

fn by_operation(versions: &Versions, ledger: &Ledger) -> Result<Places, String> {
    let mut places = Places::new();
    for (place, version) in versions {
        let operation = version.content.operation;
        let known = places.entry(operation).or_default();
        known.push(*place);
        demand(known.len() == 1 || ledger.doubled.contains(&operation), || {
            format!("operation {operation} is committed twice")
        })?;
    }
    Ok(places)
}

/// Where a device said that its write is durable, the server has it.
fn what_was_pushed_is_there(versions: &Versions, places: &Places, ledger: &Ledger) -> Outcome {
    for (operation, seq) in &ledger.pushed {
        let at = places.get(operation).into_iter().flatten().map(|place| versions[place].seq);
        demand(at.into_iter().any(|at| at == *seq), || {
            format!("operation {operation} was said to be pushed in commit {seq} and is not there")
        })?;
    }
    Ok(())
}

type Newest<'a> = BTreeMap<RecordId, &'a Committed>;

fn newest(versions: &Versions) -> Newest<'_> {
    // Revisions of a record ascend: the last one stays.
    versions.values().map(|version| (version.record, version)).collect()
}

/// A device reads of every record what its newest version says; the others hold the same rows and envelopes.
fn devices_read_the_model(world: &World, newest: &Newest<'_>) -> Outcome {
    let replica = &world.devices[world.seed as usize % world.devices.len()].replica;
    for (record, version) in newest {
        let read = read::current(replica, &FIXTURE.later_keys, *record);
        let found = read.map_err(|error| error.to_string())?.map(|current| current.content);
        let expected = (version.kind == KIND_DOCUMENT).then_some(&version.content);
        demand(found.as_ref() == expected, || {
            format!("record {record} reads otherwise than it was committed")
        })?;
    }
    Ok(())
}

/// Every version was written by somebody who knew the one before; so no deletion comes back, and no
/// edit disappears under another, by itself.
fn no_lost_update(versions: &Versions, places: &Places, ledger: &Ledger) -> Outcome {
    for ((record, revision), version) in versions {
        let content = &version.content;
        demand(content.base_revision.next() == *revision, || {
            format!("record {record}: revision {revision} names base {}", content.base_revision)
        })?;
        let operation = ledger
            .operations
            .get(&content.operation)
            .ok_or_else(|| format!("revision {revision} of record {record} was written by nobody"))?;
        let written = (operation.kind, &operation.document, operation.hlc);
        // What is merged goes on with other contents: `documents` says what must be in them.
        let is_merged = operation.policy == Policy::Merge && operation.hlc == content.hlc;
        demand(is_merged || (version.kind, &content.document.0, content.hlc) == written, || {
            format!("revision {revision} of record {record} is not what was written")
        })?;
        if is_merged {
            continue;
        }
        if *record != operation.record {
            copy_is_named(version, operation)?;
            continue;
        }
        // A copy of the device may have brought it, or what it stands on, to another place.
        let is_doubled = ledger.doubled.contains(&content.operation);
        if operation.policy == Policy::Overwrite || is_doubled {
            continue;
        }
        let seen: Vec<Revision> = match operation.base {
            Base::Revision(seen) => vec![seen],
            Base::Pending(before) => {
                let places = places.get(&before).into_iter().flatten();
                places.filter(|place| place.0 == *record).map(|place| place.1).collect()
            }
        };
        let below = revision.value().checked_sub(1).map(Revision::new);
        let below = below.and_then(|below| versions.get(&(*record, below)));
        let says = |kind: u8, document: &[u8]| {
            below.is_some_and(|below| (below.kind, &below.content.document.0[..]) == (kind, document))
        };
        // What stands on a write that says what the committed version says, by whomever, stands on that one.
        let stands_on_equal = match operation.base {
            Base::Revision(_) => false,
            Base::Pending(before) => {
                ledger.operations.get(&before).is_some_and(|before| says(before.kind, &before.document))
            }
        };
        // Nothing disappears under a write that says what the version before it says: a deletion lost to an edit, and what
        // was written upon it is that edit again.
        let says_the_same = says(version.kind, &content.document.0);
        let stands = seen.is_empty()
            || stands_on_equal
            || says_the_same
            || seen.iter().any(|seen| seen.next() == *revision);
        demand(stands, || {
            format!("record {record}: revision {revision} was written upon {seen:?} by {}", content.operation)
        })?;
    }
    Ok(())
}

fn copy_is_named(version: &Committed, operation: &Operation) -> Outcome {
    let name = &version.content.name.0;
    let stem = name.len().checked_sub(17).map(|end| name.split_at(end));
    let is_copy = stem.is_some_and(|(stem, suffix)| suffix[0] == 0 && stem == stem_of(&operation.name, stem));
    demand(is_copy && version.content.conflict_of().is_some(), || {
        format!("record {} holds a write of record {} and is no copy of it", version.record, operation.record)
    })
}

/// A name, or, if it is a copy's, the name without the suffix: both may stand before a copy's suffix.
fn stem_of<'a>(name: &'a [u8], expected: &[u8]) -> &'a [u8] {
    if name == expected { name } else { name.get(..expected.len()).unwrap_or_default() }
}

/// Every durable write is committed, or it lost in a way that its policy allows.
fn nothing_is_lost(versions: &Versions, places: &Places, ledger: &Ledger) -> Outcome {
    demand(ledger.stored.iter().all(|operation| ledger.operations.contains_key(operation)), || {
        "something was reported as stored that never was".into()
    })?;
    for (id, operation) in &ledger.operations {
        if places.contains_key(id) || ledger.forgotten.contains(id) {
            continue;
        }
        let others = || {
            let same_name = |version: &&Committed| {
                version.content.record_type == operation.record_type
                    && first_part(&version.content.name.0) == first_part(&operation.name)
            };
            versions.values().filter(same_name)
        };
        let is_accounted_for = match operation.policy {
            Policy::Overwrite => false,
            // `documents` looks for it.
            Policy::Merge => true,
            Policy::AdoptCommitted => others().next().is_some(),
            Policy::KeepBoth if operation.kind == KIND_TOMBSTONE => {
                let seen = match operation.base {
                    Base::Revision(seen) => seen,
                    Base::Pending(_) => Revision::new(0),
                };
                let mut later = others().filter(|version| version.content.operation != *id);
                later.any(|version| version.record != operation.record || version.revision > seen)
            }
            Policy::KeepBoth => others().any(|version| version.content.document.0 == operation.document),
        };
        demand(is_accounted_for, || {
            format!("operation {id} of device {} is lost: {operation:?}", operation.device)
        })?;
    }
    Ok(())
}

fn first_part(name: &[u8]) -> &[u8] {
    name.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn next_sync_does_nothing(world: &mut World) -> Outcome {
    for index in 0..world.devices.len() {
        let (before, effects) = (world.devices[index].replica.clone(), world.effects);
        world.input(index, Input::Sync);
        world.drain(100);
        let is_idle = !world.devices[index].engine.is_busy();
        demand(is_idle && world.effects == effects + 1 && world.devices[index].replica == before, || {
            format!("the next sync of device {index} does something")
        })?;
    }
    Ok(())
}
