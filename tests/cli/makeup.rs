//! What a stolen device that is not revoked yet writes about other vaults: no key and no name of it takes their place,
//! nothing that it writes over a deletion undoes it, and the owner is rid of whatever it made.

use crate::revoke::{login_as, revoke};
use crate::stolen::{births, call, files_of, forge, forge_key, keyring_of};
use crate::thief::post;
use crate::world::{Device, World};
use lockstep_engine::keyring::{VAULT_TYPE, VaultDoc};
use lockstep_proto::api::vault::CreateVault;
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::id::VaultId;

fn create(device: &Device, name: &str) -> VaultId {
    let made = device.ok(&["--json", "vault", "create", name]).json();
    made["vault"].as_str().unwrap().parse().unwrap()
}

/// Names and ids of the vaults that a device lists.
fn listed(device: &Device) -> Vec<(String, String)> {
    let listed = device.ok(&["--json", "vault", "list"]).json();
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap().to_owned();
    listed.as_array().unwrap().iter().map(|entry| (text(entry, "name"), text(entry, "vault"))).collect()
}

fn delete(world: &World, device: &Device, name: &str) {
    device.ok(&["vault", "delete", name, "--yes", "--passphrase-file", &world.text("passphrase")]);
}

#[test]
fn a_key_of_epoch_zero_hides_no_vault() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let thief = login_as(&world, "thief");
    let files = files_of(&a);
    forge_key(&world, &thief, files, 0, &births(&world, &thief, files)[0]);
    assert_eq!(listed(&a), [("files".to_owned(), files.to_string())]);
    a.put("n", "2").ok();
    revoke(&world, &a, "thief").ok();
    a.put("n", "3").ok();
    let b = login_as(&world, "b");
    assert_eq!((a.get("n"), b.get("n")), ("3".into(), "3".into()));
}

#[test]
fn names_of_vaults_are_not_taken_by_writing_them_again() {
    let world = World::new();
    let a = world.signup("a");
    let (photos, junk) = (create(&a, "photos"), create(&a, "junk"));
    let expected = [("junk".to_owned(), junk.to_string()), ("photos".to_owned(), photos.to_string())];
    assert_eq!(listed(&a), expected);
    let thief = login_as(&world, "thief");
    // Swapped, and written again so that another claim would be older.
    call(&world, &thief, photos, "old");
    call(&world, &thief, junk, "photos");
    let own = VaultId::from_bytes([8; 16]);
    forge_key(&world, &thief, own, 1, &births(&world, &thief, own)[0]);
    call(&world, &thief, own, "photos");
    call(&world, &thief, photos, "photos");
    // And in a record that is another vault's.
    let doc = VaultDoc { vault: photos, name: "aaa".into(), deleted_utc: 0, deletion: None };
    forge(&world, &thief, VAULT_TYPE, VaultId::from_bytes([1; 16]).as_bytes(), doc.encode());
    let b = login_as(&world, "b");
    for device in [&a, &b, &thief] {
        let mut known = listed(device);
        known.retain(|(_, id)| *id != own.to_string());
        assert_eq!(known, expected);
    }
    delete(&world, &a, "junk");
    revoke(&world, &a, "thief").ok();
    let mut known = listed(&b);
    known.retain(|(_, id)| *id != own.to_string());
    assert_eq!(known, expected[1..]);
}

#[test]
fn what_is_written_over_a_deletion_undoes_nothing() {
    let world = World::new();
    let a = world.signup("a");
    let b = world.login("b");
    let photos = create(&a, "photos");
    a.put("n", "1").ok();
    b.ok(&["status"]);
    // This revocation pins every vault for ever.
    let lost = login_as(&world, "lost");
    lost.ok(&["status"]);
    revoke(&world, &a, "lost").ok();
    let thief = login_as(&world, "thief");
    thief.ok(&["status"]);
    delete(&world, &a, "photos");
    let files = [("files".to_owned(), files_of(&a).to_string())];
    call(&world, &thief, photos, "photos");
    call(&world, &thief, photos, "photos");
    // One that saw the deletion, one that held the vault and did not, and one that has only what is there now.
    let c = login_as(&world, "c");
    for device in [&a, &b, &c] {
        assert_eq!(listed(device), files);
        device.ok(&["status"]);
    }
    revoke(&world, &b, "thief").ok();
    for device in [&a, &b, &c] {
        device.ok(&["status"]);
        assert_eq!(device.get("n"), "1");
    }
}

/// Gives the server a vault of which the keyring has no key.
fn post_birth(world: &World, device: &Device, vault: VaultId) {
    let birth = births(world, device, vault)[0].clone();
    let body = CreateVault { create: birth.create, genesis: birth.genesis }.encode();
    assert!(post(world, &device.home, "/v1/vaults", &body).starts_with("HTTP/1.1 2"));
}

#[test]
fn a_vault_that_only_the_server_knows_is_shown_and_deleted() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let thief = login_as(&world, "thief");
    let own = VaultId::from_bytes([8; 16]);
    post_birth(&world, &thief, own);
    let out = a.ok(&["vault", "list"]).out;
    assert!(out.contains(&format!("lockstep vault delete {own}")), "{out}");
    assert!(listed(&a).iter().any(|(_, id)| *id == own.to_string()));
    revoke(&world, &a, "thief").ok();
    delete(&world, &a, &own.to_string());
    assert_eq!(listed(&a), [("files".to_owned(), files_of(&a).to_string())]);
    a.ok(&["status"]);
}

/// A head that no device signed, of a vault that no device here knows.
#[test]
fn a_revocation_pins_no_head_that_the_server_made_up() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let thief = login_as(&world, "thief");
    let own = VaultId::from_bytes([8; 16]);
    post_birth(&world, &thief, own);
    let text = |head: &[u8]| {
        let (head, vault) = (world.server.literal(head), world.server.literal(own.as_bytes()));
        format!("UPDATE vault SET head = {head} WHERE vault = {vault}")
    };
    let head = lockstep_proto::commit::Commit::hash_of(&births(&world, &thief, own)[0].genesis.bytes.0);
    assert_eq!(world.server.change(&text(&[7; 32])), 1);
    revoke(&world, &a, "thief").ends(6, &["no device of the account signed"]);
    let devices = a.ok(&["--json", "device", "list"]).out;
    assert!(!devices.contains("\"revoked\":true"), "{devices}");
    assert_eq!(world.server.change(&text(head.as_bytes())), 1);
    revoke(&world, &a, "thief").ok();
    assert_ne!(keyring_of(&world), own);
}
