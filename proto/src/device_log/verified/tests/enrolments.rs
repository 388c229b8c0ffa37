//! Tests of what an enrolment is refused for.

use super::*;

#[test]
fn the_first_enrolment_pins_nothing_and_every_other_the_keyring() {
    let other = Pin { vault: VaultId::from_bytes([0; 16]), ..pin(1) };
    refused(enrol_as(&mut empty(), 1, claims(1, vec![pin(1)])), "the first enrolment has no pins");
    let log = log();
    for pins in [Vec::new(), vec![other]] {
        refused(enrol_as(&mut log.clone(), 4, claims(4, pins.clone())), "every later one pins the keyring");
    }
    for pins in [vec![pin(1)], vec![other, pin(1)]] {
        enrol_as(&mut log.clone(), 4, claims(4, pins)).unwrap();
    }
    for pins in [vec![pin(1), other], vec![pin(1), pin(2)]] {
        refused(enrol_as(&mut log.clone(), 4, claims(4, pins)), "pins ascend by vault");
    }
}

#[test]
fn pins_are_no_more_than_an_account_has_vaults() {
    let mut log = log();
    let pins = |count: u16| {
        let mut pins: Vec<Pin> = (0..count - 1)
            .map(|number| {
                let mut vault = [0; 16];
                vault[..2].copy_from_slice(&number.to_be_bytes());
                Pin { vault: VaultId::from_bytes(vault), ..pin(1) }
            })
            .collect();
        pins.push(pin(1));
        pins.sort_by_key(|pin| pin.vault);
        pins
    };
    for count in [1023, 1024] {
        enrol_as(&mut log.clone(), 4, claims(4, pins(count))).unwrap();
    }
    refused(enrol_as(&mut log.clone(), 4, claims(4, pins(1025))), "pins ascend by vault, each vault once");
    refused(revoke(&mut log.clone(), 1, pins(1025)), "pins ascend by vault, each vault once");
    enrol(&mut log, 4).unwrap();
    revoke(&mut log, 4, pins(1024)).unwrap();
}

#[test]
fn devices_and_their_keys_are_enrolled_once_and_wholly() {
    let log = log();
    let twice: [fn(&mut Enrol); 5] = [
        |enrol| enrol.device = id(1),
        |enrol| enrol.device = id(2),
        |enrol| enrol.device = DeviceId::ZERO,
        |enrol| enrol.seal_key = ByteArray([1; 1216]),
        |enrol| enrol.seal_key = ByteArray([2; 1216]),
    ];
    for spoil in twice {
        let mut enrol = claims(4, vec![pin(1)]);
        spoil(&mut enrol);
        refused(enrol_as(&mut log.clone(), 4, enrol), "enrolled before");
    }
    for device in [1, 2] {
        let mut enrol = claims(4, vec![pin(1)]);
        enrol.sign_key = claims(device, Vec::new()).sign_key;
        refused(enrol_as(&mut log.clone(), device, enrol), "enrolled before");
    }
    let mut weak = claims(4, vec![pin(1)]);
    weak.sign_key = Digest::ZERO;
    refused(enrol_as(&mut log.clone(), 4, weak), "not a valid key");
    refused(enrol_as(&mut log.clone(), 5, claims(4, vec![pin(1)])), "proof of possession");
    for class in [0, 2] {
        let other = Enrol { class, ..claims(4, vec![pin(1)]) };
        refused(enrol_as(&mut log.clone(), 4, other), "only devices of class full");
    }
    let scoped = Enrol { scope: vec![keyring()], ..claims(4, vec![pin(1)]) };
    refused(enrol_as(&mut log.clone(), 4, scoped), "only devices of class full");
    enrol_as(&mut log.clone(), 4, claims(4, vec![pin(1)])).unwrap();
}

#[test]
fn a_proof_is_for_its_place_and_for_all_that_is_claimed() {
    let enrol = claims(4, vec![pin(1)]);
    let (account, previous) = (AccountId::from_bytes([1; 16]), Digest::from_bytes([2; 32]));
    let input = enrol.proof_input(account, 3, previous);
    let mut inputs = vec![
        enrol.proof_input(AccountId::ZERO, 3, previous),
        enrol.proof_input(account, 4, previous),
        enrol.proof_input(account, 3, Digest::ZERO),
    ];
    let spoilt: [fn(&mut Enrol); 7] = [
        |enrol| enrol.device = id(5),
        |enrol| enrol.sign_key = Digest::ZERO,
        |enrol| enrol.seal_key = ByteArray([0; 1216]),
        |enrol| enrol.class = 2,
        |enrol| enrol.scope = vec![keyring()],
        |enrol| enrol.name.epoch = Epoch::new(2),
        |enrol| enrol.pins = vec![pin(2)],
    ];
    for spoil in spoilt {
        let mut other = enrol.clone();
        spoil(&mut other);
        inputs.push(other.proof_input(account, 3, previous));
    }
    assert!(inputs.iter().all(|other| *other != input));
}

#[test]
fn no_more_devices_than_the_limit_are_live_at_once() {
    let mut log = empty();
    for device in 1..=64 {
        enrol(&mut log, device).unwrap();
    }
    refused(enrol(&mut log.clone(), 65), "the account has 64 devices");
    revoke(&mut log, 64, vec![pin(1)]).unwrap();
    enrol(&mut log, 65).unwrap();
    refused(enrol(&mut log, 66), "the account has 64 devices");
}
