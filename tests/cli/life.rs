//! An account's life: another passphrase, another recovery key, vaults and accounts that are deleted; each of them
//! cut off at every request that changes something, and run again.

use crate::lost::behind;
use crate::program::{Done, poll};
use crate::proxy::Proxy;
use crate::tree::{assert_same, files, noise, write};
use crate::world::{Device, NAME, World};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::key_header::KeyHeader;
use rusqlite::Connection;
use std::path::PathBuf;

/// Runs a command again and again. Each time the connection breaks at the next of its requests that change
/// something, before the server gets it or before the answer comes back, and the program is killed there. The same
/// command run again has to end well.
pub(crate) fn cut_everywhere(
    proxy: &Proxy,
    mut prepare: impl FnMut(u64) -> (Device, Vec<String>),
    mut check: impl FnMut(u64),
) {
    let mut number = 0;
    for after in [false, true] {
        let mut nth = 0;
        loop {
            let (device, arguments) = prepare(number);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            proxy.cut_nth(nth, after);
            let mut running = device.start(&arguments);
            assert!(poll(80, || proxy.hits() > 0 || !running.is_running()), "it hangs: {arguments:?}");
            let was_cut = proxy.hits() > 0;
            if was_cut {
                running.kill();
            } else {
                running.done().ok();
            }
            proxy.heal();
            if was_cut {
                device.ok(&arguments);
            }
            check(number);
            number += 1;
            nth += 1;
            if !was_cut {
                break;
            }
        }
        assert!(nth > 1, "nothing was cut");
    }
}

fn owned(arguments: &[&str]) -> Vec<String> {
    arguments.iter().map(|argument| (*argument).to_owned()).collect()
}

fn change(device: &Device, old: &str, new: &str) -> Done {
    device.run(&["passphrase", "change", "--passphrase-file", old, "--new-passphrase-file", new])
}

fn rotate(device: &Device, passphrase: &str, kit: &str) -> Done {
    device.run(&["recovery-key", "rotate", "--passphrase-file", passphrase, "--kit", kit])
}

pub(crate) fn recover(world: &World, device: &str, key: &str, kit: &str, more: &[&str]) -> Done {
    let new = world.secret("passphrase-recovered", "a passphrase after recovery");
    let mut arguments =
        vec!["recover", "--name", NAME, "--recovery-key-file", key, "--passphrase-file", &new, "--kit", kit];
    arguments.extend(more);
    world.device(device).run(&arguments)
}

/// Whether any value of any table contains some bytes.
fn database_has(database: &Connection, needle: &[u8]) -> bool {
    let mut tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    names.iter().any(|name| {
        let mut rows = database.prepare(&format!("SELECT * FROM {name}")).unwrap();
        let columns = rows.column_count();
        let mut rows = rows.query([]).unwrap();
        let mut found = false;
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                let value = row.get_ref(column).unwrap();
                let bytes =
                    value.as_blob().or_else(|_| value.as_str().map(str::as_bytes)).unwrap_or_default();
                found |= bytes.windows(needle.len()).any(|window| window == needle);
            }
        }
        found
    })
}

/// How many 16-byte pieces of something are anywhere in some files. Pieces, because a page's border
/// may go through the middle of it.
fn pieces_in(paths: &[PathBuf], secret: &[u8]) -> usize {
    let contents: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap_or_default()).collect();
    let is_there =
        |piece: &&[u8]| contents.iter().any(|bytes| bytes.windows(16).any(|window| window == *piece));
    secret.chunks_exact(16).filter(is_there).count()
}

/// What the server holds of a passphrase: OPAQUE record, the wrap's salt, nonce, ciphertext.
fn passphrase_parts(database: &Connection) -> Vec<Vec<u8>> {
    let (record, header): (Vec<u8>, Vec<u8>) = database
        .query_row("SELECT opaque_record, key_header FROM account", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    let header = KeyHeader::decode(&header).unwrap();
    let wrap = &header.wraps[0];
    vec![record, wrap.salt.0.to_vec(), wrap.ciphertext.0.to_vec()]
}

/// Asserted: while the server runs, no value of any table contains the old OPAQUE record or anything of the old
/// wrap; after it was stopped (which writes the WAL back and removes it), no file of its data folder contains any 16
/// bytes of them, free pages included. That is SQLite's `secure_delete`; what it does not reach is a copy of a row in
/// the unused middle of a page that was split, which only `VACUUM` removes: here no page was. PostgreSQL keeps old
/// versions of rows until they are vacuumed, and what was written in its write-ahead log: asserted there is that nothing
/// of them is in the database's own files after `VACUUM FULL`.
#[test]
fn a_changed_passphrase_is_the_only_one_and_the_server_keeps_nothing_of_the_old() {
    let mut world = World::new();
    let a = world.signup("a");
    let b = world.login("b");
    a.put("n", "1").ok();
    let old = world.text("passphrase");
    let new = world.secret("new", "another passphrase for ada");
    let weak = world.secret("weak", "short");
    let parts = passphrase_parts(&world.server.database());
    let paths = world.server.files();
    for part in &parts {
        assert!(database_has(&world.server.database(), part) && pieces_in(&paths, part) > 0);
    }
    change(&a, &new, &new).ends(5, &["passphrase is wrong"]);
    change(&a, &old, &weak).ends(2, &["passphrase"]);
    a.run(&["passphrase", "change"]).ends(2, &["--passphrase-file"]);
    a.run(&["passphrase", "change", "--passphrase-file", &old]).ends(2, &["--new-passphrase-file"]);
    for part in &parts {
        assert!(database_has(&world.server.database(), part), "a refusal changed something");
    }
    let done =
        a.ok(&["--json", "passphrase", "change", "--passphrase-file", &old, "--new-passphrase-file", &new]);
    assert_eq!(done.json()["changed"], true);

    world.device("c").try_login(&old).ends(5, &["passphrase is wrong"]);
    world.device("c").try_login(&new).ok();
    assert_eq!(world.device("c").get("n"), "1");
    b.put("n", "2").ok();
    assert_eq!(a.get("n"), "2");
    change(&b, &old, &old).ends(5, &["passphrase is wrong"]);
    for part in &parts {
        assert!(!database_has(&world.server.database(), part));
    }
    world.server.stop();
    let paths = world.server.vacuumed_files();
    assert!(paths.iter().any(|path| path.metadata().is_ok_and(|stat| stat.len() > 0)), "{paths:?}");
    for part in &parts {
        assert_eq!(pieces_in(&paths, part), 0);
    }
    world.server.restart();
    recover(&world, "d", "kit", "kit-2", &["--keep-others"]).ok();
    assert_eq!(world.device("d").get("n"), "2");
}

#[test]
fn a_rotated_recovery_key_is_the_only_one() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let passphrase = world.text("passphrase");
    let wrong = world.secret("wrong", "another passphrase");
    rotate(&a, &wrong, "kit-2").ends(5, &["passphrase is wrong"]);
    assert!(!world.path("kit-2").exists());
    rotate(&a, &passphrase, "kit").ends(2, &["exists"]);
    rotate(&a, &passphrase, "passphrase").ends(2, &["exists"]);
    rotate(&a, &passphrase, "kit-2").ends(0, &["stays valid until"]);
    rotate(&a, &passphrase, "kit-2").ends(2, &["exists"]);
    let printed = a.ok(&["recovery-key", "rotate", "--passphrase-file", &passphrase]).out;
    std::fs::write(world.path("kit-3"), &printed).unwrap();
    for kit in ["kit", "kit-2"] {
        recover(&world, "b", kit, "kit-4", &[]).ends(5, &["recovery key is wrong"]);
    }
    world.login("c");
    recover(&world, "b", "kit-3", "kit-4", &[]).ok();
    assert_eq!(world.device("b").get("n"), "1");
}

#[test]
fn a_change_of_passphrase_that_is_cut_off_anywhere_is_run_again() {
    let (world, proxy) = behind();
    world.signup("a");
    let file = |number: u64| world.secret(&format!("p-{number}"), &format!("passphrase number {number}"));
    change(&world.device("a"), &world.text("passphrase"), &file(0)).ok();
    let mut last = 0;
    cut_everywhere(
        &proxy,
        |number| {
            let (old, new) = (file(number), file(number + 1));
            let arguments =
                owned(&["passphrase", "change", "--passphrase-file", &old, "--new-passphrase-file", &new]);
            (world.device("a"), arguments)
        },
        |number| last = number + 1,
    );
    world.device("b").try_login(&file(last - 1)).ends(5, &[]);
    world.device("b").try_login(&file(last)).ok();
    recover(&world, "c", "kit", "kit-2", &[]).ok();
}

#[test]
fn a_rotation_of_the_recovery_key_that_is_cut_off_anywhere_is_run_again() {
    let (world, proxy) = behind();
    world.signup("a");
    let passphrase = world.text("passphrase");
    let kit = |number: u64| format!("kit-{number}");
    let mut last = 0;
    cut_everywhere(
        &proxy,
        |number| {
            let arguments =
                ["recovery-key", "rotate", "--passphrase-file", &passphrase, "--kit", &kit(number)];
            (world.device("a"), owned(&arguments))
        },
        |number| last = number,
    );
    recover(&world, "b", &kit(last - 1), "kit-x", &[]).ends(5, &["recovery key is wrong"]);
    recover(&world, "b", &kit(last), "kit-x", &[]).ok();
}

fn vault_rows(world: &World) -> i64 {
    world.server.database().query_row("SELECT count(*) FROM vault", [], |row| row.get(0)).unwrap()
}

#[test]
fn a_deleted_vault_is_gone_everywhere_and_its_name_is_free() {
    let mut world = World::new();
    let a = world.signup("a");
    let b = world.login("b");
    write(&world.path("docs/f"), noise(1, 200_000));
    a.backup("docs");
    a.put("n", "1").ok();
    assert_eq!(b.get("n"), "1");
    let passphrase = world.text("passphrase");
    let delete = |device: &Device, name: &str| {
        device.run(&["vault", "delete", name, "--passphrase-file", &passphrase, "--yes"])
    };
    a.run(&["vault", "delete", "files", "--passphrase-file", &passphrase]).ends(2, &["--yes"]);
    let wrong = world.secret("wrong", "another passphrase");
    a.run(&["vault", "delete", "files", "--passphrase-file", &wrong, "--yes"]).ends(5, &[]);
    delete(&a, "none").ends(11, &["there is no vault"]);
    assert_eq!(vault_rows(&world), 2);
    delete(&a, "files").ok();
    delete(&a, "files").ok();
    assert_eq!(vault_rows(&world), 1, "the keyring is left");
    for device in [&a, &b] {
        assert_eq!(device.ok(&["--json", "vault", "list"]).json().as_array().unwrap().len(), 0);
        device.run(&["snapshots"]).ends(11, &["there is no vault"]);
        device.ok(&["check"]);
    }
    world.server.stop();
    world.server.restart();
    assert!(poll(30, || world.server.segments().is_empty()), "segments are left");
    // The default vault's name is as good as new, for whoever comes next.
    b.backup("docs");
    assert_same(&world.path("docs"), &b.restore("out").join("docs"));
    assert_eq!(a.snapshots().len(), 1);
    let c = world.login("c");
    assert_eq!(c.snapshots().len(), 1);
}

#[test]
fn a_deletion_of_a_vault_that_is_cut_off_anywhere_is_run_again() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    let b = world.login("b");
    let passphrase = world.text("passphrase");
    cut_everywhere(
        &proxy,
        |number| {
            let vault = format!("v-{number}");
            a.ok(&["vault", "create", &vault]);
            b.ok(&["status"]);
            let arguments = ["vault", "delete", &vault, "--passphrase-file", &passphrase, "--yes"];
            (world.device("a"), owned(&arguments))
        },
        |_| {
            assert_eq!(vault_rows(&world), 1);
            b.ok(&["status"]);
        },
    );
}

#[test]
fn a_deleted_account_leaves_nothing_and_its_name_is_free() {
    let mut world = World::new();
    let a = world.signup("a");
    let b = world.login("b");
    write(&world.path("docs/f"), noise(1, 200_000));
    write(&world.path("docs/g"), noise(2, 9_000_000));
    a.backup("docs");
    b.put("n", "1").ok();
    let bob = world.device("bob");
    let passphrase = world.text("passphrase");
    bob.ok(&["signup", "--name", "bob", "--passphrase-file", &passphrase, "--kit", "kit-bob"]);
    bob.put("n", "2").ok();
    let database = world.server.database();
    let ids: Vec<Vec<u8>> = database
        .prepare(
            "SELECT id FROM account WHERE name = 'ada' UNION ALL
             SELECT vault FROM vault JOIN account ON vault.account = account.id WHERE name = 'ada' UNION ALL
             SELECT device FROM device JOIN account ON device.account = account.id WHERE name = 'ada'",
        )
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(ids.len(), 1 + 2 + 2);
    let keys: Vec<i64> = database
        .prepare("SELECT vault.id FROM vault JOIN account ON vault.account = account.id WHERE name = 'ada'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(ids.iter().all(|id| database_has(&database, id)));

    a.run(&["account", "delete", "--passphrase-file", &passphrase]).ends(2, &["--yes"]);
    let wrong = world.secret("wrong", "another passphrase");
    a.run(&["account", "delete", "--passphrase-file", &wrong, "--yes"]).ends(5, &["passphrase is wrong"]);
    a.ok(&["status"]);
    a.ok(&["account", "delete", "--passphrase-file", &passphrase, "--yes"]);

    let database = world.server.database();
    assert!(ids.iter().all(|id| !database_has(&database, id)), "an id is left");
    for key in keys {
        for table in ["vault_log", "commit_header", "version", "live", "pin", "staged", "object", "part"] {
            let text = format!("SELECT count(*) FROM {table} WHERE vault = ?1");
            let rows: i64 = database.query_row(&text, [key], |row| row.get(0)).unwrap();
            assert_eq!(rows, 0, "{table}");
        }
    }
    drop(database);
    let left = files(&a.home);
    assert!(left.iter().all(|path| path.ends_with("lock")), "{left:?}");
    b.run(&["status"]).ends(5, &["the account was deleted"]);
    assert_eq!(bob.get("n"), "2");
    world.server.stop();
    world.server.restart();
    assert!(poll(30, || world.server.segments().is_empty()), "segments are left");
    std::fs::remove_file(world.path("kit")).unwrap();
    let again = world.signup("again");
    assert_eq!(again.ok(&["--json", "vault", "list"]).json().as_array().unwrap().len(), 0);
    recover(&world, "x", "kit-bob", "kit-2", &[]).ends(5, &[]);
}

#[test]
fn a_deletion_of_an_account_that_is_cut_off_anywhere_is_run_again() {
    let (world, proxy) = behind();
    let passphrase = world.text("passphrase");
    cut_everywhere(
        &proxy,
        |number| {
            let device = world.device(&format!("d-{number}"));
            let kit = format!("kit-{number}");
            device.ok(&["signup", "--name", NAME, "--passphrase-file", &passphrase, "--kit", &kit]);
            device.put("n", "1").ok();
            // Without a session, so that signing in is cut off too.
            std::fs::remove_file(device.home.join("session")).unwrap();
            (device, owned(&["account", "delete", "--passphrase-file", &passphrase, "--yes"]))
        },
        |number| {
            assert_eq!(vault_rows(&world), 0);
            let left = files(&world.path(&format!("home-d-{number}")));
            assert!(left.iter().all(|path| path.ends_with("lock")), "{left:?}");
        },
    );
}
