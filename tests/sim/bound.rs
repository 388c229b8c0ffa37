//! What binds a chain beyond its links: nothing is kept of a chain that passes by a pin of the device log, and a repair
//! that was followed has to come.

use crate::bench::{Desk, ROOMY, TIGHT, note, stopped};
use crate::dice::generator;
use crate::fixture::FIXTURE;
use crate::hostile::scene;
use crate::repair::{by_identity, hash_at, parted, publish, repair, went_back};
use crate::server::{ModelServer, PageSizes};
use crate::tamper::Draft;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_engine::VaultEngine;
use lockstep_engine::effect::{Answer, Event, Input};
use lockstep_engine::engine::Setup;
use lockstep_engine::error::EngineError;
use lockstep_proto::Digest;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::commit::Commit;
use lockstep_proto::device_log::{DeviceLog, Pin};
use lockstep_proto::id::Seq;
use lockstep_proto::vault_log::keyring_vault_id;
use std::sync::Arc;

/// The device log after a device was revoked with this pin of the vault.
fn revoked(device: usize, pin: (Seq, Digest)) -> Arc<DeviceLog> {
    let keyring = keyring_vault_id(&FIXTURE.identity.to_bytes());
    let mut pins = vec![
        Pin { vault: keyring, seq: Seq::new(0), head: Digest::ZERO },
        Pin { vault: FIXTURE.keys.vault(), seq: pin.0, head: pin.1 },
    ];
    pins.sort_by_key(|pin| pin.vault);
    let mut log = (*FIXTURE.log()).clone();
    let device = FIXTURE.devices[device].id();
    let new = FIXTURE.unlocked.revoke(&FIXTURE.header, &log, device, pins, &mut generator(3, 3)).unwrap();
    log.append(&new.entry).unwrap();
    Arc::new(log)
}

/// What a device's engine is built from that wrote nothing yet.
fn newcomer() -> Setup {
    let device = DeviceKeys::generate(&mut generator(4, 4)).unwrap();
    Setup { device: Arc::new(device), ..FIXTURE.setup(2) }
}

/// A reader that stands at commit 1, a chain of the device that is revoked and another one up to the pinned commit 5,
/// and what the revoked device makes of commit 1 with the server's help, as long as it likes.
fn scene_of_thief(sizes: PageSizes, forged: u64) -> (Desk, ModelServer, ModelServer, Arc<DeviceLog>) {
    let mut server = ModelServer::new(sizes);
    let mut thief = Desk::new(0);
    thief.put(vec![note("a", Some(b"a1"))]);
    thief.sync(&mut server);
    let mut reader = Desk::new(1);
    reader.sync(&mut server);
    let mut liar = server.clone();
    let mut third = Desk::new(2);
    for document in [b"1", b"2"] {
        thief.put(vec![note("b", Some(document))]);
        thief.sync(&mut server);
        third.put(vec![note("c", Some(document))]);
        third.sync(&mut server);
    }
    for number in 0..forged {
        let device = &FIXTURE.devices[0];
        Draft::new(&liar, device, &[number as u8]).publish(&mut liar, device);
        let (signed, _, hash) = liar.commits.last().unwrap();
        let commit = Commit::decode(&signed.bytes.0).unwrap();
        (liar.tip.seq, liar.tip.hash) = (commit.seq, *hash);
    }
    let log = revoked(0, (Seq::new(5), hash_at(&server, Seq::new(5))));
    reader.engine = VaultEngine::new(FIXTURE.setup(1), log.clone());
    (reader, server, liar, log)
}

fn pull(desk: &mut Desk, server: &mut ModelServer) -> Vec<Event> {
    desk.run(Input::Pull, &mut |request| server.serve(request))
}

#[test]
fn what_a_revoked_device_wrote_is_taken_on_the_way_to_its_pin_only() {
    for sizes in [ROOMY, TIGHT] {
        // Up to the pin and beyond it, ending before it or not.
        for forged in 1..=6 {
            let (mut reader, mut server, mut liar, log) = scene_of_thief(sizes, forged);
            let before = reader.replica.visible();
            for _ in 0..2 {
                let error = stopped(&pull(&mut reader, &mut liar));
                let is_right = match forged {
                    1..4 => {
                        matches!(error, EngineError::Rollback { verified, .. } if verified == Seq::new(5))
                    }
                    _ => matches!(error, EngineError::Fork { seq, .. } if seq == Seq::new(5)),
                };
                assert!(is_right, "{forged}: {error}");
                assert!(reader.replica.visible() == before, "{forged}: something was kept");
            }
            // The honest chain, for it and for who comes new.
            let mut fresh = Desk::new(2);
            fresh.engine = VaultEngine::new(newcomer(), log);
            for desk in [&mut reader, &mut fresh] {
                let events = pull(desk, &mut server);
                assert_eq!(events.last(), Some(&Event::Idle), "{events:?}");
                assert_eq!(desk.replica.head.as_ref().unwrap().tip.hash, hash_at(&server, Seq::new(5)));
                assert_eq!(desk.read("b"), Some(b"2".to_vec()));
            }
        }
    }
}

/// A pin that lies on a commit which a repair gave up binds nobody who meets the chain for the first time.
#[test]
fn a_repair_behind_a_pin_that_it_gives_up_is_found_ahead() {
    for sizes in [ROOMY, TIGHT] {
        let (one, mut other, branch) = parted(sizes);
        let good = other.clone();
        let log = revoked(1, branch[0]);
        for gives_up in [false, true] {
            let mut fresh = Desk::new(2);
            fresh.engine = VaultEngine::new(newcomer(), log.clone());
            if gives_up {
                let repair = repair(&other, &one.writer, good.tip.seq, branch.clone(), by_identity);
                publish(&mut other, &good, &repair);
            }
            let events = pull(&mut fresh, &mut other);
            if !gives_up {
                assert!(matches!(stopped(&events), EngineError::Fork { .. }), "{events:?}");
                assert!(fresh.read("y").is_none());
                continue;
            }
            assert_eq!(events.last(), Some(&Event::Idle), "{events:?}");
            assert_eq!(fresh.replica.head.as_ref().unwrap().tip, other.tip);
            assert_eq!(fresh.replica.expected, None);
            assert_eq!(fresh.read("y"), Some(b"y3".to_vec()));
        }
    }
}

/// The server shows the repair to a device that searches, and once the device gave its head up, a chain without it.
#[test]
fn a_repair_that_was_followed_has_to_come() {
    for sizes in [ROOMY, TIGHT] {
        let (mut one, mut other, branch) = parted(sizes);
        let good = other.clone();
        let mut longer = good.clone();
        let mut writer = Desk::over(0, one.writer.replica.clone(), 5);
        for document in [b"z1", b"z2", b"z3"] {
            writer.put(vec![note("z", Some(document))]);
            writer.sync(&mut longer);
        }
        let repair = repair(&other, &one.writer, good.tip.seq, branch.clone(), by_identity);
        publish(&mut other, &good, &repair);
        let hash = Commit::hash_of(&repair.commit.bytes.0);
        let shared = branch[0].0.previous().unwrap();
        let (mut from_shared, mut was_shown) = (false, false);
        let events = one.reader.run(Input::Sync, &mut |request| {
            let mut answer = other.serve(request)?;
            if let Answer::Page(page) = &mut answer {
                if was_shown {
                    page.commits.clear();
                    page.entries.clear();
                    (page.head_seq, page.more) = (shared, false);
                }
                let first =
                    page.commits.first().map(|entry| Commit::decode(&entry.commit.bytes.0).unwrap().seq);
                from_shared |= first == Some(shared.next());
                let mut hashes = page.commits.iter().map(|entry| Commit::hash_of(&entry.commit.bytes.0));
                was_shown |= from_shared && hashes.any(|shown| shown == hash);
            }
            Ok(answer)
        });
        assert!(went_back(&events), "{events:?}");
        let place = (other.tip.seq, hash);
        let rollback =
            EngineError::Rollback { vault: FIXTURE.keys.vault(), verified: place.0, server: shared };
        assert_eq!(stopped(&events), rollback);
        assert_eq!(one.reader.replica.expected, Some(place));
        // Nor does it take the branch without the repair, whichever way it goes on.
        let before = one.reader.replica.visible();
        let mut again = Desk::over(1, one.reader.replica.clone(), 8);
        let error = stopped(&pull(&mut again, &mut good.clone()));
        assert!(matches!(error, EngineError::Rollback { verified, .. } if verified == place.0), "{error}");
        let error = stopped(&pull(&mut again, &mut longer));
        assert!(matches!(error, EngineError::Fork { seq, .. } if seq == place.0), "{error}");
        assert!(again.replica.visible() == before);
        again.sync(&mut other);
        assert_eq!(again.replica.expected, None);
        assert_eq!(again.read("y"), Some(b"y3".to_vec()));
    }
}

/// Without a pin in the way nothing is asked for twice.
#[test]
fn an_ordinary_chain_is_read_once() {
    let mut one = scene(TIGHT);
    let mut asked = Vec::new();
    one.reader.run(Input::Pull, &mut |request| {
        asked.push(format!("{request:?}"));
        one.server.serve(request)
    });
    let distinct: std::collections::BTreeSet<_> = asked.iter().collect();
    assert_eq!(distinct.len(), asked.len(), "{asked:#?}");
}

/// A server that shows another chain to every look ahead than to the pull that it is for keeps nobody waiting for ever.
#[test]
fn looking_ahead_ends_where_the_chain_is_another_one_every_time() {
    let (mut reader, mut server, mut liar, _) = scene_of_thief(ROOMY, 2);
    let before = reader.replica.visible();
    let mut asked = 0;
    let events = reader.run(Input::Pull, &mut |request| {
        asked += 1;
        if asked % 2 == 1 { liar.serve(request) } else { server.serve(request) }
    });
    let error = stopped(&events);
    assert!(
        matches!(&error, EngineError::Server { what } if what.contains("whenever it is looked at")),
        "{error}"
    );
    assert!(reader.replica.visible() == before);
    let events = pull(&mut reader, &mut server);
    assert_eq!(events.last(), Some(&Event::Idle), "{events:?}");
}
