//! The contract of a store: functions over `Arc<dyn Store>`, and the back ends that they run on.

mod account;
mod commit;
mod heal;
mod life;
mod lost;
mod migration;
mod notice;
mod object;
mod pull;
mod remains;
mod session;
mod usage;
mod vault;

use crate::chain::{Chain, Draft, Op};
use crate::folder::Folder;
use crate::world::{Author, World};
use lockstep_proto::api::problem::Code;
use lockstep_proto::api::vault::{CommitEntry, Entry, VaultInfo};
use lockstep_proto::id::{RecordId, Seq, VaultId};
use lockstep_proto::limits;
use lockstep_server::error::StoreError;
use lockstep_server::store::postgres::{PostgresStore, PostgresUrl};
use lockstep_server::store::sqlite::SqliteStore;
use lockstep_server::store::{EntryQuery, Pushed, Store, VaultKey};
use lockstep_tests::postgres::Cluster;
use std::future::Future;
use std::sync::Arc;

type AnyStore = Arc<dyn Store>;

async fn on_sqlite<F: Future<Output = ()>>(test: impl FnOnce(AnyStore) -> F) {
    let folder = Folder::new();
    let store = Arc::new(SqliteStore::open(&folder.path().join("test.sqlite")).await.unwrap());
    test(store.clone()).await;
    store.close().await;
}

async fn on_postgres<F: Future<Output = ()>>(test: impl FnOnce(AnyStore) -> F) {
    let url = PostgresUrl::parse(&Cluster::shared().database()).unwrap();
    let store = Arc::new(PostgresStore::open(&url, 16).await.unwrap());
    test(store.clone()).await;
    store.close().await;
}

macro_rules! suite {
    ($back_end:ident, $run:path, $($room:ident::$name:ident)+) => {
        mod $back_end {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn $name() { $run(super::$room::$name).await })+
        }
    };
}

macro_rules! on_back_ends {
    ($($room:ident::$name:ident)+) => {
        suite!(sqlite, super::on_sqlite, $($room::$name)+);
        suite!(postgres, super::on_postgres, $($room::$name)+);
    };
}

on_back_ends! {
    account::the_first_secret_stays
    account::challenges_are_used_once_by_their_kind_and_expire
    account::of_many_takers_of_a_challenge_one_gets_it
    account::a_taken_name_stores_nothing
    account::a_taken_account_id_stores_nothing
    account::of_many_accounts_one_gets_a_name
    account::an_invite_is_good_for_one_registration
    account::the_device_log_is_compared_and_swapped
    account::the_device_log_comes_in_pages
    account::a_page_of_the_device_log_is_of_one_moment
    account::a_recovery_swaps_sign_in_data_with_the_entry
    life::a_revocation_whose_pins_are_behind_changes_nothing
    life::commits_that_do_not_know_of_a_revocation_are_refused
    life::a_deleted_vault_is_gone_and_others_stay
    life::a_deleted_account_is_gone_and_its_name_is_free
    lost::commits_that_do_not_know_of_a_revocation_are_given_back_up_to_its_pin
    lost::a_revoked_device_gets_no_session
    lost::a_lost_object_keeps_its_parts_until_it_is_uploaded_again
    lost::what_was_lost_before_it_was_known_can_always_be_put_right
    lost::staged_envelopes_of_a_commit_fit_into_memory
    vault::the_same_birth_twice_is_once
    vault::vaults_belong_to_their_account
    vault::an_account_has_at_most_1024_vaults
    commit::commits_are_applied_and_seen
    commit::the_same_commit_is_one_commit
    commit::of_many_commits_on_one_head_one_wins
    commit::of_32_devices_one_wins_each_round
    commit::what_breaks_a_rule_changes_nothing
    commit::what_does_not_decode_is_refused_before
    commit::another_head_is_told_apart
    commit::authors_are_devices_of_the_log
    commit::staged_envelopes_are_used
    commit::staged_envelopes_expire
    commit::a_large_commit_is_whole
    pull::commits_come_in_pages
    pull::change_lists_fill_pages
    pull::entries_are_what_the_model_says
    pull::a_cursor_has_no_gaps_while_others_write
    pull::readers_see_no_gaps_while_somebody_writes
    pull::envelopes_come_by_place
    pull::pages_of_envelopes_are_bounded
    pull::history_is_newest_first_and_bounded
    object::framed_objects_are_stored_once
    object::the_same_objects_at_once_are_stored_once
    object::another_digest_stores_nothing
    object::uploads_begin_resume_and_complete
    object::a_framed_object_replaces_an_upload_in_part
    object::what_nobody_names_is_collected
    object::abandoned_segments_are_collected
    object::commits_need_whole_objects_of_their_vault
    object::naming_and_collecting_do_not_cross
    heal::a_repair_gives_the_earlier_state_back
    heal::rotations_and_repairs_go_on_at_the_quota
    heal::what_a_healed_store_lacks_comes_later
    heal::lost_objects_are_uploaded_again
    heal::entries_are_given_back_all_or_none
    life::no_session_begins_for_a_revoked_device
    life::commits_and_their_devices_revocation_do_not_cross
    session::sessions_are_found_until_they_end
    session::sessions_are_listed_and_revoked_by_their_account
    session::the_last_use_of_a_session_only_grows
    session::who_opens_sessions_in_a_loop_ends_the_oldest
    usage::commits_and_staged_envelopes_count_to_the_byte
    usage::objects_count_from_the_begin_to_the_deletion
    usage::usage_follows_any_history
    usage::of_many_uploads_at_once_those_that_fit_are_taken
    usage::a_quota_is_kept_by_every_way_to_store
    usage::at_the_quota_deleting_and_devices_go_on
    usage::quotas_are_set_and_unset
}

/// A registered account with its keyring vault.
struct Home {
    store: AnyStore,
    world: World,
    vault: VaultId,
    key: VaultKey,
    chain: Chain,
}

impl Home {
    async fn new(store: &AnyStore, seed: u64) -> Self {
        let world = World::new(seed);
        store.register(world.registration(&format!("name-{seed}"))).await.unwrap();
        let vault = world.keyring();
        let key = store.vault(world.account, vault).await.unwrap().unwrap().key;
        let chain = Chain::of(&world, vault);
        Self { store: Arc::clone(store), world, vault, key, chain }
    }

    fn draft(&mut self, ops: &[Op]) -> Draft {
        self.chain.draft(&self.world.author, ops)
    }

    async fn try_push(&self, author: &Author, draft: &Draft) -> Result<Pushed, StoreError> {
        self.store.apply_commit(self.world.account, self.key, draft.prepare(author)).await
    }

    /// Applies a good draft and follows it.
    async fn push(&mut self, draft: &Draft) {
        let prepared = draft.prepare(&self.world.author);
        let expected = Pushed::Applied { seq: prepared.commit.seq, head: prepared.hash };
        let pushed = self.store.apply_commit(self.world.account, self.key, prepared.clone()).await;
        assert_eq!(pushed.unwrap(), expected);
        self.chain.follow(&prepared);
    }

    async fn commit(&mut self, ops: &[Op]) {
        let draft = self.draft(ops);
        self.push(&draft).await;
    }

    async fn seen(&self) -> Seen {
        Seen {
            vaults: self.store.vaults(self.world.account).await.unwrap(),
            commits: all_commits(&self.store, self.key).await,
            entries: all_entries(&self.store, self.key, self.chain.seq().next()).await,
        }
    }
}

/// Everything that a reader can see of an account's vaults and of one vault's chain.
#[derive(Debug, PartialEq)]
struct Seen {
    vaults: Vec<VaultInfo>,
    commits: Vec<CommitEntry>,
    entries: Vec<Entry>,
}

async fn all_commits(store: &AnyStore, key: VaultKey) -> Vec<CommitEntry> {
    let mut commits: Vec<CommitEntry> = Vec::new();
    loop {
        let after = commits.len().checked_sub(1).map(|last| Seq::new(last as u64));
        let (_, page, more) = store.commits(key, after, limits::PAGE_CHANGES_BYTES_MAX).await.unwrap();
        commits.extend(page);
        if !more {
            return commits;
        }
    }
}

async fn all_entries(store: &AnyStore, key: VaultKey, upto: Seq) -> Vec<Entry> {
    walk(store, key, EntryQuery { after: None, upto, from: None, current_only: false, bytes_max: 1 << 22 })
        .await
}

/// Follows a query's cursor to its end.
async fn walk(store: &AnyStore, key: VaultKey, mut query: EntryQuery) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    loop {
        let (page, more) = store.entries(key, query).await.unwrap();
        assert!(!more || !page.is_empty(), "a page that says more is never empty");
        entries.extend(page);
        query.from = entries.last().map(|entry| (entry.seq, entry.record));
        if !more {
            return entries;
        }
    }
}

fn place_of(entry: &Entry) -> (Seq, RecordId) {
    (entry.seq, entry.record)
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, StoreError>, code: Code) {
    match result {
        Err(StoreError::Refused(refusal)) => assert_eq!(refusal.code, code, "{}", refusal.detail),
        other => panic!("expected {code:?}, got {other:?}"),
    }
}

/// Runs futures on tasks of their own, all at once, and gives their results.
async fn at_once<T: Send + 'static>(futures: Vec<impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let start = Arc::new(tokio::sync::Barrier::new(futures.len().max(1)));
    let tasks: Vec<_> = futures
        .into_iter()
        .map(|future| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                future.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
