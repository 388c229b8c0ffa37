//! Lies about keys: wraps, identities, devices, versions, parameters.

use super::{Scenario, index};
use crate::hostile::rule::Rule;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_proto::Digest;
use lockstep_proto::api::account::Devices;
use lockstep_proto::api::server::ServerInfo;
use lockstep_proto::cbor::{ByteArray, Wire as _};
use lockstep_proto::device_log::{DeviceLogEntry, Enrol, KIND_ENROL};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::label;
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;

const DEVICES: &str = "GET /v1/account/devices";

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "wrap-flipped",
        row: 1,
        does: "flips the lowest bit of byte `at` of everything in the key header that is wrapped or belongs to a wrap",
        must: "refuse the header as not valid before any key is derived; the same requests whichever byte it was",
        rules: |at| vec![key_header("wrap-flipped", at.at, |at, header| flip_wrapped(header, at))],
    },
    Scenario {
        name: "wrap-swapped",
        row: 1,
        does: "swaps pair `at` of the wrapped keys in the key header: passphrase, recovery, keyring, links, seals",
        must: "as for wrap-flipped",
        rules: |at| {
            vec![key_header("wrap-swapped", at.at, |at, header| edit(header, |header| swap(header, at)))]
        },
    },
    Scenario {
        name: "device-key-swapped",
        row: 3,
        does: "swaps the public key of a device in the device log for the server's own: at = 0 signs, 1 is sealed to",
        must: "refuse the log; nothing is sealed to the key, nothing sent",
        rules: |at| vec![entries("device-key-swapped", at.at, swap_device_key)],
    },
    Scenario {
        name: "other-identity",
        row: 3,
        does: "signs key header and device log anew with an identity of its own",
        must: "refuse: the account id certifies another identity",
        rules: |_| {
            vec![Rule::answer_of::<Devices>("other-identity", DEVICES, |_, devices| {
                other_identity(devices);
                true
            })]
        },
    },
    Scenario {
        name: "older-version",
        row: 4,
        does: "offers draft 1 only (at = 0), a suite 2 (at = 1)",
        must: "refuse before the passphrase is asked for",
        rules: |at| {
            let at = at.at;
            vec![Rule::answer_of::<ServerInfo>("older-version", "GET /v1/server", move |_, info| {
                if at == 0 {
                    info.versions = vec![0x81];
                } else {
                    info.suite = 2;
                }
                true
            })]
        },
    },
    Scenario {
        name: "relabelled",
        row: 4,
        does: "says of the key header that it is of draft 1 (at = 0) or of suite 2 (1); the same of the log (2, 3)",
        must: "refuse by naming it, before any key is derived",
        rules: |at| vec![relabel(at.at)],
    },
    Scenario {
        name: "kdf-profile",
        row: 5,
        does: "writes number `at` in the place of the Argon2id profile of the passphrase's wrap; 8 KiB and 4 GiB of \
               memory can not be written, because parameters have numbers",
        must: "refuse before Argon2id runs",
        rules: |at| {
            vec![key_header("kdf-profile", at.at, |at, header| {
                edit(header, |header| {
                    header.wraps[0].profile = u8::try_from(at).unwrap();
                    true
                })
            })]
        },
    },
    Scenario {
        name: "kdf-salt",
        row: 5,
        does: "serves one salt to every account: sixteen bytes `at`",
        must: "refuse: the salt is under the identity's signature",
        rules: |at| {
            vec![key_header("kdf-salt", at.at, |at, header| {
                edit(header, |header| {
                    header.wraps[0].salt = ByteArray([u8::try_from(at).unwrap(); 16]);
                    true
                })
            })]
        },
    },
    Scenario {
        name: "ghost-device",
        row: 15,
        does: "adds a device of its own to the device log, with a seal in the key header, signed by that device",
        must: "refuse the log; no key is sealed to it",
        rules: |_| {
            vec![Rule::answer_of::<Devices>("ghost-device", DEVICES, |_, devices| {
                add_ghost(devices);
                true
            })]
        },
    },
    Scenario {
        name: "own-recovery-key",
        row: 17,
        does: "writes its own recovery sign-in key and a wrap of its own into the key header",
        must: "refuse the header",
        rules: |_| {
            vec![key_header("own-recovery-key", 0, |_, header| {
                edit(header, |header| {
                    header.recovery = own_keys().sign_public();
                    let wrap = &mut header.wraps[1];
                    wrap.commitment = Digest::from_bytes([7; 32]);
                    wrap.ciphertext = ByteArray([7; 48]);
                    true
                })
            })]
        },
    },
    Scenario {
        name: "old-key-header",
        row: 18,
        does: "goes on serving the first key header that it saw, the log as it is",
        must: "refuse: the log names another header",
        rules: |_| {
            let mut first = None;
            vec![Rule::answer_of::<Devices>("old-key-header", DEVICES, move |_, devices| {
                let old = first.get_or_insert_with(|| devices.key_header.clone());
                let is_other = *old != devices.key_header;
                devices.key_header = old.clone();
                is_other
            })]
        },
    },
];

/// Keys that the server made: always the same ones.
pub fn own_keys() -> DeviceKeys {
    DeviceKeys::generate(&mut ChaCha20Rng::from_seed([66; 32])).unwrap()
}

fn key_header(name: &str, at: u64, change: fn(u64, &mut Vec<u8>) -> bool) -> Rule {
    Rule::answer_of::<Devices>(name, DEVICES, move |_, devices| change(at, &mut devices.key_header.bytes.0))
}

fn entries(name: &str, at: u64, change: fn(u64, &mut DeviceLogEntry) -> bool) -> Rule {
    Rule::answer_of::<Devices>(name, DEVICES, move |_, devices| {
        let Some(last) = devices.entries.last_mut() else { return false };
        let mut entry = DeviceLogEntry::decode(&last.bytes.0).unwrap();
        let is_changed = change(at, &mut entry);
        last.bytes = entry.encode().into();
        is_changed
    })
}

fn edit(bytes: &mut Vec<u8>, change: impl FnOnce(&mut KeyHeader) -> bool) -> bool {
    let mut header = KeyHeader::decode(bytes).unwrap();
    let is_changed = change(&mut header);
    *bytes = header.encode();
    is_changed
}

/// Places of the bytes that are wrapped keys or belong to them: salts, nonces, commitments, ciphertexts, encapsulations.
pub fn wrapped_places(bytes: &[u8]) -> Vec<usize> {
    let header = KeyHeader::decode(bytes).unwrap();
    let mut parts: Vec<&[u8]> = Vec::new();
    for wrap in &header.wraps {
        parts.extend([&wrap.salt.0[..], &wrap.nonce.0, wrap.commitment.as_bytes(), &wrap.ciphertext.0]);
    }
    let keyring = &header.keyring;
    parts.extend([&keyring.nonce.0[..], keyring.commitment.as_bytes(), &keyring.ciphertext.0]);
    for link in &keyring.links {
        parts.extend([&link.nonce.0[..], link.commitment.as_bytes(), &link.ciphertext.0]);
    }
    for seal in &keyring.seals {
        parts.extend([&seal.encapsulated.0[..], &seal.ciphertext.0]);
    }
    let place = |part: &[u8]| bytes.windows(part.len()).position(|window| window == part).unwrap();
    parts.into_iter().flat_map(|part| place(part)..place(part) + part.len()).collect()
}

fn flip_wrapped(bytes: &mut [u8], at: u64) -> bool {
    let places = wrapped_places(bytes);
    bytes[places[index(at, places.len())]] ^= 1;
    true
}

/// Everything in a key header that holds 48 sealed bytes.
fn slots(header: &mut KeyHeader) -> Vec<&mut ByteArray<48>> {
    let mut slots: Vec<&mut ByteArray<48>> = Vec::new();
    slots.extend(header.wraps.iter_mut().map(|wrap| &mut wrap.ciphertext));
    slots.push(&mut header.keyring.ciphertext);
    slots.extend(header.keyring.links.iter_mut().map(|link| &mut link.ciphertext));
    slots.extend(header.keyring.seals.iter_mut().map(|seal| &mut seal.ciphertext));
    slots
}

/// Nonce, commitment and sealed key of what is under one key: the root's wraps, the keyring's key, its links.
type Whole<'a> = (&'a mut ByteArray<24>, &'a mut Digest, &'a mut ByteArray<48>);

fn wholes(header: &mut KeyHeader) -> Vec<Whole<'_>> {
    let KeyHeader { wraps, keyring, .. } = header;
    let mut wholes: Vec<Whole<'_>> = Vec::new();
    wholes.extend(wraps.iter_mut().map(|one| (&mut one.nonce, &mut one.commitment, &mut one.ciphertext)));
    wholes.push((&mut keyring.nonce, &mut keyring.commitment, &mut keyring.ciphertext));
    let links = keyring.links.iter_mut();
    wholes.extend(links.map(|one| (&mut one.nonce, &mut one.commitment, &mut one.ciphertext)));
    wholes
}

/// Every two of so many.
fn couples(count: usize) -> Vec<(usize, usize)> {
    (0..count).flat_map(|left| (left + 1..count).map(move |right| (left, right))).collect()
}

/// Two of a list.
fn two<T>(list: &mut [T], (left, right): (usize, usize)) -> (&mut T, &mut T) {
    let (one, other) = list.split_at_mut(right);
    (&mut one[left], &mut other[0])
}

/// How many ways there are to swap two of a header's wrapped keys: any two sealed keys alone; two that have a nonce and a
/// commitment with these; two devices' seals with their encapsulations.
pub fn pairs(bytes: &[u8]) -> u64 {
    let mut header = KeyHeader::decode(bytes).unwrap();
    let count = couples(slots(&mut header).len()).len()
        + couples(wholes(&mut header).len()).len()
        + couples(header.keyring.seals.len()).len();
    u64::try_from(count).unwrap()
}

/// Swaps one pair of [`pairs`]; gives which two, in the order: passphrase, recovery, keyring, links, seals.
pub fn exchanged(header: &mut KeyHeader, at: u64) -> (usize, usize) {
    let sealed = wholes(header).len();
    let kinds = [couples(slots(header).len()), couples(sealed), couples(header.keyring.seals.len())];
    let (alone, whole) = (kinds[0].len(), kinds[0].len() + kinds[1].len());
    let all = kinds.concat();
    let at = index(at, all.len());
    let pair = all[at];
    if at < alone {
        let mut slots = slots(header);
        let (one, other) = two(&mut slots, pair);
        std::mem::swap(*one, *other);
        return pair;
    }
    if at < whole {
        let mut wholes = wholes(header);
        let (one, other) = two(&mut wholes, pair);
        std::mem::swap(one.0, other.0);
        std::mem::swap(one.1, other.1);
        std::mem::swap(one.2, other.2);
        if pair == (0, 1) {
            let (one, other) = two(&mut header.wraps, pair);
            std::mem::swap(&mut one.salt, &mut other.salt);
        }
        return pair;
    }
    let (one, other) = two(&mut header.keyring.seals, pair);
    std::mem::swap(&mut one.encapsulated, &mut other.encapsulated);
    std::mem::swap(&mut one.ciphertext, &mut other.ciphertext);
    (sealed + pair.0, sealed + pair.1)
}

fn swap(header: &mut KeyHeader, at: u64) -> bool {
    exchanged(header, at);
    true
}

fn swap_device_key(at: u64, entry: &mut DeviceLogEntry) -> bool {
    let Ok(mut enrol) = Enrol::decode(&entry.body.0) else { return false };
    let own = own_keys();
    if at == 0 {
        enrol.sign_key = own.sign_public();
    } else {
        enrol.seal_key = own.seal_public();
    }
    entry.body = enrol.encode().into();
    true
}

fn other_identity(devices: &mut Devices) {
    let own = own_keys();
    edit(&mut devices.key_header.bytes.0, |header| {
        header.identity = own.sign_public();
        true
    });
    devices.key_header = own.sign(label::KEY_HEADER, devices.key_header.bytes.0.clone());
    for entry in &mut devices.entries {
        *entry = own.sign(label::DEVICE_LOG_ENTRY, entry.bytes.0.clone());
    }
}

fn relabel(at: u64) -> Rule {
    Rule::answer_of::<Devices>("relabelled", DEVICES, move |_, devices| {
        if at < 2 {
            return edit(&mut devices.key_header.bytes.0, |header| {
                if at == 0 {
                    header.version = 0x81;
                } else {
                    header.suite = 2;
                }
                true
            });
        }
        let Some(last) = devices.entries.last_mut() else { return false };
        let mut entry = DeviceLogEntry::decode(&last.bytes.0).unwrap();
        if at == 2 {
            entry.version = 0x81;
        } else {
            entry.suite = 2;
        }
        last.bytes = entry.encode().into();
        true
    })
}

/// Appends an entry that the server signs for a device of its own, and the header that it names.
fn add_ghost(devices: &mut Devices) {
    let ghost = own_keys();
    let mut header = KeyHeader::decode(&devices.key_header.bytes.0).unwrap();
    header.counter += 1;
    let mut seal = header.keyring.seals[0].clone();
    seal.device = ghost.id();
    header.keyring.seals.push(seal);
    header.keyring.seals.sort_by_key(|seal| seal.device);
    devices.key_header = ghost.sign(label::KEY_HEADER, header.encode());
    let last = devices.entries.last().map(|entry| DeviceLogEntry::decode(&entry.bytes.0).unwrap());
    let previous = devices.entries.last().map(|entry| entry.digest(label::DEVICE_LOG_ENTRY));
    let model = last.as_ref().and_then(|last| Enrol::decode(&last.body.0).ok());
    let name = model.map(|enrol| enrol.name).unwrap_or(lockstep_proto::device_log::SealedName {
        epoch: header.keyring.epoch,
        nonce: ByteArray([7; 24]),
        commitment: Digest::from_bytes([7; 32]),
        ciphertext: ByteArray([7; 80]),
    });
    let enrol = Enrol {
        device: ghost.id(),
        sign_key: ghost.sign_public(),
        seal_key: ghost.seal_public(),
        class: lockstep_proto::device_log::CLASS_FULL,
        scope: Vec::new(),
        name,
        pins: Vec::new(),
        proof: ByteArray([7; 64]),
    };
    let entry = DeviceLogEntry {
        version: header.version,
        suite: header.suite,
        account: header.account,
        index: devices.total,
        previous: previous.unwrap_or(Digest::ZERO),
        kind: KIND_ENROL,
        key_header_counter: header.counter,
        key_header_hash: devices.key_header.digest(label::KEY_HEADER),
        body: enrol.encode().into(),
    };
    devices.entries.push(ghost.sign(label::DEVICE_LOG_ENTRY, entry.encode()));
    devices.total += 1;
}
