//! Rows 11 to 14: what is changed, rolled back, forked and hidden.

use crate::scene::{
    assert_told, copied, dump, keyring_of, lagging, login_as, refuses, refuses_joining, vault_of,
    world_behind, writes,
};
use crate::world::{Device, NAME, World};
use lockstep_proto::api::server::ServerInfo;
use lockstep_proto::api::vault::{CommitEntry, Page, PushCommit};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::id::RecordId;
use lockstep_tests::hostile::scenario::chain::METADATA;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Hostile, Rule};

const NOT_VALID: &str = "not valid";
const BACK: &[&str] = &["went back in time"];
const LIST: &[&str] = &["record", "list", "--type", "note"];

/// Every field that the server writes itself: what is shown is what is shown without the lie, or nothing is. Which of them are
/// refused is said by name: those that something that was signed contradicts.
#[test]
fn row_11_every_field_that_the_server_writes() {
    let (world, hostile) = world_behind();
    let (a, b) = lagging(&world);
    let honest = copied(&b, "honest").ok(LIST).out;
    assert!(honest.contains('m') && honest.contains('n'));
    // Of the vault that is ahead of this device, and of the keyring, which is not.
    let (files, keyring) = (vault_of(&a, "files"), keyring_of(&hostile).to_string());
    let of_files = (0..).zip(METADATA).map(|(at, field)| (at, field, &files));
    let of_keyring = (0..).zip(METADATA).skip(7).map(|(at, field)| (at, field, &keyring));
    let mut refused = Vec::new();
    for (at, field, vault) in of_files.chain(of_keyring) {
        let one = copied(&b, "lied-to");
        let before = dump(&one);
        hostile.forget();
        let of = At { at, vault: Some(vault.clone()), ..At::default() };
        let hits = hostile.arm_all(rules("metadata", &of));
        let done = one.run(LIST);
        hostile.disarm();
        assert_told(&hits);
        assert_eq!(writes(&hostile), Vec::<String>::new());
        if done.status == Some(0) {
            assert_eq!(done.out, honest, "{field}");
        } else {
            assert_eq!(done.status, Some(6), "{field}: {done:#?}");
            assert!(!done.out.contains("three"));
            assert_eq!(dump(&one), before, "{field}");
            refused.push((field, vault));
        }
        // Either way it goes on with an honest server.
        assert_eq!(one.ok(LIST).out, honest, "{field}");
    }
    // Nothing is taken from the others: revision and kind stand in the signed change list and in the envelope; a longer chain
    // is asked for, and its end is where no commit comes; records are counted.
    let expected = [
        ("seq of an entry", &files),
        ("record of an entry", &files),
        ("change list of a commit", &files),
        ("id in the list of vaults", &files),
        ("head in the list of vaults", &keyring),
        ("id in the list of vaults", &keyring),
    ];
    assert_eq!(refused, expected);
}

#[test]
fn row_11_what_the_server_says_of_itself() {
    let (world, hostile) = world_behind();
    world.signup("a").put("n", "1").ok();
    let rule = Rule::answer_of::<ServerInfo>("info", "GET /v1/server", |_, info| {
        info.utc = 1;
        info.registration = 3;
        info.limits.iter_mut().for_each(|limit| limit.1 = 1);
        true
    });
    let hits = hostile.arm(rule);
    let b = login_as(&world, "b");
    assert!(hits.count() > 0);
    assert_eq!(b.get("n"), "1");
}

/// An old version of a record is known by its digest; an old vault by whoever saw more; an old account by all who did.
#[test]
fn row_12_rollback_of_a_record() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.put("n", "\"one\"").ok();
    let b = login_as(&world, "b");
    let of = At { vault: Some(vault_of(&a, "files")), ..At::default() };
    let hits = hostile.arm_all(rules("envelope-replaced", &of));
    assert_eq!(b.get("n"), "\"one\"");
    for _ in 0..2 {
        a.ok(&["status"]);
        b.ok(&["status"]);
    }
    write_past_the_liar(&world, &hostile, &a);
    assert!(hits.iter().all(|hits| hits.count() == 0));
    let before = dump(&b);
    let done = b.run(LIST).ends(6, BACK).ends(6, &["which commit", "replaced"]);
    assert!(!done.err.contains(NOT_VALID), "{done:#?}");
    assert_told(&hits);
    assert_eq!(dump(&b), before);
    // Whoever comes anew verifies the chain, and so knows which versions were replaced.
    let late = login_as(&world, "late");
    let done = late.run(LIST).ends(6, BACK);
    assert_eq!(done.out, "there is none\n", "{done:#?}");
    hostile.disarm();
    assert_eq!((b.get("n"), late.get("n")), ("\"two\"".into(), "\"two\"".into()));
}

#[test]
fn row_12_rollback_of_a_vault() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.put("n", "\"one\"").ok();
    let b = login_as(&world, "b");
    assert_eq!(b.get("n"), "\"one\"");
    a.ok(&["status"]);
    b.ok(&["status"]);
    let vault = vault_of(&a, "files");
    let of = At { vault: Some(vault), ..At::default() };
    // It remembers what it says now.
    let hits = hostile.arm_all(rules("old-vault", &of));
    b.ok(&["status"]);
    assert!(hits.iter().all(|hits| hits.count() == 0));
    write_past_the_liar(&world, &hostile, &a);
    hostile.forget();
    for _ in 0..2 {
        let before = dump(&a);
        for arguments in [&["status"][..], LIST, &["vault", "create", "more"], &["backup", "passphrase"]] {
            a.run(arguments).ends(6, BACK);
        }
        assert_eq!(dump(&a), before);
    }
    assert_told(&hits);
    assert_eq!(writes(&hostile), Vec::<String>::new());
    hostile.disarm();
    assert_eq!((a.get("n"), b.get("n")), ("\"two\"".into(), "\"two\"".into()));
}

/// The device writes while the server is honest to it: through a second server that lies about nothing.
fn write_past_the_liar(world: &World, hostile: &Hostile, device: &Device) {
    let honest = Hostile::start();
    honest.set_upstream(world.server.address());
    let file = device.home.join("account");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&hostile.origin, &honest.origin)).unwrap();
    device.put("n", "\"two\"").ok();
    std::fs::write(&file, text).unwrap();
}

/// All of it, and with it the keyring and the device log.
#[test]
fn row_12_rollback_of_an_account() {
    let (mut world, hostile) = world_behind();
    let a = world.signup("a");
    a.put("n", "\"one\"").ok();
    let b = login_as(&world, "b");
    assert_eq!(b.get("n"), "\"one\"");
    let old = world.path("old");
    world.server.back_up(&old);
    a.put("n", "\"two\"").ok();
    assert_eq!(b.get("n"), "\"two\"");
    let newest = world.path("newest");
    world.server.back_up(&newest);
    world.server.put_back(&old, true, true);
    hostile.set_upstream(world.server.address());
    for device in [&a, &b] {
        let before = dump(device);
        hostile.forget();
        for arguments in [&["status"][..], LIST, &["fingerprint"]] {
            device.run(arguments).ends(6, BACK);
        }
        assert_eq!(writes(&hostile), Vec::<String>::new());
        assert_eq!(dump(device), before);
    }
    world.server.put_back(&newest, true, true);
    hostile.set_upstream(world.server.address());
    assert_eq!((a.get("n"), b.get("n")), ("\"two\"".into(), "\"two\"".into()));
}

/// Two histories for two devices; then one commit of the first leaks into the second.
#[test]
fn row_13_two_views_and_one_commit_leaked_across() {
    let (mut world, hostile) = world_behind();
    let a = world.signup("a");
    a.put("n", "\"one\"").ok();
    let b = login_as(&world, "b");
    assert_eq!(b.get("n"), "\"one\"");
    a.ok(&["status"]);
    b.ok(&["status"]);
    let (fork, view) = (world.path("fork"), world.path("view-of-a"));
    world.server.back_up(&fork);
    hostile.set_upstream(world.server.address());
    // The view of a: two commits.
    hostile.forget();
    a.put("n", "\"of a\"").ok();
    a.put("m", "\"of a\"").ok();
    let pushed = hostile.requests("POST /v1/vaults/{}/commits");
    let leak = PushCommit::decode(&pushed.last().unwrap().body).unwrap();
    world.server.back_up(&view);
    // The view of b: one commit.
    world.server.put_back(&fork, true, true);
    hostile.set_upstream(world.server.address());
    b.put("n", "\"of b\"").ok();
    let leaked = Commit::decode(&leak.commit.bytes.0).unwrap();
    let rule = Rule::answer_of::<Page>("leak", "GET /v1/vaults/{}/commits", move |request, page| {
        if !request.path.contains(&leaked.vault.to_string()) {
            return false;
        }
        let changes = Some(leak.changes.clone());
        page.commits.push(CommitEntry { commit: leak.commit.clone(), changes });
        page.head_seq = leaked.seq;
        true
    });
    let fork = &["another history"];
    refuses(&hostile, &b, vec![rule], LIST, (6, fork));
    assert_eq!(b.get("n"), "\"of b\"");
    // Whole views are noticed in the same way as soon as a device meets the other's.
    let before = dump(&a);
    a.run(&["status"]).ends(6, &[]);
    assert_eq!(dump(&a), before);
    world.server.put_back(&view, true, true);
    hostile.set_upstream(world.server.address());
    let before = dump(&b);
    b.run(&["status"]).ends(6, fork);
    assert_eq!(dump(&b), before);
    assert_eq!(a.get("n"), "\"of a\"");
}

/// The record that the last commit wrote.
fn last_record(hostile: &Hostile) -> RecordId {
    let pushed = hostile.requests("POST /v1/vaults/{}/commits").pop().unwrap();
    let envelope = PushCommit::decode(&pushed.body).unwrap().envelopes.pop().unwrap();
    lockstep_proto::envelope::decode(&envelope.0).unwrap().1.record
}

#[test]
fn row_14_a_hidden_record_is_incomplete() {
    let (world, hostile) = world_behind();
    let (_a, b) = lagging(&world);
    let record = last_record(&hostile).to_string();
    let texts = ["withholds record", &record];
    let refusal = refuses(&hostile, &b, rules("record-hidden", &At::record(&record)), LIST, (6, &texts));
    assert!(!refusal.out.contains("two") && !refusal.out.contains('m'), "{refusal:?}");
    assert_eq!((b.get("n"), b.get("m")), ("\"two\"".into(), "\"three\"".into()));
}

/// Commits that are hidden from everybody: how old the view is is shown.
#[test]
fn row_14_hidden_commits_show_in_how_old_the_view_is() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.put("n", "\"one\"").ok();
    let b = login_as(&world, "b");
    let status = |device: &Device| {
        let json = device.ok(&["--json", "status"]).json();
        let vault =
            json["vaults"].as_array().unwrap().iter().find(|one| one["name"] == "files").unwrap().clone();
        (
            vault["commit"].as_u64().unwrap(),
            vault["written"].as_u64().unwrap(),
            vault["author"].clone(),
            json["answered"].as_u64().unwrap(),
        )
    };
    let before = status(&b);
    assert_eq!(before.2, a.ok(&["--json", "whoami"]).json()["device"]);
    let text = b.ok(&["status"]).out;
    assert!(text.contains(" written 2") && text.contains("the server last answered at 2"), "{text}");
    let of = At { at: before.0, vault: Some(vault_of(&b, "files")), ..At::default() };
    let mut lies = rules("commits-hidden", &of);
    // It knows the hash of the last commit that it shows from the list as it was.
    let head = hostile.answers("GET /v1/vaults").pop().unwrap();
    let head = lockstep_proto::api::vault::Vaults::decode(&head.body).unwrap();
    let shown = head.0.into_iter().find(|info| Some(info.vault.to_string()) == of.vault).unwrap();
    lies[0] =
        Rule::answer_of::<lockstep_proto::api::vault::Vaults>("list", "GET /v1/vaults", move |_, vaults| {
            let info = vaults.0.iter_mut().find(|info| info.vault == shown.vault).unwrap();
            let is_changed = *info != shown;
            *info = shown.clone();
            is_changed
        });
    let first = std::time::SystemTime::now();
    // By the clock, so that a later commit has a later time.
    assert!(crate::program::poll(20, || first.elapsed().unwrap().as_millis() > 1100));
    a.put("n", "\"two\"").ok();
    let hits = hostile.arm_all(lies);
    let hidden = status(&b);
    hostile.disarm();
    assert_told(&hits);
    assert_eq!((hidden.0, hidden.1, &hidden.2), (before.0, before.1, &before.2));
    assert!(hidden.3 > before.3, "an answer is no news");
    let after = status(&b);
    assert!(after.0 > before.0 && after.1 > before.1);
}

/// The keyring is current, and another device pinned more of a vault than is shown: `Rollback`, by the same device and
/// by a new one. The other way around, too: a new device has pins in the device log that an old keyring lacks.
#[test]
fn row_14_hidden_commits_and_mixed_ages_are_noticed_by_pins() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    login_as(&world, "x");
    b.ok(&["status"]);
    a.put("n", "\"one\"").ok();
    // A revocation pins the head of every vault.
    a.ok(&["device", "revoke", "x", "--passphrase-file", &world.text("passphrase")]);
    let files = vault_of(&a, "files");
    let of = At { at: 0, vault: Some(files), ..At::default() };
    let refusal = refuses_in(&hostile, &b, rules("commits-hidden", &of), LIST, BACK);
    assert!(!refusal.contains("revision"));
    assert_eq!(b.get("n"), "\"one\"");
    // A new device signs in to the current keyring, and then looks at the old vault.
    let c = login_as(&world, "c");
    let refusal = refuses_in(&hostile, &c, rules("commits-hidden", &of), LIST, BACK);
    assert!(!refusal.contains("revision"));
    assert_eq!(c.get("n"), "\"one\"");
    // An old keyring under the current device log: its pins say more.
    let keyring = keyring_of(&hostile).to_string();
    let of = At { at: 0, vault: Some(keyring), ..At::default() };
    let passphrase = world.text("passphrase");
    let login = ["login", "--name", NAME, "--passphrase-file", &passphrase];
    refuses_joining(&world, &hostile, rules("commits-hidden", &of), &login, (6, BACK));
    login_as(&world, "d").ok(&["status"]);
}

/// Refused, whatever of the keyring is current and was taken over before; gives what was printed.
fn refuses_in(
    hostile: &Hostile,
    device: &Device,
    of: Vec<Rule>,
    arguments: &[&str],
    texts: &[&str],
) -> String {
    let hits = hostile.arm_all(of);
    let done = device.run(arguments).ends(6, texts);
    hostile.disarm();
    assert_told(&hits);
    done.out
}
