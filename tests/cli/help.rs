//! Help, and the server's own commands.

use crate::back_end::is_embedded;
use crate::world::{NAME, World};

#[test]
fn every_command_explains_itself() {
    let world = World::new();
    let x = world.device("x");
    let commands: &[&[&str]] = &[
        &[],
        &["signup"],
        &["login"],
        &["recover"],
        &["logout"],
        &["whoami"],
        &["vault"],
        &["vault", "create"],
        &["vault", "list"],
        &["vault", "delete"],
        &["passphrase"],
        &["passphrase", "change"],
        &["recovery-key"],
        &["recovery-key", "rotate"],
        &["device"],
        &["device", "list"],
        &["device", "rename"],
        &["device", "revoke"],
        &["account"],
        &["account", "delete"],
        &["backup"],
        &["snapshots"],
        &["ls"],
        &["restore"],
        &["history"],
        &["diff"],
        &["forget"],
        &["record"],
        &["record", "put"],
        &["record", "get"],
        &["record", "list"],
        &["record", "rm"],
        &["record", "history"],
        &["record", "restore"],
        &["policy"],
        &["policy", "show"],
        &["policy", "set"],
        &["conflicts"],
        &["conflicts", "list"],
        &["conflicts", "show"],
        &["conflicts", "resolve"],
        &["conflicts", "log"],
        &["conflicts", "undo"],
        &["session"],
        &["session", "list"],
        &["session", "revoke"],
        &["status"],
        &["check"],
        &["fingerprint"],
        &["export"],
        &["import"],
        &["kit"],
        &["kit", "refresh"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let mut arguments = command.to_vec();
        arguments.push("--help");
        let done = x.ok(&arguments);
        assert!(done.out.contains("Usage:") && done.err.is_empty(), "{done:?}");
    }
    let help = x.ok(&["--help"]).out;
    for status in ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "130"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("{status}  "))), "{status}");
    }
    assert!(x.ok(&["--version"]).out.starts_with("lockstep "));
    x.run(&["nonsense"]).ends(2, &["nonsense"]);
    x.run(&[]).ends(2, &["Usage:"]);
    assert!(!x.home.exists());
}

#[test]
fn the_servers_own_commands_work() {
    let mut world = World::new();
    let folder = world.path("");
    let running = world.server.run(&folder, &["migrate"]);
    // SQLite is one process's alone.
    if is_embedded() {
        running.ends(1, &["lock"]);
    } else {
        running.ok();
    }
    world.server.stop();
    assert!(world.server.run(&folder, &["migrate"]).ok().out.contains("up to date"));
    let shown = world.server.run(&folder, &["check-config"]).ok().out;
    assert!(shown.contains(world.server.address()) && shown.contains("registration: Open"), "{shown}");
    for command in [&["--help"][..], &["serve", "--help"], &["migrate", "--help"], &["invite", "--help"]] {
        world.server.run(&folder, command).ok();
    }
    world.server.run(&folder, &["nonsense"]).ends(2, &["nonsense"]);
    world.server.restart();
}

#[test]
fn a_wrong_setting_is_one_line() {
    for (setting, value) in [
        ("LOCKSTEP_REGISTRATION", "maybe"),
        ("LOCKSTEP_PUBLIC_URL", "example.org"),
        ("LOCKSTEP_DATABASE_URL", "mysql://x"),
        ("LOCKSTEP_DATABASE_CONNECTIONS", "none"),
        ("LOCKSTEP_OBJECTS", "gs://bucket"),
        ("LOCKSTEP_QUOTA", "10 G"),
        ("LOCKSTEP_CONFIG", "/nowhere/server.toml"),
    ] {
        let folder = crate::world::Folder::new();
        let mut command = crate::program::command("lockstep-server");
        command.current_dir(folder.path()).arg("check-config").env(setting, value);
        let name = if setting == "LOCKSTEP_CONFIG" { value } else { setting };
        let done = crate::program::Running::start(command, folder.path(), "").done().ends(2, &[name]);
        assert_eq!(done.err.trim_end().lines().count(), 1, "{done:?}");
        assert!(!folder.path().join("lockstep-data").exists());
    }
}

#[test]
fn an_invite_is_good_once() {
    let mut world = World::with(&[("LOCKSTEP_REGISTRATION", "invite")]);
    let folder = world.path("");
    world.server.stop();
    let code = world.server.run(&folder, &["invite"]).ok().out.trim().to_owned();
    world.server.restart();
    let sign_up = |name: &str, code: Option<&str>| {
        let (passphrase, kit) = (world.text("passphrase"), format!("kit-{name}"));
        let mut arguments = vec!["signup", "--name", name, "--passphrase-file", &passphrase, "--kit", &kit];
        if let Some(code) = code {
            arguments.extend(["--invite", code]);
        }
        world.device(name).run(&arguments)
    };
    sign_up(NAME, None).ends(11, &["invite"]);
    std::fs::remove_file(world.path("kit-ada")).unwrap();
    sign_up(NAME, Some(&code)).ok();
    sign_up("bob", Some(&code)).ends(11, &["invite"]);
    world.device(NAME).ok(&["status"]);
}

#[test]
fn a_closed_server_takes_nobody() {
    let world = World::with(&[("LOCKSTEP_REGISTRATION", "closed")]);
    let passphrase = world.text("passphrase");
    let arguments = ["signup", "--name", NAME, "--passphrase-file", &passphrase, "--kit", "kit"];
    world.device("a").run(&arguments).ends(11, &["no new accounts"]);
}

#[test]
fn a_stop_right_after_the_start_is_clean() {
    let mut world = World::new();
    for _ in 0..5 {
        let status = world.server.stop().unwrap();
        assert!(status.success(), "{status}");
        world.server.restart();
    }
}
