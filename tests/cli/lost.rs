//! Requests that never arrive and answers that are lost, at exact places.

use crate::program::Done;
use crate::proxy::{Cut, Proxy};
use crate::tree::{assert_same, noise, write};
use crate::world::{NAME, World};

/// A world whose clients go through a proxy.
pub(crate) fn behind() -> (World, Proxy) {
    let (world, proxy) = Proxy::with_world();
    (world, proxy)
}

#[test]
fn lost_answers_of_a_backup_are_made_up_for() {
    let (world, proxy) = behind();
    let a = world.signup("a");
    for number in 0..20 {
        write(&world.path(&format!("docs/{number}")), noise(number, 50_000));
    }
    write(&world.path("docs/large"), noise(99, 9_000_000));
    // A lost answer is made up for within the run where it happens once, by the next run where it goes on.
    let cuts = [
        (Cut::Before("POST /v1/vaults "), false),
        (Cut::After("POST /v1/vaults "), true),
        (Cut::Before("/objects "), false),
        (Cut::After("/parts/"), true),
        (Cut::After("/complete "), true),
        (Cut::After("/commits "), true),
        (Cut::After("/commits "), false),
    ];
    for (number, (cut, once)) in cuts.into_iter().enumerate() {
        let vault = format!("{number} {cut:?}");
        let arguments = ["backup", "docs", "--vault", &vault];
        let before = proxy.cuts();
        proxy.cut(cut.clone(), if once { 1 } else { u64::MAX });
        let done = a.run(&arguments);
        assert!(proxy.cuts() > before, "{cut:?} was not met: {done:?}");
        proxy.heal();
        if once {
            done.ok();
        } else {
            done.ends(4, &["can not be reached"]);
            a.ok(&arguments);
        }
        let list = a.ok(&["--json", "snapshots", "--vault", &vault]).json();
        assert_eq!(list.as_array().unwrap().len(), 1, "{cut:?}");
        let _ = std::fs::remove_dir_all(world.path("out"));
        a.ok(&["restore", "out", "--vault", &vault]);
        assert_same(&world.path("docs"), &world.path("out/docs"));
    }
    a.ok(&["check", "--read-data"]);
}

/// Joining whose last answer or request was lost ends well when it is run again.
fn join_again(place: &'static str, arguments: impl Fn(&World, u32) -> Vec<String>) {
    for after in [false, true] {
        let (world, proxy) = behind();
        world.signup("first");
        let run = |number: u32| -> Done {
            let arguments = arguments(&world, number);
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            world.device("new").run(&arguments)
        };
        proxy.cut(if after { Cut::After(place) } else { Cut::Before(place) }, u64::MAX);
        let done = run(1);
        assert!(proxy.cuts() > 0, "{done:?}");
        proxy.heal();
        // If it happened, the device key tells so and the run succeeds in spite of the lost answer.
        if after {
            done.ok();
        } else {
            done.ends(4, &["can not be reached"]);
            run(2).ok();
        }
        world.device("new").put("n", "1").ok();
        assert_eq!(world.device("first").get("n"), "1");
    }
}

#[test]
fn a_lost_login_is_run_again() {
    join_again("POST /v1/account/devices ", |world, _| {
        ["login", "--name", NAME, "--passphrase-file", &world.text("passphrase")].map(str::to_owned).into()
    });
}

#[test]
fn a_lost_recovery_is_run_again() {
    join_again("/v1/account/recover", |world, number| {
        let new = world.secret("new", "another passphrase");
        let kit = format!("kit-new-{number}");
        ["recover", "--name", NAME, "--passphrase-file", &new, "--recovery-key-file", "kit", "--kit", &kit]
            .map(str::to_owned)
            .into()
    });
}

#[test]
fn a_lost_signup_is_run_again() {
    for after in [false, true] {
        let (world, proxy) = behind();
        let a = world.device("a");
        let place = "/v1/register/finish";
        proxy.cut(if after { Cut::After(place) } else { Cut::Before(place) }, u64::MAX);
        let sign_up = |kit: &str| {
            let passphrase = world.text("passphrase");
            a.run(&["signup", "--name", NAME, "--passphrase-file", &passphrase, "--kit", kit])
        };
        let done = sign_up("kit");
        proxy.heal();
        if after {
            done.ok();
        } else {
            done.ends(4, &["the kit kit is good only if this succeeds"]);
            sign_up("kit").ends(2, &["exists"]);
            sign_up("kit-2").ok();
        }
        a.put("n", "1").ok();
    }
}

/// A copied home that can not finish its new identity keeps what waits for the server.
#[test]
fn an_interrupted_login_of_a_copied_home_keeps_pending_writes() {
    let (mut world, proxy) = behind();
    let a = world.signup("a");
    a.put("first", "1").ok();
    world.server.stop();
    a.put("waits", "\"precious\"").ends(0, &["kept on this device"]);
    world.server.restart();
    proxy.cut(Cut::Before("POST /v1/account/devices "), u64::MAX);
    let passphrase = world.text("passphrase");
    a.try_login(&passphrase).ends(4, &["can not be reached"]);
    proxy.heal();
    // Whatever the home is now, signing in again must not lose the write.
    a.try_login(&passphrase).ok();
    assert_eq!(a.get("waits"), "\"precious\"");
}

/// What no commit named in time is collected by the server; the backup sends it again.
#[test]
fn objects_that_the_server_collected_are_sent_again() {
    let (mut world, proxy) = behind();
    let a = world.signup("a");
    write(&world.path("docs/0"), "1");
    a.backup("docs");
    write(&world.path("docs/framed"), noise(1, 100_000));
    write(&world.path("docs/large"), noise(2, 9_000_000));
    proxy.cut(Cut::Before("/commits HTTP"), u64::MAX);
    a.run(&["backup", "docs"]).ends(4, &[]);
    proxy.heal();
    world.server.stop();
    // As the collector does a day later.
    world.server.change("DELETE FROM part WHERE blob IN (SELECT blob FROM object WHERE NOT named)");
    let gone = world.server.change("DELETE FROM object WHERE NOT named");
    assert!(gone >= 1, "nothing waited for a commit");
    world.server.restart();
    a.backup("docs");
    assert_same(&world.path("docs"), &a.restore("out").join("docs"));
    a.put("n", "1").ok();
}
