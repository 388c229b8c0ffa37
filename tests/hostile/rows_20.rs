//! Row 20, cross-protocol reuse: what is signed for one purpose verifies for no other, whatever bytes a server chooses.

use lockstep_client_crypto::account::{Enrolment, Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::vault::{Parent, Rotating, give_birth, sign_rotation};
use lockstep_proto::api::auth::{
    ACTION_DELETE_VAULT, ACTION_REGISTER, PURPOSE_DEVICE, PURPOSE_RECOVERY, Statement, action_input,
    statement_input,
};
use lockstep_proto::cbor::{ByteArray, Wire};
use lockstep_proto::commit::{Change, Commit, RepairPlace, repair_input};
use lockstep_proto::device_log::{DeviceLogEntry, Enrol};
use lockstep_proto::id::{DeviceId, Epoch, Seq, VaultId};
use lockstep_proto::key_header::KeyHeader;
use lockstep_proto::label::{self, Label};
use lockstep_proto::sign::{PublicKey, Signature, signing_input};
use lockstep_proto::vault_log::{VaultLogEntry, deletion_input};
use lockstep_proto::{Digest, Signed};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use std::collections::BTreeSet;

/// One thing that somebody signs: its bytes, for what, by whom.
struct Made {
    what: &'static str,
    label: Label,
    bytes: Vec<u8>,
    signature: Signature,
    key: PublicKey,
}

fn made(what: &'static str, label: Label, signed: Signed, key: PublicKey) -> Made {
    Made { what, label, bytes: signed.bytes.0, signature: signed.signature, key }
}

struct People {
    unlocked: UnlockedAccount,
    device: DeviceKeys,
    device_key: PublicKey,
    enrolment: Enrolment,
}

fn people() -> People {
    let mut rng = ChaCha20Rng::from_seed([20; 32]);
    let unlocked = UnlockedAccount::create(&mut rng).unwrap();
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let credentials = NewCredentials {
        passphrase: &Passphrase::new("a passphrase of some length").unwrap(),
        recovery: &RecoveryKey::generate(&mut rng),
    };
    let joining = Joining { device: &device, name: "a", pins: Vec::new() };
    let enrolment = unlocked.first_enrolment(credentials, joining, &mut rng).unwrap();
    let device_key = PublicKey::from_bytes(device.sign_public().as_bytes()).unwrap();
    People { unlocked, device, device_key, enrolment }
}

impl People {
    fn statement(&self, purpose: u8, server_nonce: Digest) -> Statement {
        Statement {
            account: self.unlocked.account(),
            device: self.device.id(),
            purpose,
            server_nonce,
            client_nonce: Digest::ZERO,
            signature: ByteArray([0; 64]),
        }
    }

    /// Everything that is signed anywhere, made by the code that makes it.
    fn everything(&self) -> Vec<Made> {
        let (identity, own, account) = (*self.unlocked.identity(), self.device_key, self.unlocked.account());
        let Enrolment { key_header, entry } = self.enrolment.clone();
        let vault = VaultId::from_bytes([9; 16]);
        let log_head = entry.digest(label::DEVICE_LOG_ENTRY);
        let parent =
            Parent { account, identity: &identity, device_log_index: 0, device_log_head: log_head, utc: 1 };
        let birth = give_birth(vault, &parent, &self.device);
        let head = birth.create.digest(label::VAULT_LOG_ENTRY);
        let rotating = Rotating { parent: &parent, index: 0, head, epoch: Epoch::new(2) };
        let body = DeviceLogEntry::decode(&entry.bytes.0).unwrap();
        let enrol = Enrol::decode(&body.body.0).unwrap();
        let proof = Made {
            what: "device proof",
            label: label::DEVICE_PROOF,
            bytes: enrol.proof_input(account, 0, Digest::ZERO),
            signature: enrol.proof,
            key: own,
        };
        let place = RepairPlace { vault, seq: Seq::new(5), previous: head, device: self.device.id() };
        let says = [Change::GoBack(Seq::new(3))];
        let repair = Made {
            what: "repair",
            label: label::REPAIR,
            bytes: repair_input(account, &place, &says),
            signature: self.unlocked.authorise_repair(&place, &says),
            key: identity,
        };
        let deletion = Made {
            what: "deletion of a vault",
            label: label::VAULT_DELETION,
            bytes: deletion_input(account, vault),
            signature: self.unlocked.authorise_deletion(vault),
            key: identity,
        };
        let mut all = vec![
            made("key header", label::KEY_HEADER, key_header, identity),
            made("device-log entry", label::DEVICE_LOG_ENTRY, entry, identity),
            made("vault-log entry", label::VAULT_LOG_ENTRY, birth.create, own),
            made("commit", label::COMMIT, birth.genesis, own),
            made("rotation", label::VAULT_LOG_ENTRY, sign_rotation(vault, &rotating, &self.device), own),
            proof,
            repair,
            deletion,
        ];
        for action in ACTION_REGISTER..=ACTION_DELETE_VAULT {
            let signature = self.unlocked.authorise(action, b"body", 0, log_head);
            let bytes = action_input(account, action, b"body", 0, log_head);
            all.push(Made { what: "action", label: label::ACTION, bytes, signature, key: identity });
        }
        for purpose in [PURPOSE_DEVICE, PURPOSE_RECOVERY] {
            let signed = self.device.sign_statement("https://a", self.statement(purpose, log_head));
            let bytes = statement_input("https://a", &signed);
            let signature = signed.signature;
            all.push(Made { what: "statement", label: label::LOGIN, bytes, signature, key: own });
        }
        all
    }
}

#[test]
fn row_20_a_signature_verifies_for_its_own_label_bytes_and_key_alone() {
    let people = people();
    let all = people.everything();
    for one in &all {
        assert!(one.key.verify("", one.label, &one.bytes, &one.signature).is_ok(), "{} is good", one.what);
        for label in label::ALL.iter().filter(|label| **label != one.label) {
            let verdict = one.key.verify("", *label, &one.bytes, &one.signature);
            assert!(verdict.is_err(), "{} as {}", one.what, label.as_str());
            // Nor does what was signed, taken as the bytes of something else.
            let raw = signing_input(one.label, &one.bytes);
            assert!(one.key.verify("", *label, &raw, &one.signature).is_err());
        }
        for other in all.iter().filter(|other| other.bytes != one.bytes) {
            for key in [one.key, other.key] {
                let verdict = key.verify("", other.label, &other.bytes, &one.signature);
                assert!(verdict.is_err(), "the signature of {} on {}", one.what, other.what);
            }
        }
    }
    let labels: BTreeSet<&str> = all.iter().map(|one| one.label.as_str()).collect();
    assert_eq!(labels.len(), 9, "a label that is signed under is not tried: {labels:?}");
}

/// What is signed is one array of a label and a digest, 32 bytes, of the same length for one label whatever the bytes:
/// for two labels, or other bytes, it differs, and none begins another.
#[test]
fn row_20_what_is_signed_differs_for_every_two_labels() {
    let people = people();
    let mut inputs = BTreeSet::new();
    let mut contents: Vec<Vec<u8>> = people.everything().into_iter().map(|made| made.bytes).collect();
    contents.extend([Vec::new(), vec![0], vec![0x82]]);
    contents.sort();
    contents.dedup();
    for label in label::ALL {
        for bytes in &contents {
            let input = signing_input(*label, bytes);
            assert_eq!(input.len(), signing_input(*label, b"").len());
            assert_eq!(input[input.len() - 32..], Digest::of(*label, bytes).as_bytes()[..]);
            assert!(inputs.insert(input), "{}", label.as_str());
        }
    }
    assert_eq!(inputs.len(), label::ALL.len() * contents.len());
    let all: Vec<&Vec<u8>> = inputs.iter().collect();
    assert!(all.windows(2).all(|pair| !pair[1].starts_with(pair[0])), "one begins another");
}

/// The server chooses the nonce that a device signs: the hash of an entry or a commit that it wants signed, the digest
/// that stands in what is signed for it, or pieces of its bytes.
#[test]
fn row_20_a_challenge_that_equals_the_bytes_of_an_entry_signs_no_entry() {
    let people = people();
    let wanted = people.everything();
    for one in &wanted {
        let mut nonces = vec![Digest::of(one.label, &one.bytes), Digest::of(label::LOGIN, &one.bytes)];
        nonces.extend(one.bytes.chunks_exact(32).map(|chunk| Digest::from_slice(chunk).unwrap()));
        // Before the origin was bound a server could choose that, too: bytes of an entry are no text, but say it is.
        let origins = ["https://a".to_owned(), String::from_utf8_lossy(&one.bytes).into_owned()];
        for nonce in nonces {
            for origin in &origins {
                let signed = people.device.sign_statement(origin, people.statement(PURPOSE_DEVICE, nonce));
                let own = statement_input(origin, &signed);
                assert!(people.device_key.verify("", label::LOGIN, &own, &signed.signature).is_ok());
                for target in &wanted {
                    let verdict =
                        people.device_key.verify("", target.label, &target.bytes, &signed.signature);
                    assert!(verdict.is_err() || target.bytes == own, "a sign-in signs a {}", target.what);
                }
            }
        }
        // And no entry, header or commit is a statement, or another of them.
        let statement = people.statement(PURPOSE_DEVICE, Digest::ZERO);
        assert_ne!(one.bytes, statement_input("https://a", &statement));
    }
}

fn decodes_as(bytes: &[u8]) -> Vec<&'static str> {
    let mut found = Vec::new();
    let mut note = |decodes: bool, name| {
        if decodes {
            found.push(name);
        }
    };
    note(KeyHeader::decode(bytes).is_ok(), KeyHeader::NAME);
    note(DeviceLogEntry::decode(bytes).is_ok(), DeviceLogEntry::NAME);
    note(VaultLogEntry::decode(bytes).is_ok(), VaultLogEntry::NAME);
    note(Commit::decode(bytes).is_ok(), Commit::NAME);
    note(Statement::decode(bytes).is_ok(), Statement::NAME);
    found
}

/// Were a label wrong somewhere, the bytes would still be of one structure only.
#[test]
fn row_20_no_signed_structure_decodes_as_another() {
    let people = people();
    for one in people.everything() {
        let names = decodes_as(&one.bytes);
        let expected = usize::from(
            [label::KEY_HEADER, label::DEVICE_LOG_ENTRY, label::VAULT_LOG_ENTRY, label::COMMIT]
                .contains(&one.label),
        );
        assert_eq!(names.len(), expected, "{}: {names:?}", one.what);
    }
}

/// One statement for each origin, account, device, purpose and pair of nonces.
#[test]
fn row_20_a_statement_counts_for_one_origin_purpose_and_nonce() {
    let people = people();
    let good = people.device.sign_statement("https://a", people.statement(PURPOSE_DEVICE, Digest::ZERO));
    let check = |origin: &str, statement: &Statement| {
        let input = statement_input(origin, statement);
        people.device_key.verify("", label::LOGIN, &input, &good.signature).is_ok()
    };
    assert!(check("https://a", &good));
    let other = Digest::from_bytes([1; 32]);
    let changed = [
        Statement { purpose: PURPOSE_RECOVERY, ..good.clone() },
        Statement { device: DeviceId::ZERO, ..good.clone() },
        Statement { account: lockstep_proto::AccountId::ZERO, ..good.clone() },
        Statement { server_nonce: other, ..good.clone() },
        Statement { client_nonce: other, ..good.clone() },
    ];
    assert!(changed.iter().all(|statement| !check("https://a", statement)));
    assert!(!check("https://b", &good) && !check("https://a/", &good));
}
