//! Row 9: envelopes in each other's places; and answers to commits that are lost.

use crate::scene::{keyring_of, lagging, login_as, refuses, world_behind};
use lockstep_client_crypto::content::{Content, Hlc};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{SealAs, VaultKeys};
use lockstep_proto::api::vault::{Page, PushCommit};
use lockstep_proto::cbor::{Bytes, Wire as _};
use lockstep_proto::envelope::{self, KIND_DOCUMENT, KIND_TOMBSTONE};
use lockstep_proto::id::{Epoch, OperationId, Revision, VaultId};
use lockstep_tests::hostile::scenario::envelope::relabelled;
use lockstep_tests::hostile::scenario::{At, rules};
use lockstep_tests::hostile::{Hostile, Rule};
use rand::SeedableRng as _;

const NOT_VALID: &[&str] = &["not valid"];
const LIST: &[&str] = &["record", "list", "--type", "note"];

#[test]
fn row_09_envelopes_of_two_records_are_swapped_and_every_field_is_relabelled() {
    let (world, hostile) = world_behind();
    let (_a, b) = lagging(&world);
    let mut refusals =
        vec![refuses(&hostile, &b, rules("envelopes-swapped", &At::default()), LIST, (6, NOT_VALID))];
    for at in 0..13 {
        refusals.push(refuses(
            &hostile,
            &b,
            rules("envelope-relabelled", &At::number(at)),
            LIST,
            (6, NOT_VALID),
        ));
    }
    assert!(refusals.iter().all(|one| !one.out.contains("two") && one.trace == refusals[0].trace));
    assert_eq!((b.get("n"), b.get("m")), ("\"two\"".into(), "\"three\"".into()));
}

/// Envelopes that were sent so far, newest last.
fn sent(hostile: &Hostile) -> Vec<Bytes> {
    let pushes = hostile.requests("POST /v1/vaults/{}/commits");
    pushes.iter().flat_map(|request| PushCommit::decode(&request.body).unwrap().envelopes).collect()
}

/// Puts an envelope in the place of every one that an answer has.
fn instead(other: &Bytes) -> Vec<Rule> {
    let other = other.clone();
    vec![Rule::answer_of::<Page>("instead", "GET /v1/vaults/{}/commits", move |_, page| {
        for entry in &mut page.entries {
            entry.envelope = other.clone();
        }
        !page.entries.is_empty()
    })]
}

/// What the last put of a device sent; not what it wrote into its keyring about that.
fn last_put(hostile: &Hostile, keyring: VaultId, put: impl FnOnce()) -> Bytes {
    hostile.forget();
    put();
    let is_put = |bytes: &Bytes| envelope::decode(&bytes.0).unwrap().1.vault != keyring;
    sent(hostile).into_iter().rfind(is_put).unwrap()
}

/// An envelope of another account, another vault, another record, another revision, another kind, another epoch.
#[test]
fn row_09_envelopes_of_elsewhere() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    let keyring = keyring_of(&hostile);
    let first = last_put(&hostile, keyring, || drop(a.put("n", "\"one\"").ok()));
    let b = login_as(&world, "b");
    let c = login_as(&world, "c");
    let other = last_put(&hostile, keyring, || drop(a.put("other", "\"other\"").ok()));
    let photos = ["record", "put", "--type", "note", "--vault", "photos", "--id", "n"];
    let of_vault = last_put(&hostile, keyring, || drop(a.run_with(&photos, "\"photo\"").ok()));
    let deleted =
        last_put(&hostile, keyring, || drop(a.ok(&["record", "rm", "--type", "note", "--id", "other"])));
    let passphrase = world.text("passphrase");
    let eve = world.device("eve");
    eve.ok(&["signup", "--name", "eve", "--passphrase-file", &passphrase, "--kit", "kit-eve"]);
    let keyring_of_eve = keyring_of(&hostile);
    assert_ne!(keyring_of_eve, keyring);
    let of_eve = last_put(&hostile, keyring_of_eve, || drop(eve.put("n", "\"eve\"").ok()));
    let old_epoch = last_put(&hostile, keyring, || drop(a.put("n", "\"before\"").ok()));
    a.ok(&["device", "revoke", "c", "--passphrase-file", &passphrase]);
    c.run(&["status"]).ends(5, &[]);
    for _ in 0..2 {
        b.ok(&["status"]);
        a.ok(&["status"]);
    }
    let real = last_put(&hostile, keyring, || drop(a.put("n", "\"new\"").ok()));
    let kind = |bytes: &Bytes| envelope::decode(&bytes.0).unwrap().1;
    assert_eq!((kind(&deleted).kind, kind(&real).kind), (KIND_TOMBSTONE, KIND_DOCUMENT));
    assert!(kind(&old_epoch).epoch < kind(&real).epoch && kind(&first).revision < kind(&real).revision);
    assert_ne!(kind(&of_vault).vault, kind(&real).vault);
    assert_ne!(kind(&of_eve).vault, kind(&real).vault);
    assert_ne!(kind(&other).record, kind(&real).record);
    for bytes in [other, of_vault, deleted, of_eve] {
        let refusal = refuses(&hostile, &b, instead(&bytes), LIST, (6, NOT_VALID));
        assert!(!refusal.out.contains("eve"));
    }
    // Older ones of the record itself are named as what they are.
    for bytes in [first, old_epoch] {
        refuses(&hostile, &b, instead(&bytes), LIST, (6, &["went back in time", "replaced"]));
    }
    assert_eq!(b.get("n"), "\"new\"");
}

/// Keys of a vault, and an envelope under those of its first epoch.
pub(crate) fn keys_and_envelope(document: &[u8]) -> (VaultKeys, DeviceKeys, Vec<u8>) {
    let vault = VaultId::from_bytes([1; 16]);
    let keys = VaultKeys::new(vault, &SecretKey::from_bytes(&[2; 32]))
        .with_epoch(Epoch::new(1), SecretKey::from_bytes(&[3; 32]))
        .with_epoch(Epoch::new(2), SecretKey::from_bytes(&[4; 32]));
    let mut rng = rand::rngs::ChaCha20Rng::from_seed([5; 32]);
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let content = Content {
        record_type: "note".into(),
        name: b"n".as_slice().into(),
        schema: 1,
        codec: 0,
        hlc: Hlc { utc_ms: 1, counter: 0 },
        operation: OperationId::from_bytes([1; 16]),
        base_revision: Revision::new(0),
        conflict_of: Vec::new().into(),
        document: document.into(),
        blobs: Vec::new(),
        manifest: (),
    };
    let seal_as = SealAs { kind: KIND_DOCUMENT, revision: Revision::new(1), epoch: Epoch::new(1) };
    let sealed = keys.seal(seal_as, &content, &device, &mut rng).unwrap();
    (keys, device, sealed)
}

/// Below the digest that the change list announces: the envelope itself opens with no field of its header changed, under
/// no other key of the vault, and with no other commitment; always with the same error.
#[test]
fn row_09_an_envelope_opens_in_its_place_only() {
    let (keys, _, sealed) = keys_and_envelope(b"secret");
    assert!(keys.open(&sealed).is_ok());
    let errors: Vec<String> =
        (0..40).map(|at| keys.open(&relabelled(&sealed, at).0).unwrap_err().to_string()).collect();
    assert!(errors.iter().all(|error| *error == errors[0]), "{errors:?}");
}

/// No nonce of an envelope was ever sent with two ciphertexts, whatever answer was lost and whatever changed then.
#[test]
fn lost_acknowledgements_of_commits_repeat_no_nonce() {
    let (world, hostile) = world_behind();
    let a = world.signup("a");
    a.put("n", "\"one\"").ok();
    let hits = hostile.arm(Rule::cut("lost", "POST /v1/vaults/{}/commits", true));
    for number in 0..4 {
        a.put("n", &format!("\"lost {number}\"")).ends(0, &["kept on this device"]);
    }
    hostile.disarm();
    let refused = hostile.arm(Rule::cut("refused", "POST /v1/vaults/{}/commits", false));
    for number in 0..4 {
        a.put("n", &format!("\"refused {number}\"")).ends(0, &["kept on this device"]);
    }
    hostile.disarm();
    assert!(hits.count() > 0 && refused.count() > 0);
    a.put("n", "\"last\"").ok();
    let mut seen = std::collections::BTreeMap::new();
    for bytes in sent(&hostile) {
        let (_, header) = envelope::decode(&bytes.0).unwrap();
        let known = seen.entry((header.epoch, header.nonce.0)).or_insert_with(|| bytes.clone());
        assert!(*known == bytes, "a nonce was used twice");
    }
    assert!(seen.len() > 3);
    assert_eq!(login_as(&world, "b").get("n"), "\"last\"");
}
