//! Repairs that go back, stores that are healed, objects whose bytes are lost; all of it counted to the byte.

use super::{AnyStore, Home, all_entries, refused};
use crate::chain::{Draft, Earlier, Op, put, record};
use crate::world::{Author, entry_of, id16, rng};
use lockstep_proto::api::problem::Code;
use lockstep_proto::blob::object_digest;
use lockstep_proto::commit::Change;
use lockstep_proto::id::{BlobId, Seq};
use lockstep_proto::{Digest, label};
use lockstep_server::domain::commit::PreparedCommit;
use lockstep_server::domain::quota::ROW_BYTES;
use lockstep_server::store::{
    EntryEffect, FramedObject, ObjectRow, PartRow, Pushed, SegmentId, SignInChange,
};

fn segment(number: u64) -> SegmentId {
    SegmentId(id16(&mut rng(number)))
}

fn blob(number: u8) -> BlobId {
    BlobId::from_bytes([number; 16])
}

const SIZE: u64 = 500;

fn framed(number: u8) -> FramedObject {
    let part = Digest::from_bytes([number; 32]);
    FramedObject { blob: blob(number), size: SIZE, part, digest: object_digest(SIZE, &[part]), start: 0 }
}

impl Home {
    /// What the model says is what the store says, version by version.
    async fn assert_as_the_model(&self) {
        let upto = self.chain.seq();
        let mut expected: Vec<_> = self.chain.live().collect();
        expected.sort_by_key(|version| (version.seq, version.record));
        let found = all_entries(&self.store, self.key, upto).await;
        let entry = |entry: &lockstep_proto::api::vault::Entry| {
            (entry.seq, entry.record, entry.revision, entry.kind, entry.envelope.0.clone())
        };
        let version = |version: &&crate::chain::Version| {
            (version.seq, version.record, version.revision, version.kind, version.envelope.clone())
        };
        assert_eq!(
            found.iter().map(entry).collect::<Vec<_>>(),
            expected.iter().map(version).collect::<Vec<_>>()
        );
        for number in 1..8 {
            let mut versions: Vec<_> =
                self.chain.versions.iter().filter(|version| version.record == record(number)).collect();
            versions.reverse();
            let history = self.store.history(self.key, record(number)).await.unwrap();
            assert_eq!(
                history.iter().map(entry).collect::<Vec<_>>(),
                versions.iter().map(version).collect::<Vec<_>>()
            );
        }
        let listed = self.store.vaults(self.world.account).await.unwrap();
        let row = listed.iter().find(|row| row.vault == self.vault).unwrap();
        assert_eq!((row.seq, row.head), (upto, self.chain.tip.hash));
        assert_eq!(row.records, expected.len() as u64);
        self.used().await;
    }

    /// A second device that is revoked again: the next commit has to begin a key epoch.
    async fn revoke_somebody(&mut self) {
        let index = self.world.author.log_index;
        let joining = Author::new(90 + index);
        let (device, sign_key) = (joining.keys.id(), joining.keys.sign_public());
        let identity = self.world.identity;
        let enrol = EntryEffect::Enrol { device, sign_key };
        let enrol = entry_of(&identity, "enrol", index + 1, self.world.author.log_head, enrol);
        self.store.add_entry(enrol.clone(), SignInChange::default()).await.unwrap();
        let listed = self.store.vaults(self.world.account).await.unwrap();
        let pins = listed.iter().map(|row| lockstep_proto::device_log::Pin {
            vault: row.vault,
            seq: row.seq,
            head: row.head,
        });
        let revoke = EntryEffect::Revoke { device, pins: pins.collect() };
        let revoke = entry_of(&identity, "revoke", index + 2, enrol.hash, revoke);
        self.store.add_entry(revoke.clone(), SignInChange::default()).await.unwrap();
        (self.world.author.log_index, self.world.author.log_head) = (index + 2, revoke.hash);
    }

    async fn rotate(&mut self, epoch: u64) {
        let (account, identity) = (self.world.account, self.world.identity);
        let rotation = self.chain.rotation(account, &identity, &self.world.author, epoch);
        self.push(&rotation).await;
    }

    async fn go_back(&mut self, earlier: Earlier) {
        let draft = self.chain.repair(self.world.account, &self.world.author, &earlier);
        let prepared = draft.prepare(&self.world.author);
        let pushed = self.try_push(&self.world.author, &draft).await.unwrap();
        assert_eq!(pushed, Pushed::Applied { seq: prepared.commit.seq, head: prepared.hash });
        self.chain.go_back(&prepared, earlier);
    }

    async fn put_framed(&self, at: u64, objects: Vec<FramedObject>) -> bool {
        let bytes = objects.iter().map(|object| object.size).sum();
        self.store.begin_segment(self.key, segment(at), bytes, 10).await.unwrap();
        self.store.put_framed(self.key, segment(at), objects, 10).await.unwrap()
    }

    async fn object(&self, number: u8) -> (ObjectRow, Vec<PartRow>) {
        self.store.object(self.key, blob(number)).await.unwrap().unwrap()
    }
}

pub(super) async fn a_repair_gives_the_earlier_state_back(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    home.commit(&[put(1), put(2), put(3)]).await;
    home.commit(&[put(1), Op::Tombstone(record(2)), Op::Pin(1)]).await;
    let first = home.chain.remember();
    home.commit(&[put(1), Op::Tombstone(record(3)), put(4)]).await;
    home.commit(&[put(2), put(5), Op::Pin(4)]).await;
    home.revoke_somebody().await;
    home.rotate(2).await;
    home.commit(&[put(6)]).await;
    let (log, before) = (store.vault_log(home.key).await.unwrap(), home.seen().await);
    assert_eq!(log.len(), 2);
    home.assert_as_the_model().await;

    // Spoilt repairs change nothing.
    let good = home.chain.repair(home.world.account, &home.world.author, &first);
    let mut spoilt: Vec<Draft> = Vec::new();
    let mut other = good.clone();
    other.commit.state = home.chain.state.checksum();
    spoilt.push(other);
    let mut other = good.clone();
    other.changes.0[0] = Change::GoBack(Seq::new(1));
    spoilt.push(other);
    let mut other = good.clone();
    (other.commit.epoch, other.commit.vault_log_index) = (home.chain.tip.epoch, 1);
    other.commit.vault_log_head = home.chain.tip.vault_log_head;
    spoilt.push(other);
    for draft in spoilt {
        refused(home.try_push(&home.world.author, &draft).await, Code::InvalidChain);
        assert_eq!(home.seen().await, before);
        assert_eq!(store.vault_log(home.key).await.unwrap(), log);
    }
    let used = home.used().await;
    home.go_back(first.clone()).await;
    home.assert_as_the_model().await;
    assert_eq!(store.vault_log(home.key).await.unwrap(), log[..1], "the rotation does not count either");
    let commit = good.push(&home.world.author);
    let commit_bytes = commit.commit.bytes.0.len() + commit.changes.0.len() + 64;
    let gone = log[1].bytes.0.len() + 64;
    assert_eq!(home.used().await, used + commit_bytes as u64 - gone as u64, "what is abandoned stays stored");

    // It goes on from there, under a new epoch, and back again over all of that.
    home.rotate(2).await;
    home.commit(&[put(1), put(2), put(7)]).await;
    home.assert_as_the_model().await;
    let second = home.chain.remember();
    home.commit(&[Op::Tombstone(record(1)), put(4)]).await;
    home.go_back(second).await;
    home.assert_as_the_model().await;
    home.go_back(first).await;
    home.assert_as_the_model().await;
    home.rotate(2).await;
    home.commit(&[put(3), put(6)]).await;
    home.assert_as_the_model().await;
}

pub(super) async fn rotations_and_repairs_go_on_at_the_quota(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    home.commit(&[put(1)]).await;
    let earlier = home.chain.remember();
    home.commit(&[put(2)]).await;
    home.leave(0).await;
    home.revoke_somebody().await;
    home.leave(0).await;
    home.rotate(2).await;
    home.go_back(earlier).await;
    home.rotate(2).await;
    let draft = home.draft(&[put(3)]);
    refused(home.try_push(&home.world.author, &draft).await, Code::QuotaExceeded);
    home.assert_as_the_model().await;
}

/// A commit as a healing client gives it, with the envelopes of these places only.
fn healing(draft: &Draft, author: &Author, places: &[usize]) -> PreparedCommit {
    let mut push = draft.push(author);
    push.heals = true;
    push.envelopes = places.iter().map(|place| draft.envelopes[*place].clone().into()).collect();
    PreparedCommit::parse(push).unwrap()
}

pub(super) async fn what_a_healed_store_lacks_comes_later(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    home.put_framed(1, vec![framed(1)]).await;
    let draft = home.draft(&[Op::Put(record(1), 40, vec![blob(1), blob(2)]), put(2), put(3)]);
    let mut bare = draft.clone();
    bare.envelopes.remove(0);
    refused(home.try_push(&home.world.author, &bare).await, Code::MissingObject);
    let before = home.used().await;
    let (account, key) = (home.world.account, home.key);
    let pushed = store.apply_commit(account, key, healing(&draft, &home.world.author, &[1])).await.unwrap();
    assert!(matches!(pushed, Pushed::Applied { .. }));
    let whole = draft.prepare(&home.world.author);
    let rows = |places: &[usize]| -> u64 {
        places.iter().map(|place| draft.envelopes[*place].len() as u64).sum::<u64>()
    };
    let header = (whole.signed.bytes.0.len() + 64 + whole.change_bytes.len()) as u64 + ROW_BYTES;
    // Three versions and the object that is missing have their rows.
    let bare_bytes = before + header + rows(&[1]) + 4 * ROW_BYTES;
    assert_eq!(home.used().await, bare_bytes);
    assert_eq!(store.usage(account).await.unwrap().unwrap().objects, 2);
    home.chain.follow(&whole);
    let seq = home.chain.seq();
    let records = |entries: Vec<lockstep_proto::api::vault::Entry>| -> Vec<_> {
        entries.into_iter().map(|entry| entry.record).collect()
    };
    assert_eq!(records(all_entries(&store, key, seq).await), [record(2)], "what is there is shown");
    let places = [1, 2, 3].map(|number| (seq, record(number))).to_vec();
    assert_eq!(records(store.envelopes(key, places.clone()).await.unwrap().0), [record(2)]);
    assert!(store.history(key, record(1)).await.unwrap().is_empty());

    // An ordinary push of the same commit fills nothing; a healing one does, each envelope once.
    store.apply_commit(account, key, whole.clone()).await.unwrap();
    assert_eq!(home.used().await, bare_bytes);
    for _ in 0..2 {
        store.apply_commit(account, key, healing(&draft, &home.world.author, &[0, 1])).await.unwrap();
        assert_eq!(home.used().await, bare_bytes + rows(&[0]));
    }
    assert_eq!(records(store.envelopes(key, places).await.unwrap().0), [record(1), record(2)]);
    home.leave(rows(&[2]) - 1).await;
    let rest = healing(&draft, &home.world.author, &[2]);
    refused(store.apply_commit(account, key, rest.clone()).await, Code::QuotaExceeded);
    assert_eq!(all_entries(&store, key, seq).await.len(), 2);
    home.leave(rows(&[2])).await;
    store.apply_commit(account, key, rest).await.unwrap();
    home.assert_as_the_model().await;
    // The chain is the same for whoever comes later; what heals still has to follow it.
    let mut wrong = home.draft(&[put(1)]);
    wrong.commit.state = Digest::ZERO;
    let wrong = healing(&wrong, &home.world.author, &[0]);
    refused(store.apply_commit(account, key, wrong).await, Code::InvalidChain);
}

pub(super) async fn lost_objects_are_uploaded_again(store: AnyStore) {
    let mut home = Home::plain(&store, 1).await;
    let draft = home.draft(&[Op::Put(record(1), 40, vec![blob(1), blob(2)])]);
    let pushed = store
        .apply_commit(home.world.account, home.key, healing(&draft, &home.world.author, &[0]))
        .await
        .unwrap();
    assert!(matches!(pushed, Pushed::Applied { .. }));
    home.chain.follow(&draft.prepare(&home.world.author));
    let missing = home.used().await;
    let unknown = ObjectRow { size: 0, digest: Digest::ZERO, complete: false };
    assert_eq!(home.object(1).await, (unknown, Vec::new()));

    // Never known here: whatever comes first is it. One comes framed, the other in parts.
    assert!(home.put_framed(1, vec![framed(1)]).await);
    assert_eq!(home.used().await, missing + SIZE);
    assert!(home.object(1).await.0.complete);
    let whole = framed(2);
    let part = |at: u64| PartRow { index: 0, digest: whole.part, segment: segment(at), start: 0, size: SIZE };
    store.begin_segment(home.key, segment(2), 0, 10).await.unwrap();
    refused(store.put_part(home.key, blob(2), part(2), 10).await, Code::NotFound);
    home.leave(SIZE - 1).await;
    let begin = || store.begin_object(home.key, blob(2), SIZE, whole.digest, 10);
    refused(begin().await, Code::QuotaExceeded);
    home.leave(1 << 20).await;
    for _ in 0..2 {
        begin().await.unwrap();
        assert_eq!(home.used().await, missing + 2 * SIZE, "begun twice is begun once");
    }
    assert!(store.put_part(home.key, blob(2), part(2), 10).await.unwrap());
    store.complete_object(home.key, blob(2)).await.unwrap();
    let both = home.used().await;
    assert_eq!(both, missing + 2 * SIZE);

    // Lost again: what it was is known now. Its bytes count until they are deleted.
    for number in [1, 2] {
        store.lose_object(home.key, blob(number)).await.unwrap();
        store.lose_object(home.key, blob(number)).await.unwrap();
        let (row, parts) = home.object(number).await;
        assert_eq!((row.digest, row.complete, parts.len()), (framed(number).digest, false, 0));
        assert_eq!(home.used().await, both);
    }
    let named = home.draft(&[Op::Put(record(2), 40, vec![blob(1)])]);
    refused(home.try_push(&home.world.author, &named).await, Code::MissingObject);
    home.collect(1_000_000).await;
    assert_eq!(home.used().await, missing, "named, so their rows stay");
    let other = FramedObject { digest: Digest::from_bytes([9; 32]), ..framed(1) };
    store.begin_segment(home.key, segment(3), SIZE, 10).await.unwrap();
    refused(store.put_framed(home.key, segment(3), vec![other], 10).await, Code::Exists);
    store.drop_segment(segment(3)).await.unwrap();
    store.forget_segment(segment(3)).await.unwrap();
    refused(store.begin_object(home.key, blob(2), SIZE + 1, whole.digest, 10).await, Code::Exists);
    // The one that came framed comes in parts, and the other way about.
    assert!(home.put_framed(4, vec![framed(2)]).await);
    store.begin_object(home.key, blob(1), SIZE, framed(1).digest, 10).await.unwrap();
    store.begin_segment(home.key, segment(5), 0, 10).await.unwrap();
    let first = PartRow { digest: framed(1).part, ..part(5) };
    assert!(store.put_part(home.key, blob(1), first, 10).await.unwrap());
    store.complete_object(home.key, blob(1)).await.unwrap();
    assert_eq!(home.used().await, both);
    home.push(&named).await;
    home.collect(2_000_000).await;
    home.used().await;
    for number in [1, 2] {
        let (row, parts) = home.object(number).await;
        assert!(row.complete && parts.len() == 1);
    }
}

pub(super) async fn entries_are_given_back_all_or_none(store: AnyStore) {
    let home = Home::new(&store, 1).await;
    let account = home.world.account;
    let session = super::session::session(1, lockstep_proto::api::auth::SESSION_DEVICE);
    let (second, enrol) = home.world.second(20);
    let session = lockstep_server::store::SessionRow { account, device: second.keys.id(), ..session };
    store.put_session(session).await.unwrap();
    // Pins of a revocation that is given back may lie beyond what the store has.
    let pins = vec![lockstep_proto::device_log::Pin {
        vault: home.vault,
        seq: Seq::new(40),
        head: Digest::of(label::COMMIT, b"elsewhere"),
    }];
    let revoke = EntryEffect::Revoke { device: second.keys.id(), pins };
    let revoke = entry_of(&home.world.identity, "revoke", 2, enrol.hash, revoke);
    let recovery = Digest::from_bytes([5; 32]);
    let before = (store.devices(account, 0, 10).await.unwrap().unwrap(), home.used().await);
    let mut gap = revoke.clone();
    gap.previous = Digest::ZERO;
    refused(store.heal_log(vec![enrol.clone(), gap], recovery).await, Code::LogMoved);
    assert_eq!((store.devices(account, 0, 10).await.unwrap().unwrap(), home.used().await), before);
    store.heal_log(vec![enrol.clone(), revoke.clone()], recovery).await.unwrap();
    let after = store.devices(account, 0, 10).await.unwrap().unwrap();
    assert_eq!((after.total, after.key_header), (3, revoke.key_header.clone()));
    assert_eq!(store.recovery_key(account).await.unwrap(), Some(recovery));
    assert!(store.device_key(account, second.keys.id()).await.unwrap().is_none());
    assert_eq!(store.session(session.token_hash, 50).await.unwrap(), None);
    home.used().await;
    refused(store.heal_log(vec![enrol, revoke], recovery).await, Code::LogMoved);
}
