//! Whole chains: golden files.

use crate::vectors::json::signed_hex;
use crate::vectors::world::{A, B, C, UTC, WORLD, hash, put, tombstone};
use crate::vectors::{File, Golden, hex};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::{Change, Commit};
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{Epoch, Seq};
use lockstep_proto::sign::Signed;
use serde_json::{Value, json};

type Link = (Signed, Vec<u8>);

/// The plain chain, then the rotation after the revocation, and a commit in the new epoch.
pub(super) fn rotated() -> Vec<Link> {
    let mut links = WORLD.plain.clone();
    links.push(WORLD.rotate(&WORLD.chain(&links), (A, 4)));
    links.push(WORLD.change(&WORLD.chain(&links), (C, 5), vec![tombstone(3, 2), put(4, 1, &[])]));
    links.push(WORLD.change(&WORLD.chain(&links), (A, 5), vec![Change::Pin(Seq::new(6))]));
    links
}

/// Two commits that B signed beyond the pin of its revocation.
pub(super) fn late() -> [Link; 2] {
    let chain = WORLD.chain(&WORLD.plain);
    let first = WORLD.change(&chain, (B, 3), vec![put(1, 3, &[])]);
    let mut ahead = chain.clone();
    ahead.hashes.push(hash(&first.0));
    ahead.after.push(None);
    let second = WORLD.change(&ahead, (B, 3), vec![put(5, 1, &[])]);
    [first, second]
}

/// A chain whose two late commits a repair goes back over, and which goes on in a new epoch.
pub(super) fn repaired() -> Vec<Link> {
    let mut links = WORLD.plain.clone();
    let good = WORLD.chain(&links);
    let mut whole = good.clone();
    for late in late() {
        whole.hashes.push(hash(&late.0));
        whole.after.push(None);
        links.push(late);
    }
    links.push(WORLD.repair(&whole, &good, (A, 4), vec![Change::GoBack(Seq::new(4))]));
    links.push(WORLD.rotate(&WORLD.chain(&links), (C, 5)));
    links.push(WORLD.change(&WORLD.chain(&links), (A, 5), vec![put(1, 3, &[])]));
    links
}

/// A chain that goes back over commits that count.
fn went_back() -> Vec<Link> {
    let mut links = WORLD.plain.clone();
    let whole = WORLD.chain(&links);
    let good = WORLD.chain(&links[..3]);
    links.push(WORLD.repair(&whole, &good, (A, 3), vec![Change::GoBack(Seq::new(2))]));
    links.push(WORLD.change(&WORLD.chain(&links), (A, 3), vec![put(3, 1, &[6])]));
    links
}

/// A chain that a reader holds, and another that parted from it after seq 2 and gives its commits up.
pub(super) fn gave_up() -> (Vec<Link>, Vec<Link>) {
    let held = WORLD.plain.clone();
    let mut other = held[..3].to_vec();
    other.push(WORLD.change(&WORLD.chain(&other), (C, 3), vec![put(6, 1, &[])]));
    let chain = WORLD.chain(&other);
    let says = [3, 4].map(|seq| Change::Abandon(Seq::new(seq), hash(&held[usize::try_from(seq).unwrap()].0)));
    other.push(WORLD.repair(&chain, &chain, (A, 3), says.to_vec()));
    other.push(WORLD.change(&WORLD.chain(&other), (A, 3), vec![put(3, 1, &[])]));
    (held, other)
}

pub(super) fn links_value(links: &[Link]) -> Value {
    links.iter().map(|(signed, changes)| json!([signed_hex(signed), hex(changes)])).collect()
}

pub(super) fn chain_input(links: &[Link]) -> Value {
    json!({
        "identity": hex(WORLD.identity()),
        "log": (0..WORLD.log.len()).collect::<Vec<_>>(),
        "vault": hex(WORLD.files_id().as_bytes()),
        "create": signed_hex(&WORLD.files.create),
        "commits": links_value(links),
        "pins": [],
    })
}

pub(super) fn with_pins(mut input: Value, pins: &[(u64, Digest)]) -> Value {
    input["pins"] = pins.iter().map(|(seq, hash)| json!([seq, hex(hash.as_bytes())])).collect();
    input
}

fn places(links: &[Link]) -> Vec<(u64, Digest)> {
    (0_u64..).zip(links).map(|(seq, link)| (seq, hash(&link.0))).collect()
}

/// Places of a chain's commits of which a reader reads the links only.
fn unread(input: &Value, out_abandoned: &Value) -> Value {
    let abandoned = out_abandoned.as_array().unwrap();
    let commits = input["commits"].as_array().unwrap();
    let hash_of = |link: &Value| {
        let signed = Signed::decode(&crate::vectors::unhex(link[0].as_str().unwrap()).unwrap()).unwrap();
        Value::String(hex(Commit::hash_of(&signed.bytes.0).as_bytes()))
    };
    let places = commits.iter().enumerate().filter(|(_, link)| abandoned.contains(&hash_of(link)));
    places.map(|(place, _)| place).collect()
}

pub(super) fn golden() -> Vec<File> {
    vec![chains(), repairs(), parted()]
}

fn chains() -> File {
    let about = "Chains of one vault: changes by three devices, pins, a revocation and the rotation after it";
    let mut file = Golden::new("chain", "chain", "6.1 to 6.3", about)
        .sealed(&["identity", "vault", "create", "commits"]);
    let known = |seq: u64, epoch: u64| json!({ "seq": seq, "epoch": epoch, "abandoned": [] });
    file.case("genesis alone", chain_input(&WORLD.plain[..1]), known(0, 1));
    let plain = with_pins(chain_input(&WORLD.plain), &places(&WORLD.plain));
    file.case("five commits, with a pin on each", plain, known(4, 1));
    let links = rotated();
    file.case("through a rotation", with_pins(chain_input(&links), &places(&links)[5..6]), known(7, 2));
    let far = WORLD.commit(&WORLD.chain(&WORLD.plain), (A, 4), 3, vec![far_rotation()], |commit| {
        commit.epoch = far_epoch();
        commit.utc = UTC;
    });
    let links = [WORLD.plain.clone(), vec![far]].concat();
    let known = json!({ "epoch": far_epoch().value() });
    file.case("a rotation as far on as it may go", chain_input(&links), known);
    file.file()
}

fn far_epoch() -> Epoch {
    Epoch::new(1 + (1 << 32))
}

/// The entry of a rotation whose epoch is 2^32 later.
fn far_rotation() -> Change {
    far_rotation_to(far_epoch())
}

/// The entry of a rotation to any epoch.
pub(super) fn far_rotation_to(epoch: Epoch) -> Change {
    use lockstep_client_crypto::vault::{Rotating, sign_rotation};
    let tip = &WORLD.chain(&WORLD.plain).last().tip.clone();
    let parent = &WORLD.parent(4);
    let rotating = Rotating { parent, index: tip.vault_log_index, head: tip.vault_log_head, epoch };
    Change::Rotate(Box::new(sign_rotation(WORLD.files_id(), &rotating, &WORLD.devices[A])))
}

fn repairs() -> File {
    let about = "Chains with repairs; of the commits in `unread` (places in `commits`) only the links are read, so that \
                 their signatures and change lists may be anything";
    let mut file =
        Golden::new("chain-repair", "chain", "6.3, 6.7", about).sealed(&["identity", "create", "commits"]);
    for (name, links, pin) in [
        ("back over what a revoked device wrote late", repaired(), 5),
        ("back over commits that count", went_back(), 4),
    ] {
        let input = with_pins(chain_input(&links), &[(pin, hash(&links[usize::try_from(pin).unwrap()].0))]);
        let out = crate::vectors::run::run("chain", input.as_object().unwrap()).unwrap();
        let unread = unread(&input, &out["abandoned"]);
        file.case_with(name, input, out, "unread", unread);
    }
    let (held, other) = gave_up();
    let input = with_pins(chain_input(&other), &places(&held)[3..5]);
    file.case_with("pins on commits that a repair gives up", input, json!({ "seq": 5 }), "unread", json!([]));
    file.file()
}

pub(super) fn parted_input(held: &[Link], commits: &[Link]) -> Value {
    let mut input = chain_input(commits);
    input.as_object_mut().unwrap().remove("pins");
    input["held"] = links_value(held);
    input
}

fn parted() -> File {
    let about = "What a reader that verified `held` takes";
    let mut file = Golden::new("parted", "parted", "6.6, 6.7", about).sealed(&["identity", "create"]);
    let (held, other) = gave_up();
    file.case("the same chain", parted_input(&held, &held), json!({ "seq": 4 }));
    file.case("a longer chain", parted_input(&held[..2], &held), json!({ "seq": 4 }));
    file.case(
        "a chain that parted and gives up what is held",
        parted_input(&held, &other),
        json!({ "seq": 5 }),
    );
    file.case("the repair itself is held", parted_input(&other[..5], &other), json!({ "seq": 5 }));
    file.file()
}
