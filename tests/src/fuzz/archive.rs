//! The reader of archives: what it takes is written again as the same bytes, and only the archive that its maker signed ends well.

use super::edit::Input;
use super::fixture::fixture;
use lockstep_client_crypto::vault::{Parent, give_birth};
use lockstep_proto::api::vault::Entry;
use lockstep_proto::archive::{
    ArchiveCommit, ArchiveEnd, ArchiveHeader, ArchiveVault, ITEM_HEAD_BYTES, Item, ItemHead, ItemKind, Items,
    PREFIX_BYTES, prefix, verify_end,
};
use lockstep_proto::cbor::Wire as _;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::{BlobId, RecordId, Revision, Seq, VaultId};
use lockstep_proto::label;
use lockstep_proto::sign::PublicKey;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::version::{SUITE, VERSION};
use std::sync::OnceLock;

/// Writes as the reader reads.
struct Writer {
    items: Items,
    bytes: Vec<u8>,
}

impl Writer {
    fn head(&mut self, kind: ItemKind, len: usize) -> ItemHead {
        let head = ItemHead { kind, bytes: len as u64 }.to_bytes();
        self.bytes.extend_from_slice(&head);
        self.items.head(&head).unwrap()
    }

    fn item(&mut self, kind: ItemKind, body: &[u8]) {
        let head = self.head(kind, body.len());
        self.items.take(head, body).unwrap();
        self.bytes.extend_from_slice(body);
    }

    fn object(&mut self, blob: BlobId, contents: &[u8]) {
        let head = self.head(ItemKind::Object, 16 + contents.len());
        self.items.object(head, blob).unwrap();
        self.items.object_bytes(contents).unwrap();
        self.bytes.extend_from_slice(blob.as_bytes());
        self.bytes.extend_from_slice(contents);
    }

    fn vault(&mut self, vault: VaultId, parent: &Parent<'_>) {
        let fixture = fixture();
        let birth = give_birth(vault, parent, &fixture.device);
        self.item(ItemKind::Vault, &ArchiveVault { vault, log: vec![birth.create] }.encode());
        let changes = lockstep_proto::commit::Changes::default().encode();
        self.item(
            ItemKind::Commit,
            &ArchiveCommit { commit: birth.genesis, changes: changes.into() }.encode(),
        );
    }
}

/// An archive with an item of most types.
pub(super) fn archive() -> &'static [u8] {
    static ARCHIVE: OnceLock<Vec<u8>> = OnceLock::new();
    ARCHIVE.get_or_init(build)
}

fn build() -> Vec<u8> {
    let fixture = fixture();
    let mut writer = Writer { items: Items::begin(&prefix()).unwrap(), bytes: prefix().to_vec() };
    let identity = Digest::from_bytes(fixture.identity.to_bytes());
    let (account, device) = (fixture.account, fixture.device.id());
    let header =
        ArchiveHeader { version: VERSION, suite: SUITE, account, identity, device, utc: 1_700_000_100 };
    writer.item(ItemKind::Header, &header.encode());
    writer.item(ItemKind::KeyHeader, &fixture.headers[2].encode());
    for entry in &fixture.entries {
        writer.item(ItemKind::Device, &entry.encode());
    }
    let parent = Parent {
        account,
        identity: &fixture.identity,
        device_log_index: 2,
        device_log_head: fixture.log.head(),
        utc: 1_700_000_000,
    };
    writer.vault(keyring_vault_id(&fixture.identity.to_bytes()), &parent);
    writer.vault(fixture.vault, &parent);
    for link in &fixture.chain[..2] {
        let commit = ArchiveCommit { commit: link.commit.clone(), changes: link.changes.clone().into() };
        writer.item(ItemKind::Commit, &commit.encode());
    }
    let (record, revision) = (RecordId::from_bytes([1; 16]), Revision::new(1));
    let entry =
        Entry { seq: Seq::new(1), record, revision, kind: 1, envelope: fixture.envelope.clone().into() };
    writer.item(ItemKind::Version, &entry.encode());
    writer.object(BlobId::from_bytes([3; 16]), b"an object");
    writer.item(ItemKind::MissingObject, &[4; 16]);
    let (items, digest) = (writer.items.count(), writer.items.digest());
    let end = ArchiveEnd { version: VERSION, suite: SUITE, account, device, items, digest };
    writer.item(ItemKind::End, &fixture.device.sign(label::ARCHIVE, end.encode()).encode());
    writer.bytes
}

/// Bytes of an item, as a writer would write it.
fn again(item: &Item) -> Vec<u8> {
    match item {
        Item::Header(header) => header.encode(),
        Item::KeyHeader(signed) | Item::Device(signed) | Item::End(signed) => signed.encode(),
        Item::BareKeys(bare) => bare.encode(),
        Item::Vault(vault) => vault.encode(),
        Item::Commit(commit, _) => commit.encode(),
        Item::Version(entry) => entry.encode(),
        Item::MissingVersion(missing) => missing.encode(),
        Item::MissingObject(blob) => blob.as_bytes().to_vec(),
    }
}

/// Reads from the front; none if there is not so much.
fn split<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, later) = rest.split_at_checked(len)?;
    *rest = later;
    Some(taken)
}

/// Whether a whole archive was read whose end verifies, with nothing behind it.
fn read(mut rest: &[u8]) -> Option<()> {
    let fixture = fixture();
    let maker = PublicKey::from_bytes(fixture.device.sign_public().as_bytes())?;
    let mut items = Items::begin(split(&mut rest, PREFIX_BYTES)?.try_into().ok()?).ok()?;
    let mut header = None;
    loop {
        let bytes: &[u8; ITEM_HEAD_BYTES] = split(&mut rest, ITEM_HEAD_BYTES)?.try_into().ok()?;
        let head = items.head(bytes).ok()?;
        assert_eq!(head.to_bytes(), *bytes, "a head has one encoding");
        let body = split(&mut rest, usize::try_from(head.bytes).ok()?)?;
        if head.kind == ItemKind::Object {
            let (blob, contents) = body.split_at_checked(16)?;
            items.object(head, BlobId::from_slice(blob)?).ok()?;
            items.object_bytes(contents).ok()?;
            continue;
        }
        let item = items.take(head, body).ok()?;
        assert_eq!(again(&item), body, "an item has one encoding");
        match item {
            Item::Header(found) => header = Some(found),
            Item::End(signed) => {
                verify_end(&signed, header.as_ref()?, &items, &maker).ok()?;
                return rest.is_empty().then_some(());
            }
            _ => {}
        }
    }
}

/// The real archive, spoilt as the input says; or bytes.
pub(super) fn target(data: &[u8]) {
    let mut input = Input(data);
    if input.byte() & 1 == 1 {
        assert!(read(input.0).is_none() || input.0 == archive(), "nobody else signed an archive");
        return;
    }
    let mut bytes = archive().to_vec();
    input.spoil(&mut bytes);
    assert_eq!(read(&bytes).is_some(), bytes == archive(), "only the archive that was signed ends well");
}
