//! What the program writes about itself: completions and manual pages; the example units for systemd.

use crate::program::{Running, command, program};
use crate::world::{Folder, World};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the program without any home.
fn run(folder: &Folder, arguments: &[&str]) -> crate::program::Done {
    let mut command = command("lockstep");
    command.current_dir(folder.path()).args(arguments);
    Running::start(command, folder.path(), "").done()
}

#[test]
fn bash_completes_commands_and_options() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("completion"), run(&folder, &["completions", "bash"]).ok().out)
        .unwrap();
    let complete = |words: &[&str]| -> BTreeSet<String> {
        let last = words.len() - 1;
        let script = format!(
            "source ./completion; COMP_WORDS=({}); COMP_CWORD={last}; _lockstep lockstep '{}' '{}'; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.iter().fold(String::new(), |text, word| text + "'" + word + "' "),
            words[last],
            words[last - 1],
        );
        let done = Command::new("bash").current_dir(folder.path()).args(["--norc", "-c", &script]).output();
        let done = done.unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    };
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    assert_eq!(complete(&["lockstep", "re"]), set(&["record", "recover", "recovery-key", "restore"]));
    assert_eq!(
        complete(&["lockstep", "backup", "--exc"]),
        set(&["--exclude", "--exclude-file", "--exclude-caches"])
    );
    assert_eq!(complete(&["lockstep", "backup", "--progress", ""]), set(&["auto", "json", "none"]));
}

#[test]
fn other_shells_get_theirs() {
    let folder = Folder::new();
    let zsh = run(&folder, &["completions", "zsh"]).ok().out;
    assert!(zsh.starts_with("#compdef lockstep") && zsh.contains("--one-file-system["));
    let fish = run(&folder, &["completions", "fish"]).ok().out;
    assert!(fish.contains("complete -c lockstep") && fish.contains("-l one-file-system"));
    run(&folder, &["completions", "tcsh"]).ends(2, &["tcsh"]);
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path().join("man")).unwrap();
    run(&folder, &["man", "man"]).ok();
    let page = |name: &str| std::fs::read_to_string(folder.path().join("man").join(name));
    let world = World::new();
    let x = world.device("x");
    // Every command that the help of the one above it lists, all the way down.
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    let mut seen = BTreeSet::new();
    while let Some(words) = waiting.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("-h");
        let help = x.ok(&arguments).out;
        let name = words.iter().fold("lockstep".to_owned(), |name, word| name + "-" + word) + ".1";
        let text = page(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        for part in [".TH lockstep", ".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS"] {
            assert!(text.contains(part), "{name} has no {part}");
        }
        seen.insert(name);
        let list = help.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        for line in list.lines().take_while(|line| line.starts_with("  ")) {
            let word = line.split_whitespace().next().unwrap();
            if word != "help" {
                waiting.push(words.iter().cloned().chain([word.to_owned()]).collect());
            }
        }
    }
    assert!(seen.len() > 50, "{seen:?}");
    let written = std::fs::read_dir(folder.path().join("man")).unwrap();
    let written: BTreeSet<String> =
        written.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(seen, written);
    assert!(page("lockstep-backup.1").unwrap().contains("one\\-file\\-system"));
    assert!(page("lockstep.1").unwrap().contains("Exit status"));
    run(&folder, &["man", "nowhere"]).ends(1, &["nowhere"]);
}

fn units() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("contrib/systemd");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut units: Vec<_> =
        files.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect();
    units.sort();
    units
}

/// Sections, and their keys and values in order.
fn keys(text: &str) -> Vec<(String, String, String)> {
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("\"{line}\" is no setting"));
        keys.push((section.clone(), key.to_owned(), value.to_owned()));
    }
    keys
}

/// What keeps a process that went wrong from everything that it does not need, and must stay in the examples.
const HARDENED: &[(&str, &str)] = &[
    ("CapabilityBoundingSet", ""),
    ("LockPersonality", "yes"),
    ("MemoryDenyWriteExecute", "yes"),
    ("NoNewPrivileges", "yes"),
    ("PrivateDevices", "yes"),
    ("PrivateTmp", "yes"),
    ("ProtectClock", "yes"),
    ("ProtectControlGroups", "yes"),
    ("ProtectHostname", "yes"),
    ("ProtectKernelLogs", "yes"),
    ("ProtectKernelModules", "yes"),
    ("ProtectKernelTunables", "yes"),
    ("ProtectSystem", "strict"),
    ("RestrictNamespaces", "yes"),
    ("RestrictRealtime", "yes"),
    ("RestrictSUIDSGID", "yes"),
    ("SystemCallArchitectures", "native"),
    ("SystemCallErrorNumber", "EPERM"),
    ("SystemCallFilter", "@system-service"),
    ("UMask", "0077"),
];

#[test]
fn the_example_units_are_hardened_and_run_what_there_is() {
    let units = units();
    let names: Vec<&str> =
        units.iter().map(|(path, _)| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["lockstep-backup.service", "lockstep-backup.timer", "lockstep-server.service"]);
    for (path, text) in &units {
        let keys = keys(text);
        let value = |section: &str, key: &str| -> Option<&str> {
            let found = keys.iter().find(|(of, name, _)| of == section && name == key);
            found.map(|(_, _, value)| value.as_str())
        };
        assert!(value("Unit", "Description").is_some(), "{}", path.display());
        if path.extension().unwrap() == "timer" {
            assert!(value("Timer", "OnCalendar").is_some() && value("Timer", "Persistent") == Some("true"));
            assert_eq!(value("Install", "WantedBy"), Some("timers.target"));
            continue;
        }
        for (key, wanted) in HARDENED {
            assert_eq!(value("Service", key), Some(*wanted), "{key} in {}", path.display());
        }
        // The command of the unit is one that the program takes, as far as its help.
        let start: Vec<&str> = value("Service", "ExecStart").unwrap().split_whitespace().collect();
        let name = Path::new(start[0]).file_name().unwrap().to_str().unwrap();
        let done = Command::new(program(name)).env_clear().args(&start[1..]).arg("--help").output().unwrap();
        assert!(done.status.success(), "{start:?}: {done:?}");
        let help = String::from_utf8(done.stdout).unwrap();
        for option in start.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(option), "{option} is no option: {help}");
        }
    }
}

/// systemd itself reads the units, where it is there; elsewhere the test above has read their keys.
#[test]
fn systemd_takes_the_example_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("systemd-analyze is not there: only the keys of the units were read");
        return;
    }
    let folder = Folder::new();
    let mut paths = Vec::new();
    for (path, text) in units() {
        let here = folder.path().join(path.file_name().unwrap());
        // The programs of this build stand in for installed ones.
        let text = text
            .replace("/usr/local/bin/lockstep-server", program("lockstep-server").to_str().unwrap())
            .replace("/usr/local/bin/lockstep ", &format!("{} ", program("lockstep").display()));
        std::fs::write(&here, text).unwrap();
        paths.push(here);
    }
    let done = Command::new("systemd-analyze").args(["verify", "--man=no"]).args(&paths).output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    let about_us: Vec<&str> = said.lines().filter(|line| line.contains("lockstep")).collect();
    assert!(done.status.success() && about_us.is_empty(), "{said}");
}
