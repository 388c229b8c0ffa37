//! What is refused of chains, one rule of section 6.3, 6.6 or 6.7 at a time.

use super::chain::{chain_input, far_rotation_to, gave_up, late, parted_input, repaired, rotated, with_pins};
use crate::vectors::json::signed_hex;
use crate::vectors::world::{A, B, C, WORLD, hash, put, tombstone};
use crate::vectors::{File, Reject};
use lockstep_client_crypto::vault::{Rotating, give_birth, sign_rotation};
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::commit::{Change, Changes, Commit, KIND_CHANGE, KIND_REPAIR, KIND_ROTATE, RepairPlace};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{AccountId, DeviceId, Epoch, Seq, VaultId};
use lockstep_proto::label;
use lockstep_proto::sign::Signed;
use lockstep_proto::vault_log::VaultLogEntry;
use serde_json::Value;

type Link = (Signed, Vec<u8>);

pub(super) fn reject() -> Vec<File> {
    vec![births(), changes(), rotations(), repairs(), pins(), parted()]
}

/// A chain of the first links and one more.
fn then(first: usize, link: Link) -> Value {
    let mut links = WORLD.plain[..first].to_vec();
    links.push(link);
    chain_input(&links)
}

fn births() -> File {
    let mut file = Reject::new("chain-birth", "chain", "4.1, 6.3");
    let sign = |label, device: usize, bytes: Vec<u8>| WORLD.devices[device].sign(label, bytes);
    let create = VaultLogEntry::decode(&WORLD.files.create.bytes.0).unwrap();
    let genesis = Commit::decode(&WORLD.files.genesis.bytes.0).unwrap();
    let birth = |create: &Signed, genesis: Signed| {
        let mut input = chain_input(&[(genesis, Changes::default().encode())]);
        input["create"] = signed_hex(create).into();
        input
    };
    let mut entry = |fault: &str, class: &str, change: &dyn Fn(&mut VaultLogEntry)| {
        let mut entry = create.clone();
        change(&mut entry);
        let signed = sign(label::VAULT_LOG_ENTRY, A, entry.encode());
        let mut commit = genesis.clone();
        commit.vault_log_head = signed.digest(label::VAULT_LOG_ENTRY);
        file.case(fault, birth(&signed, sign(label::COMMIT, A, commit.encode())), class);
    };
    entry("the creation is of another vault", "chain", &|entry| entry.vault = VaultId::from_bytes([1; 16]));
    entry("the creation is of another account", "chain", &|entry| {
        entry.account = AccountId::from_bytes([1; 16]);
    });
    entry("the creation names another identity", "chain", &|entry| entry.identity = Digest::ZERO);
    entry("the creation is by another device", "chain", &|entry| entry.device = WORLD.devices[B].id());
    entry("the creation names another place of the log", "chain", &|entry| entry.device_log_index = 1);
    entry("the creation is of kind 3: reserved", "malformed", &|entry| entry.kind = 3);
    let mut commit = |fault: &str, class: &str, change: &dyn Fn(&mut Commit)| {
        let mut commit = genesis.clone();
        change(&mut commit);
        file.case(fault, birth(&WORLD.files.create, sign(label::COMMIT, A, commit.encode())), class);
    };
    commit("the genesis is of another vault", "chain", &|commit| commit.vault = VaultId::from_bytes([1; 16]));
    commit("the genesis has a commit before it", "chain", &|commit| {
        commit.previous = Digest::from_bytes([1; 32]);
    });
    commit("the genesis has a skip link", "chain", &|commit| commit.skip = Digest::from_bytes([1; 32]));
    commit("the genesis is of epoch 2", "chain", &|commit| commit.epoch = Epoch::new(2));
    commit("the genesis names another creation", "chain", &|commit| commit.vault_log_head = Digest::ZERO);
    commit("the genesis names vault-log entry 1", "chain", &|commit| commit.vault_log_index = 1);
    commit("the genesis has changes", "chain", &|commit| commit.changes = Digest::ZERO);
    commit("the genesis has another state than the empty one", "chain", &|commit| {
        commit.state = Digest::ZERO;
    });
    commit("the genesis names another device log", "chain", &|commit| commit.device_log_head = Digest::ZERO);
    commit("the genesis names an entry that is not there", "chain", &|commit| commit.device_log_index = 99);
    commit("the genesis is by a device that is not there", "chain", &|commit| commit.device = DeviceId::ZERO);
    file.case(
        "the creation is signed by another device",
        birth(&sign(label::VAULT_LOG_ENTRY, B, create.encode()), WORLD.files.genesis.clone()),
        "signature",
    );
    file.case(
        "the genesis is signed by another device",
        birth(&WORLD.files.create, sign(label::COMMIT, B, genesis.encode())),
        "signature",
    );
    let revoked = give_birth(WORLD.files_id(), &WORLD.parent(4), &WORLD.devices[B]);
    file.case(
        "it is by a device that the log's entry revokes",
        birth(&revoked.create, revoked.genesis),
        "chain",
    );
    let early = give_birth(WORLD.files_id(), &WORLD.parent(0), &WORLD.devices[B]);
    file.case(
        "it is by a device that the log's entry does not know yet",
        birth(&early.create, early.genesis),
        "chain",
    );
    let list = (WORLD.files.genesis.clone(), Changes(vec![put(1, 1, &[])]).encode());
    file.case("the genesis comes with changes", chain_input(&[list]), "chain");
    file.case("there is no genesis", chain_input(&WORLD.plain[1..2]), "chain");
    file.file()
}

fn changes() -> File {
    let mut file = Reject::new("chain", "chain", "6.3");
    let chain = WORLD.chain(&WORLD.plain[..3]);
    let commit = |by, kind, list, tweak: &dyn Fn(&mut Commit)| WORLD.commit(&chain, by, kind, list, tweak);
    let mut tweak = |fault: &str, class: &str, tweak: &dyn Fn(&mut Commit)| {
        file.case(fault, then(3, commit((A, 2), KIND_CHANGE, vec![put(3, 1, &[])], tweak)), class);
    };
    tweak("another vault", "chain", &|commit| commit.vault = VaultId::from_bytes([1; 16]));
    tweak("a seq is left out", "chain", &|commit| commit.seq = Seq::new(4));
    tweak("the seq of the commit before", "chain", &|commit| commit.seq = Seq::new(2));
    tweak("another commit before it", "chain", &|commit| commit.previous = hash(&WORLD.plain[1].0));
    tweak("its skip link is zero", "chain", &|commit| commit.skip = Digest::ZERO);
    tweak("its skip link is another commit's", "chain", &|commit| commit.skip = hash(&WORLD.plain[1].0));
    tweak("epoch 2 without a rotation", "chain", &|commit| commit.epoch = Epoch::new(2));
    tweak("epoch 0", "chain", &|commit| commit.epoch = Epoch::new(0));
    tweak("a vault-log entry that is not there", "chain", &|commit| commit.vault_log_index = 1);
    tweak("another vault log", "chain", &|commit| commit.vault_log_head = Digest::ZERO);
    tweak("an older device-log entry than the commit before", "chain", &|commit| {
        (commit.device_log_index, commit.device_log_head) = (0, WORLD.parent(0).device_log_head);
    });
    tweak("a device-log entry that is not there", "chain", &|commit| commit.device_log_index = 99);
    tweak("another device log", "chain", &|commit| commit.device_log_head = WORLD.parent(1).device_log_head);
    tweak("another device's name", "signature", &|commit| commit.device = WORLD.devices[B].id());
    tweak("a device that is not there", "chain", &|commit| commit.device = DeviceId::ZERO);
    tweak("a device that is not enrolled yet", "chain", &|commit| commit.device = WORLD.devices[C].id());
    tweak("another change list", "chain", &|commit| commit.changes = Digest::ZERO);
    tweak("another state", "chain", &|commit| commit.state = Digest::ZERO);
    tweak("the state before it", "chain", &|commit| commit.state = chain.last().tip.state);
    tweak("kind 4, purge: a later draft", "malformed", &|commit| commit.kind = 4);
    tweak("a rotation's kind with a put", "chain", &|commit| commit.kind = KIND_ROTATE);
    tweak("a repair's kind with a put", "chain", &|commit| commit.kind = KIND_REPAIR);
    let mut list = |fault: &str, class: &str, changes: Vec<Change>| {
        file.case(fault, then(3, commit((A, 2), KIND_CHANGE, changes, &|_| {})), class);
    };
    list("no changes", "chain", Vec::new());
    list("a pin of a later commit", "chain", vec![Change::Pin(Seq::new(4))]);
    list("an unpin of a later commit", "chain", vec![Change::Unpin(Seq::new(400))]);
    list("a new record of revision 2", "chain", vec![put(3, 2, &[])]);
    list("a record's revision once more", "chain", vec![put(1, 2, &[])]);
    list("a record's revision after the next", "chain", vec![put(1, 4, &[])]);
    list("a tombstone of an unknown record, revision 2", "chain", vec![tombstone(9, 2)]);
    list("a tombstone's revision once more", "chain", vec![tombstone(2, 2)]);
    list(
        "a repair's list in a change",
        "chain",
        vec![Change::Abandon(Seq::new(1), Digest::ZERO), Change::Authority(ByteArray([0; 64]))],
    );
    list("records in the wrong order", "malformed", vec![put(4, 1, &[]), put(3, 1, &[])]);
    let good = commit((A, 2), KIND_CHANGE, vec![put(3, 1, &[])], &|_| {});
    file.case(
        "another list comes with it",
        then(3, (good.0.clone(), Changes(vec![put(4, 1, &[])]).encode())),
        "chain",
    );
    let other = WORLD.devices[B].sign(label::COMMIT, good.0.bytes.0.clone());
    file.case("signed by another device", then(3, (other, good.1.clone())), "signature");
    file.case("a commit is missing", chain_input(&[&WORLD.plain[..2], &WORLD.plain[3..]].concat()), "chain");
    file.case(
        "two commits are swapped",
        chain_input(&[0, 2, 1, 3].map(|place: usize| WORLD.plain[place].clone())),
        "chain",
    );
    file.case(
        "a commit comes twice",
        chain_input(&[0, 1, 1, 2].map(|place: usize| WORLD.plain[place].clone())),
        "chain",
    );
    let [first, second] = late();
    file.case("by a revoked device, beyond its pin", then(5, first.clone()), "chain");
    file.case(
        "by a revoked device, naming the revocation",
        then(5, WORLD.change(&WORLD.chain(&WORLD.plain), (B, 4), vec![put(9, 1, &[])])),
        "chain",
    );
    file.case(
        "two beyond the pin, and no repair",
        chain_input(&[WORLD.plain.clone(), vec![first, second]].concat()),
        "chain",
    );
    let knows = WORLD.change(&WORLD.chain(&WORLD.plain), (A, 4), vec![put(9, 1, &[])]);
    file.case("who knows of the revocation writes under the old key", then(5, knows), "chain");
    // Nothing at this place follows, and by the table of 6.3 it is Fork.
    file.or("another commit before it", "fork");
    // It is not signed by that device either.
    file.or("a device that is not enrolled yet", "signature");
    file.file()
}

fn rotations() -> File {
    let mut file = Reject::new("chain-rotation", "chain", "3.1, 6.3");
    let chain = WORLD.chain(&WORLD.plain);
    let rotate = |by, entry: Change, tweak: &dyn Fn(&mut Commit)| {
        WORLD.commit(&chain, by, KIND_ROTATE, vec![entry], tweak)
    };
    let good = WORLD.rotation(&chain, (A, 4));
    file.case(
        "no device was revoked as of the named entry",
        then(5, rotate((A, 3), WORLD.rotation(&chain, (A, 3)), &|_| {})),
        "chain",
    );
    let twice = [rotated()[..6].to_vec(), vec![WORLD.rotate(&WORLD.chain(&rotated()[..6]), (C, 5))]].concat();
    file.case("a second rotation for one revocation", chain_input(&twice), "chain");
    file.case(
        "by a revoked device",
        then(5, rotate((B, 3), WORLD.rotation(&chain, (B, 3)), &|_| {})),
        "chain",
    );
    let mut tweak = |fault: &str, class: &str, tweak: &dyn Fn(&mut Commit)| {
        file.case(fault, then(5, rotate((A, 4), good.clone(), tweak)), class);
    };
    tweak("the vault's epoch", "chain", &|commit| commit.epoch = Epoch::new(1));
    tweak("another epoch than its entry's", "chain", &|commit| commit.epoch = Epoch::new(3));
    tweak("the vault-log entry before", "chain", &|commit| commit.vault_log_index = 0);
    tweak("the vault-log entry after the next", "chain", &|commit| commit.vault_log_index = 2);
    tweak("another vault-log head", "chain", &|commit| commit.vault_log_head = Digest::ZERO);
    tweak("the state is another", "chain", &|commit| commit.state = Digest::ZERO);
    tweak("the kind of a change", "chain", &|commit| commit.kind = KIND_CHANGE);
    let beyond = Epoch::new(2 + (1 << 32));
    let far = rotate((A, 4), far_rotation_to(beyond), &|commit| commit.epoch = beyond);
    file.case("an epoch more than 2^32 later", then(5, far), "chain");
    let parent = WORLD.parent(4);
    let tip = chain.last().tip.clone();
    let rotating = Rotating {
        parent: &parent,
        index: tip.vault_log_index,
        head: tip.vault_log_head,
        epoch: Epoch::new(2),
    };
    let mut entry = |fault: &str, class: &str, signer: usize, change: &dyn Fn(&mut VaultLogEntry)| {
        let signed = sign_rotation(WORLD.files_id(), &rotating, &WORLD.devices[A]);
        let mut entry = VaultLogEntry::decode(&signed.bytes.0).unwrap();
        change(&mut entry);
        let signed = WORLD.devices[signer].sign(label::VAULT_LOG_ENTRY, entry.encode());
        file.case(fault, then(5, rotate((A, 4), Change::Rotate(Box::new(signed)), &|_| {})), class);
    };
    entry("its entry is of another vault", "chain", A, &|entry| entry.vault = VaultId::from_bytes([1; 16]));
    entry("its entry has another index", "chain", A, &|entry| entry.index = 2);
    entry("its entry has another entry before it", "chain", A, &|entry| entry.previous = Digest::ZERO);
    entry("its entry is of another account", "chain", A, &|entry| entry.account = AccountId::ZERO);
    entry("its entry names another identity", "chain", A, &|entry| entry.identity = Digest::ZERO);
    entry("its entry is of another epoch", "chain", A, &|entry| entry.epoch = Epoch::new(3));
    entry("its entry is by another device", "chain", A, &|entry| entry.device = WORLD.devices[C].id());
    entry("its entry names another place of the log", "chain", A, &|entry| entry.device_log_index = 5);
    entry("its entry is of kind 3: reserved", "malformed", A, &|entry| entry.kind = 3);
    entry("its entry is signed by another device", "signature", C, &|_| {});
    file.file()
}

/// The chain with the late commits and a repair made by parts.
fn repair(
    by: (usize, usize),
    says: &[Change],
    change: &dyn Fn(&mut RepairPlace),
    tweak: &dyn Fn(&mut Commit),
) -> Value {
    let mut links = WORLD.plain.clone();
    let good = WORLD.chain(&links);
    let mut whole = good.clone();
    for late in late() {
        whole.hashes.push(hash(&late.0));
        whole.after.push(None);
        links.push(late);
    }
    let mut from = good;
    from.hashes.clone_from(&whole.hashes);
    let mut place = RepairPlace {
        vault: WORLD.files_id(),
        seq: Seq::new(7),
        previous: *whole.hashes.last().unwrap(),
        device: WORLD.devices[by.0].id(),
    };
    change(&mut place);
    let mut list = says.to_vec();
    list.push(Change::Authority(WORLD.account.authorise_repair(&place, says)));
    links.push(WORLD.commit(&from, by, KIND_REPAIR, list, tweak));
    chain_input(&links)
}

fn repairs() -> File {
    let mut file = Reject::new("chain-repair", "chain", "6.3, 6.7");
    let back = |seq| vec![Change::GoBack(Seq::new(seq))];
    let known =
        crate::vectors::run::run("chain", repair((A, 4), &back(4), &|_| {}, &|_| {}).as_object().unwrap());
    assert!(known.is_ok(), "the repair is put together as the protocol says");
    file.case(
        "the authority is for another seq",
        repair((A, 4), &back(4), &|place| place.seq = Seq::new(6), &|_| {}),
        "chain",
    );
    file.case(
        "the authority is for another vault",
        repair((A, 4), &back(4), &|place| place.vault = VaultId::from_bytes([1; 16]), &|_| {}),
        "chain",
    );
    file.case(
        "the authority is for another author",
        repair((A, 4), &back(4), &|place| place.device = WORLD.devices[C].id(), &|_| {}),
        "chain",
    );
    file.case(
        "the authority is for another commit before it",
        repair((A, 4), &back(4), &|place| place.previous = Digest::ZERO, &|_| {}),
        "chain",
    );
    file.case("the author is revoked", repair((B, 3), &back(4), &|_| {}, &|_| {}), "chain");
    for seq in [5, 6, 7, 8] {
        file.case(
            &format!("it goes back to seq {seq}, which does not count"),
            repair((A, 4), &back(seq), &|_| {}, &|_| {}),
            "chain",
        );
    }
    file.case(
        "the state is not that of the commit it goes back to",
        repair((A, 4), &back(3), &|_| {}, &|_| {}),
        "chain",
    );
    file.case(
        "another state",
        repair((A, 4), &back(4), &|_| {}, &|commit| commit.state = Digest::ZERO),
        "chain",
    );
    file.case(
        "another skip link",
        repair((A, 4), &back(4), &|_| {}, &|commit| commit.skip = Digest::ZERO),
        "chain",
    );
    file.case(
        "a later epoch",
        repair((A, 4), &back(4), &|_| {}, &|commit| commit.epoch = Epoch::new(2)),
        "chain",
    );
    file.case(
        "another vault log",
        repair((A, 4), &back(4), &|_| {}, &|commit| commit.vault_log_index = 1),
        "chain",
    );
    file.case(
        "an older device-log entry than the commit it goes back to",
        repair((A, 2), &back(4), &|_| {}, &|_| {}),
        "chain",
    );
    let says =
        [Change::Abandon(Seq::new(5), hash(&late()[0].0)), Change::Abandon(Seq::new(6), hash(&late()[1].0))];
    file.case(
        "it names the commits that do not count, and does not go back",
        repair((A, 4), &says, &|_| {}, &|_| {}),
        "chain",
    );
    let links = repaired();
    let mut unsigned = links.clone();
    unsigned[7].0.signature = links[6].0.signature;
    file.case("the repair's signature is another commit's", chain_input(&unsigned), "chain");
    file.case(
        "a commit behind the repair is missing",
        chain_input(&[&links[..5], &links[6..]].concat()),
        "chain",
    );
    let mut back_to_late = links[..8].to_vec();
    let chain = WORLD.chain(&back_to_late);
    back_to_late.push(WORLD.repair(&chain, &chain, (A, 4), vec![Change::GoBack(Seq::new(5))]));
    file.case("a second repair goes back to what the first one gave up", chain_input(&back_to_late), "chain");
    file.file()
}

fn pins() -> File {
    let mut file = Reject::new("chain-pins", "chain", "3.1, 4.2, 6.5");
    let head = hash(&WORLD.plain[4].0);
    let case = |links: &[Link], seq, hash| with_pins(chain_input(links), &[(seq, hash)]);
    file.case("another commit in the pinned place", case(&WORLD.plain, 3, head), "fork");
    file.case("another commit in the place of the head", case(&WORLD.plain, 4, Digest::ZERO), "fork");
    file.case("another genesis", case(&WORLD.plain, 0, Digest::ZERO), "fork");
    file.case("the chain ends before the pin", case(&WORLD.plain[..4], 4, head), "rollback");
    let (held, other) = gave_up();
    file.case("the chain that parted, before its repair", case(&other[..4], 3, hash(&held[3].0)), "fork");
    file.case("a commit of a third chain is pinned", case(&other, 3, Digest::ZERO), "fork");
    file.file()
}

fn parted() -> File {
    let mut file = Reject::new("parted", "parted", "6.6, 6.7");
    let (held, other) = gave_up();
    file.case("the chain ends before what is held", parted_input(&held, &held[..4]), "rollback");
    file.case("there is nothing but the genesis", parted_input(&held, &held[..1]), "rollback");
    file.case("the chain parted, and has no repair", parted_input(&held[..4], &other[..4]), "fork");
    file.case(
        "the chain parted, is shorter, and has no repair",
        parted_input(&held, &other[..4]),
        "rollback",
    );
    let chain = WORLD.chain(&other[..4]);
    let says = vec![Change::Abandon(Seq::new(4), Digest::from_bytes([1; 32]))];
    let mut names_another = other[..4].to_vec();
    names_another.push(WORLD.repair(&chain, &chain, (A, 3), says));
    file.case("the repair names another head than is held", parted_input(&held, &names_another), "fork");
    let first = vec![Change::Abandon(Seq::new(3), hash(&held[3].0))];
    let mut names_first = other[..4].to_vec();
    names_first.push(WORLD.repair(&chain, &chain, (A, 3), first));
    file.case("the repair names a commit before the head alone", parted_input(&held, &names_first), "fork");
    file.case("the repair went, after it was held", parted_input(&other, &held), "rollback");
    file.file()
}
