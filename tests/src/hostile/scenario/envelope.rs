//! Lies about envelopes: each record's bytes in the place of another's.

use super::chain::{of_entries, of_page};
use super::{At, Scenario, index};
use crate::hostile::rule::Rule;
use lockstep_proto::Digest;
use lockstep_proto::api::vault::Entry;
use lockstep_proto::cbor::{Bytes, Wire as _};
use lockstep_proto::envelope::{self, Envelope, EnvelopeHeader};
use lockstep_proto::id::{DeviceId, Epoch, RecordId, VaultId};
use std::collections::BTreeMap;

/// Scenarios of this file.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "envelopes-swapped",
        row: 9,
        does: "swaps the envelopes of the first two entries of every answer",
        must: "refuse the answer; nothing of it is kept or shown",
        rules: |at| {
            everywhere("envelopes-swapped", at, |entries, _| {
                if entries.len() < 2 || entries[0].envelope == entries[1].envelope {
                    return false;
                }
                let first = entries[0].envelope.clone();
                entries[0].envelope = std::mem::replace(&mut entries[1].envelope, first);
                true
            })
        },
    },
    Scenario {
        name: "envelope-relabelled",
        row: 9,
        does: "changes one field of every envelope's header: version, suite, kind, vault, record, revision, epoch, \
               device, list of blobs, nonce (at = 0 to 9), or its commitment (10) or ciphertext (11)",
        must: "refuse the answer",
        rules: |at| everywhere("envelope-relabelled", at, relabel),
    },
    Scenario {
        name: "envelope-replaced",
        row: 12,
        does: "serves the first version that it saw of each record in the place of every later one",
        must: "`RecordRollback`: refuse the answer as a record that went back in time",
        rules: |at| {
            let mut seen: BTreeMap<RecordId, Entry> = BTreeMap::new();
            let rule = move |entries: &mut Vec<Entry>| {
                let mut is_changed = false;
                for entry in entries {
                    let first = seen.entry(entry.record).or_insert_with(|| entry.clone());
                    is_changed |= first.envelope != entry.envelope;
                    entry.envelope = first.envelope.clone();
                }
                is_changed
            };
            let rule = std::sync::Arc::new(std::sync::Mutex::new(rule));
            of_entries("envelope-replaced", at, move |entries| rule.lock().unwrap()(entries))
        },
    },
    Scenario {
        name: "key-of-the-server",
        row: 2,
        does: "puts an envelope that it sealed itself, under a key of its own, in the place of every one",
        must: "refuse the answer; nothing is written under the key",
        rules: |at| {
            everywhere("key-of-the-server", at, |entries, _| {
                for entry in entries.iter_mut() {
                    entry.envelope = sealed_by_the_server(&entry.envelope.0);
                }
                !entries.is_empty()
            })
        },
    },
    Scenario {
        name: "other-key",
        row: 19,
        does: "commits an envelope to another key: the commitment is another one, the ciphertext as it was",
        must: "refuse the answer at the digest, and whoever gets past that at the commitment, before decryption",
        rules: |at| everywhere("other-key", at, |entries, _| relabel(entries, 10)),
    },
    Scenario {
        name: "state-in-pages",
        row: 10,
        does: "sends every entry of a page twice",
        must: "refuse the answer",
        rules: |at| {
            vec![of_page("state-in-pages", at, |page| {
                let again = page.entries.clone();
                page.entries.extend(again);
                !page.entries.is_empty()
            })]
        },
    },
];

fn everywhere(name: &'static str, at: &At, change: fn(&mut Vec<Entry>, u64) -> bool) -> Vec<Rule> {
    let number = at.at;
    of_entries(name, at, move |entries| change(entries, number))
}

#[allow(clippy::ptr_arg, reason = "one signature for every change of entries")]
fn relabel(entries: &mut Vec<Entry>, at: u64) -> bool {
    for entry in entries.iter_mut() {
        entry.envelope = relabelled(&entry.envelope.0, at);
    }
    !entries.is_empty()
}

/// An envelope of which one part is another.
pub fn relabelled(bytes: &[u8], at: u64) -> Bytes {
    let (mut envelope, mut header) = envelope::decode(bytes).unwrap();
    match at {
        0 => header.version = 0x81,
        1 => header.suite = 2,
        2 => header.kind = 3 - header.kind,
        3 => header.vault = VaultId::from_bytes([7; 16]),
        4 => header.record = RecordId::from_bytes([7; 16]),
        5 => header.revision = header.revision.next(),
        6 => header.epoch = Epoch::new(header.epoch.value() + 1),
        7 => header.device = DeviceId::from_bytes([7; 16]),
        8 => header.blobs = Digest::from_bytes([7; 32]),
        9 => header.nonce.0[0] ^= 1,
        10 => envelope.commitment = Digest::from_bytes([7; 32]),
        _ => {
            let place = index(at, envelope.ciphertext.0.len());
            envelope.ciphertext.0[place] ^= 1;
        }
    }
    envelope.header = EnvelopeHeader::encode(&header).into();
    Envelope::encode(&envelope).into()
}

/// The same header, and a ciphertext under a key that the server made.
fn sealed_by_the_server(bytes: &[u8]) -> Bytes {
    use lockstep_client_crypto::content::Content;
    use lockstep_client_crypto::secret::SecretKey;
    use lockstep_client_crypto::vault::{SealAs, VaultKeys};
    use rand::SeedableRng as _;
    let (_, header) = envelope::decode(bytes).unwrap();
    let secret = SecretKey::from_bytes(&[66; 32]);
    let keys =
        VaultKeys::new(header.vault, &secret).with_epoch(header.epoch, SecretKey::from_bytes(&[67; 32]));
    let content = Content {
        record_type: "note".into(),
        name: b"of-the-server".as_slice().into(),
        schema: 1,
        codec: 0,
        hlc: lockstep_client_crypto::content::Hlc { utc_ms: 1, counter: 0 },
        operation: lockstep_proto::id::OperationId::from_bytes([1; 16]),
        base_revision: lockstep_proto::id::Revision::new(0),
        conflict_of: Vec::new().into(),
        document: b"\"chosen by the server\"".as_slice().into(),
        blobs: Vec::new(),
        manifest: (),
    };
    let seal_as = SealAs { kind: header.kind, revision: header.revision, epoch: header.epoch };
    let mut rng = rand::rngs::ChaCha20Rng::from_seed([66; 32]);
    keys.seal(seal_as, &content, &super::keys::own_keys(), &mut rng).unwrap().into()
}
