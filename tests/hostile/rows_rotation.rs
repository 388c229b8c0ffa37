//! Row 18: changes of credentials that are cut off anywhere, and the old key header after them.

use crate::scene::{dump, login_as, refuses, refuses_joining, served, served_header, world_behind};
use crate::world::{Device, NAME, World};
use lockstep_proto::Signed;
use lockstep_proto::api::account::Devices;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::key_header::KeyHeader;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Hostile, Reply, Rule};

const NOT_VALID: &[&str] = &["not valid"];

/// The old header after a change of passphrase or recovery key: refused by whoever saw the change, and by a new device
/// to which the log as it is is served.
#[test]
fn row_18_the_old_key_header() {
    let (mut world, hostile) = world_behind();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    a.ok(&["status"]);
    let old_signed = served(&hostile);
    let old_header = old_signed.bytes.0.clone();
    // Armed before the change, so that it has seen the old one; told after it only.
    let mut armed = rules("old-key-header", &At::default());
    let hits = hostile.arm(armed.remove(0));
    b.ok(&["status"]);
    assert_eq!(hits.count(), 0);
    let (old, new) = (world.text("passphrase"), world.secret("new", "another passphrase"));
    let change = ["passphrase", "change", "--passphrase-file", &old, "--new-passphrase-file", &new];
    let _ = a.run(&change);
    assert_ne!(a.run(&["status"]).status, Some(0));
    hostile.disarm();
    a.ok(&["status"]);
    b.ok(&["status"]);
    let newest = served_header(&hostile);
    assert_ne!(newest, old_header);
    // The first header, whatever the log says.
    for device in [&a, &b] {
        refuses(&hostile, device, serving(&old_signed), &["status"], (6, NOT_VALID));
    }
    let login = ["login", "--name", NAME, "--passphrase-file", &new];
    refuses_joining(&world, &hostile, serving(&old_signed), &login, (6, NOT_VALID));
    // An honest server keeps no old wrap.
    let old_wrap = KeyHeader::decode(&old_header).unwrap().wraps[0].ciphertext;
    let new_wrap = KeyHeader::decode(&newest).unwrap().wraps[0].ciphertext;
    assert_ne!(old_wrap, new_wrap);
    world.server.stop();
    let files = world.server.vacuumed_files();
    let holds = |wrap: &[u8]| {
        files.iter().any(|path| std::fs::read(path).unwrap().windows(wrap.len()).any(|window| window == wrap))
    };
    assert!(holds(&new_wrap.0), "the search finds nothing at all");
    assert!(!holds(&old_wrap.0));
}

/// Serves a header that was served before, with its signature.
fn serving(old: &Signed) -> Vec<Rule> {
    let old = old.clone();
    vec![Rule::answer_of::<Devices>("old-key-header", "GET /v1/account/devices", move |_, devices| {
        let is_other = devices.key_header != old;
        devices.key_header = old.clone();
        is_other
    })]
}

/// The connection is killed at every step of a change of passphrase: it resumes.
#[test]
fn row_18_a_change_that_is_cut_at_every_step() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    let mut current = world.text("passphrase");
    let mut number = 0;
    for is_after in [false, true] {
        for nth in 0.. {
            number += 1;
            let new = world.secret(&format!("new-{number}"), &format!("another passphrase {number}"));
            let change =
                ["passphrase", "change", "--passphrase-file", &current, "--new-passphrase-file", &new];
            let hits = hostile.arm(cut_from(nth, is_after));
            let done = a.run(&change);
            hostile.disarm();
            if hits.count() == 0 {
                done.ok();
                assert!(nth > 0, "nothing was cut");
                current = new;
                break;
            }
            if done.status == Some(0) {
                // What was lost was the answer to something that was done, and found out.
                current = new;
                b.ok(&["status"]);
                continue;
            }
            // The same again, with the passphrase that is valid now.
            let again = a.run(&change);
            if again.status != Some(0) {
                let changed =
                    ["passphrase", "change", "--passphrase-file", &new, "--new-passphrase-file", &new];
                assert_eq!(again.status, Some(5), "{again:#?}");
                a.ok(&changed);
            }
            current = new;
            b.ok(&["status"]);
        }
    }
    let login = ["login", "--name", NAME, "--passphrase-file", &current];
    world.device("c").ok(&login);
    world.device("d").run(&["login", "--name", NAME, "--passphrase-file", "passphrase"]).ends(5, &[]);
    assert!(!dump(&b).is_empty());
}

/// The same with the recovery key: whichever way it was cut, the same command run again ends well, one kit opens the account
/// and no other does.
#[test]
fn row_18_a_change_of_recovery_key_that_is_cut_at_every_step() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    let b = login_as(&world, "b");
    let passphrase = world.text("passphrase");
    let mut kits = vec!["kit".to_owned()];
    let (mut cut, mut lost) = (0, 0);
    for is_after in [false, true] {
        for nth in 0.. {
            let kit = format!("kit-{}", kits.len());
            let change = ["recovery-key", "rotate", "--passphrase-file", &passphrase, "--kit", &kit];
            let wraps = KeyHeader::decode(&newest_header(&hostile, &b)).unwrap().wraps;
            let hits = hostile.arm(cut_from(nth, is_after));
            let done = a.run(&change);
            hostile.disarm();
            let changed = KeyHeader::decode(&newest_header(&hostile, &b)).unwrap().wraps;
            assert_eq!(changed[0], wraps[0], "the passphrase's wrap is as it was");
            kits.push(kit.clone());
            if hits.count() == 0 {
                done.ok();
                assert!(nth > 0, "nothing was cut");
                break;
            }
            cut += 1;
            lost += u32::from(changed[1] != wraps[1]);
            if done.status != Some(0) {
                a.ok(&change);
            }
            b.ok(&["status"]);
        }
    }
    assert!(cut >= 4 && lost >= 1, "{cut} {lost}");
    // The last kit alone, and it brings everything back.
    let new = world.secret("recovered", "a passphrase after recovery");
    let last = kits.pop().unwrap();
    for kit in &kits {
        let done = recover(&world, "refused", kit, &new);
        if world.path(kit).exists() {
            done.ends(5, &["recovery key is wrong"]);
        } else {
            assert_ne!(done.status, Some(0), "{done:#?}");
        }
    }
    a.put("n", "\"kept\"").ok();
    recover(&world, "c", &last, &new).ok();
    assert_eq!(world.device("c").get("n"), "\"kept\"");
}

/// Recovers with a kit, keeping the other devices.
fn recover(world: &World, device: &str, kit: &str, new: &str) -> crate::program::Done {
    let kit_new = format!("kit-of-{device}");
    let arguments = ["recover", "--name", NAME, "--recovery-key-file", kit, "--passphrase-file", new];
    world.device(device).run(&[&arguments[..], &["--kit", &kit_new, "--keep-others"]].concat())
}

/// The key header that the server has now, as a device asks for it.
fn newest_header(hostile: &Hostile, device: &Device) -> Vec<u8> {
    device.ok(&["status"]);
    served_header(hostile)
}

/// Cuts every request from the nth on.
fn cut_from(nth: u64, is_after: bool) -> Rule {
    let mut left = nth;
    let mut is_cut = move || {
        let is_cut = left == 0;
        left = left.saturating_sub(1);
        is_cut
    };
    if is_after {
        Rule::after("cut", move |_, _| is_cut().then_some(Reply::Cut))
    } else {
        Rule::before("cut", move |_| is_cut().then_some(Reply::Cut))
    }
}
