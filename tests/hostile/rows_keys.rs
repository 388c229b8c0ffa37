//! Rows 2, 4, 5, 17: keys, versions and parameters that the server chose or changed.

use crate::scene::{
    lagging, nobody_types, refuses, refuses_joining, refuses_login, refuses_recovery, served_header,
    vault_of, world_behind, writes,
};
use crate::world::{NAME, World};
use lockstep_proto::api::auth::RecoveryStarted;
use lockstep_proto::api::vault::Vaults;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::AccountId;
use lockstep_proto::key_header::KeyHeader;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Hostile, Rule};
use std::process::Command;

const NOT_VALID: &[&str] = &["not valid"];

/// The server seals what it likes, under a key that it made, into the keyring and into a vault.
#[test]
fn row_02_a_key_that_the_server_made() {
    let (world, hostile) = world_behind();
    let (a, b) = lagging(&world);
    let list = ["record", "list", "--type", "note"];
    let of = || rules("key-of-the-server", &At::default());
    let refusal = refuses(&hostile, &b, of(), &list, (6, NOT_VALID));
    assert!(!refusal.out.contains("of-the-server"));
    refuses_login(&world, &hostile, of(), NOT_VALID);
    // A key for a vault that is new to b comes through the keyring.
    a.ok(&["vault", "create", "photos"]);
    refuses(&hostile, &b, of(), &["vault", "list"], (6, NOT_VALID));
    assert_eq!(b.get("m"), "\"three\"");
}

#[test]
fn row_02_a_vault_that_no_device_made_is_neither_read_nor_written() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    crate::scene::document(&world, "f", b"1");
    a.backup("docs");
    let files = vault_of(&a, "files");
    let before = a.ok(&["vault", "list"]).out;
    hostile.forget();
    let hits = hostile.arm_all(rules("unknown-vault", &At::default()));
    // It is named as what it is: none of the keyring's.
    let out = a.ok(&["vault", "list"]).out;
    let rest = out.strip_prefix(&before).unwrap();
    assert!(rest.lines().count() == 1 && rest.contains("no key of it is in the keyring"), "{out}");
    crate::scene::document(&world, "g", &crate::tree::noise(1, 100_000));
    a.backup("docs");
    a.ok(&["status"]);
    crate::scene::assert_told(&hits);
    assert!(!writes(&hostile).is_empty());
    let unknown = "07070707-0707-0707-0707-070707070707";
    for line in hostile.trace() {
        assert!(!line.contains(unknown), "{line}");
        assert!(!line.contains("/objects") || line.contains(&files), "{line}");
    }
    let listed = hostile.answers("GET /v1/vaults");
    let told = listed.iter().any(|answer| {
        Vaults::decode(&answer.body).unwrap().0.iter().any(|info| info.vault.to_string() == unknown)
    });
    assert!(told);
}

/// Refused before the passphrase is asked for: the file that it would be read from is one that nobody ever writes.
#[test]
fn row_04_another_version_or_suite_is_refused_before_the_passphrase_is_asked_for() {
    let (world, hostile) = world_behind();
    world.signup("a");
    let typed = nobody_types(&world);
    let login = ["login", "--name", NAME, "--passphrase-file", &typed];
    let signup = ["signup", "--name", "other", "--passphrase-file", &typed, "--kit", "kit-new"];
    let recover = [
        "recover",
        "--name",
        NAME,
        "--passphrase-file",
        &typed,
        "--recovery-key-file",
        "kit",
        "--kit",
        "kit-new",
    ];
    for (at, text) in [(0, "draft 1 of version 1"), (1, "suite 2")] {
        for arguments in [&login[..], &signup, &recover] {
            let of = rules("older-version", &At::number(at));
            let refusal = refuses_joining(&world, &hostile, of, arguments, (6, &[text]));
            assert_eq!(refusal.trace.len(), 1, "{refusal:?}");
            assert!(refusal.trace[0].starts_with("GET /v1/server "));
            assert!(!world.path("kit-new").exists());
        }
    }
}

#[test]
fn row_04_a_relabelled_key_header_or_log_is_refused_by_naming_it() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.ok(&["status"]);
    for (at, text) in [(0, "draft 1 of version 1"), (1, "suite"), (2, "draft 1 of version 1"), (3, "suite")] {
        let of = || rules("relabelled", &At::number(at));
        refuses_recovery(&world, &hostile, of(), &[text]);
        refuses_login(&world, &hostile, of(), &[text]);
        if at < 2 {
            refuses(&hostile, &a, of(), &["status"], (6, &[text]));
        }
    }
}

/// There is no way to say 8 KiB or 4 GiB: parameters have numbers, and only two are known.
#[test]
fn row_05_parameters_that_the_server_chose() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.ok(&["status"]);
    for profile in [0, 2, 3, 8, 23, 24, 255] {
        let of = || rules("kdf-profile", &At::number(profile));
        let refusal = refuses_recovery(&world, &hostile, of(), NOT_VALID);
        assert!(refusal.trace.last().unwrap().starts_with("GET /v1/account/devices"), "{refusal:?}");
        refuses_login(&world, &hostile, of(), NOT_VALID);
        refuses(&hostile, &a, of(), &["status"], (6, NOT_VALID));
    }
}

/// Runs `recover` with so many KiB of address space.
fn recover_within(world: &World, hostile: &Hostile, kib: u64, of: Vec<Rule>) -> (Option<i32>, String) {
    let new = world.device("within");
    let _ = std::fs::remove_dir_all(&new.home);
    hostile.arm_all(of);
    // Where a thread can not be made, the runtime may wait for it for ever: that is no refusal either.
    let mut command = Command::new("/usr/bin/timeout");
    command.args(["--signal=KILL", "20", "/bin/sh"]);
    command.env_clear().env("LOCKSTEP_SERVER", &hostile.origin).current_dir(world.path("."));
    command.args(["-c", "ulimit -v \"$0\"; exec \"$@\"", &kib.to_string()]);
    command.arg(crate::program::program("lockstep")).arg("--home").arg(&new.home);
    command.args(["recover", "--name", NAME, "--passphrase-file", "passphrase"]);
    command.args(["--recovery-key-file", "kit", "--kit", "kit-within"]);
    let output = command.output().unwrap();
    hostile.disarm();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// In so little memory that Argon2id can not run the refusal is still whole.
#[test]
fn row_05_parameters_are_refused_before_argon2id_runs() {
    let (world, hostile) = world_behind();
    world.signup("a");
    let of = || rules("kdf-profile", &At::number(3));
    let steps = (1..64).map(|step| step * 16 * 1024);
    let is_refused = |(status, err): (Option<i32>, String)| status == Some(6) && err.contains("not valid");
    let least = steps.into_iter().find(|kib| is_refused(recover_within(&world, &hostile, *kib, of())));
    let least = least.expect("it is refused in a gibibyte");
    // The honest run needs 64 MiB more than that.
    let (status, err) = recover_within(&world, &hostile, least, Vec::new());
    assert_ne!(status, Some(0), "Argon2id ran in {least} KiB: {err}");
    let (status, err) = recover_within(&world, &hostile, least + 512 * 1024, Vec::new());
    assert_eq!(status, Some(0), "{err}");
}

#[test]
fn row_05_one_salt_for_everybody() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.ok(&["status"]);
    let salt_of = |header: &[u8]| KeyHeader::decode(header).unwrap().wraps[0].salt;
    let first = salt_of(&served_header(&hostile));
    let other = world.device("other");
    let passphrase = world.text("passphrase");
    let arguments = ["signup", "--name", "eve", "--passphrase-file", &passphrase, "--kit", "kit-eve"];
    other.ok(&arguments);
    assert_ne!(first, salt_of(&served_header(&hostile)));
    let of = || rules("kdf-salt", &At::number(7));
    refuses_recovery(&world, &hostile, of(), NOT_VALID);
    refuses_login(&world, &hostile, of(), NOT_VALID);
    refuses(&hostile, &a, of(), &["status"], (6, NOT_VALID));
}

#[test]
fn row_17_a_recovery_key_of_the_server_is_ignored() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.ok(&["status"]);
    let of = || rules("own-recovery-key", &At::default());
    refuses(&hostile, &a, of(), &["status"], (6, NOT_VALID));
    refuses_recovery(&world, &hostile, of(), NOT_VALID);
    refuses_login(&world, &hostile, of(), NOT_VALID);
    // What is pushed again and again is not taken over by a change of credentials either.
    let (old, new) = (world.text("passphrase"), world.secret("new", "another passphrase"));
    let change = ["passphrase", "change", "--passphrase-file", &old, "--new-passphrase-file", &new];
    refuses(&hostile, &a, of(), &change, (6, NOT_VALID));
    a.ok(&["status"]);
}

/// The kit names the account: nothing is signed for another one.
#[test]
fn row_17_the_kit_pins_the_account() {
    let (world, hostile) = world_behind();
    world.signup("a");
    let other = AccountId::from_bytes([7; 16]);
    let rule = Rule::answer_of::<RecoveryStarted>("account", "POST /v1/recovery/start", move |_, started| {
        started.account = other;
        true
    });
    let arguments = [
        "recover",
        "--name",
        NAME,
        "--passphrase-file",
        "passphrase",
        "--recovery-key-file",
        "kit",
        "--kit",
        "kit-new",
    ];
    let refusal = refuses_joining(&world, &hostile, vec![rule], &arguments, (5, &["recovery key is wrong"]));
    assert!(refusal.trace.last().unwrap().starts_with("POST /v1/recovery/start"), "{refusal:?}");
    assert!(!world.path("kit-new").exists());
}
