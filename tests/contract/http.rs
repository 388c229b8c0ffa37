//! The real server on loopback, asked over real connections, once on every back end.

mod account;
mod authority;
mod edge;
mod heal;
mod life;
mod malformed;
mod names;
mod notice;
mod object;
mod objects;
mod rows;
mod session;
mod stop;
mod two;
mod usage;
mod vault;

use crate::chain::Chain;
use crate::client::Client;
use crate::folder::Folder;
use crate::world::{Author, World, rng, sign_in};
use lockstep_client_crypto::account::{Enrolment, Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_proto::Digest;
use lockstep_proto::api::auth::{ACTION_REGISTER, Session};
use lockstep_proto::id::VaultId;
use lockstep_proto::label;
use lockstep_server::Server;
use lockstep_server::config::{Config, Database, Registration};
use lockstep_server::cors::CorsOrigins;
use lockstep_server::domain::account::{Action, check_registration};
use lockstep_server::extract::session::open_session;
use lockstep_server::http::Peer;
use lockstep_server::objects::settings::ObjectsAt;
use lockstep_server::proxy::TrustedProxies;
use lockstep_server::state::App;
use lockstep_server::store::postgres::PostgresUrl;
use lockstep_server::store::{NewAccount, NewSignIn};
use lockstep_server::tls::Tls;
use lockstep_tests::postgres::Cluster;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// What a server keeps its rows in.
#[derive(Debug, Clone, Copy)]
enum BackEnd {
    Sqlite,
    Postgres,
}

macro_rules! suite {
    ($back_end:ident, $on:expr, $($room:ident::$name:ident)+) => {
        mod $back_end {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() { super::$room::$name($on).await })+
        }
    };
}

macro_rules! on_back_ends {
    ($($room:ident::$name:ident)+) => {
        suite!(sqlite, super::BackEnd::Sqlite, $($room::$name)+);
        suite!(postgres, super::BackEnd::Postgres, $($room::$name)+);
    };
}

on_back_ends! {
    account::registration_and_three_ways_to_sign_in
    account::statements_for_others_are_refused
    account::a_second_device_joins_once
    account::a_recovery_replaces_both_credentials
    account::a_recovery_takes_a_recovery_sign_in
    account::a_lost_race_for_the_log_is_told_as_such
    authority::without_a_session_nothing_is_served
    authority::a_provisional_session_sees_the_keyring_and_no_more
    authority::another_account_finds_nothing
    authority::unknown_routes_and_methods_are_told_apart
    authority::bad_places_are_refused
    heal::every_failure_of_giving_entries_back_is_the_same
    heal::a_revocation_that_was_refused_is_not_entered_by_another_way
    heal::asking_for_objects_destroys_nothing
    heal::no_start_without_the_folder_of_objects
    life::a_revocation_counts_once_and_only_as_one
    life::commits_after_a_revocation_name_it_and_are_under_a_new_epoch
    life::new_credentials_are_what_the_request_says
    life::deletions_are_for_what_they_name
    malformed::bytes_that_are_no_structure_are_malformed
    malformed::cut_and_flipped_bodies_are_told_apart_from_faults
    malformed::bodies_beyond_their_limit_are_too_large
    malformed::raw_routes_refuse_nonsense
    names::unknown_names_look_like_wrong_passphrases
    names::guessing_is_slowed_down_for_any_name
    names::names_that_can_not_exist_are_malformed
    notice::a_socket_is_told_what_moved
    notice::who_may_not_listen_is_told_why
    notice::a_session_that_ends_takes_its_sockets_along
    notice::listeners_have_a_bound
    notice::a_request_waits_until_something_moves
    object::framed_objects_come_back
    object::ranges_are_cut_out
    object::uploads_resume_where_they_stopped
    object::spoilt_frames_store_nothing
    object::an_upload_that_is_cut_off_stores_nothing
    object::who_is_refused_while_sending_sees_why
    objects::many_come_in_the_order_asked
    objects::what_is_not_there_is_an_empty_frame
    objects::lists_and_answers_have_bounds
    objects::neighbours_come_whole_whatever_their_sizes
    objects::lost_bytes_are_told_before_anything_is_promised
    objects::a_budget_that_is_used_up_keeps_nobody_waiting
    objects::neighbours_in_a_bucket_are_one_request
    rows::row_07_a_sign_in_that_is_not_finished_opens_nothing
    rows::row_07_delays_grow_and_are_capped
    session::a_revoked_session_is_dead_at_once
    session::nobody_sees_or_ends_another_accounts_sessions
    session::names_of_sessions_are_of_no_use
    session::the_last_use_is_written_down_now_and_then
    stop::a_running_request_ends_and_nothing_new_begins
    stop::what_was_answered_is_there_after_a_restart
    usage::the_servers_quota_is_everybodys
    usage::what_is_refused_leaves_nothing_behind
    usage::what_is_sent_twice_is_stored_and_counted_once
    usage::of_many_uploads_at_once_those_that_fit_are_taken
    vault::the_server_says_what_it_is
    vault::vaults_are_born_once
    vault::commits_are_pushed_staged_and_pulled
    vault::a_lost_race_brings_the_page
    vault::commits_of_others_are_refused
}

/// What outlives a server, and what several may share: a folder, and settings that name the database.
#[derive(Clone)]
struct Place {
    folder: Arc<Folder>,
    config: Config,
}

impl Place {
    fn new(on: BackEnd) -> Self {
        let folder = Folder::new();
        let data = folder.path().join("data");
        let database = match on {
            BackEnd::Sqlite => Database::Sqlite(data.join("test.sqlite")),
            BackEnd::Postgres => postgres(&Cluster::shared().database()),
        };
        Self::at(folder, database)
    }

    /// With other settings.
    fn with(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    fn at(folder: Folder, database: Database) -> Self {
        let data = folder.path().join("data");
        let config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            database,
            database_connections: 16,
            objects: ObjectsAt::Folder(data.join("objects")),
            data,
            public_url: None,
            registration: Registration::Open,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            cors_origins: CorsOrigins::default(),
            quota: None,
        };
        Self { folder: Arc::new(folder), config }
    }
}

fn postgres(url: &str) -> Database {
    Database::Postgres(PostgresUrl::parse(url).unwrap())
}

/// A server that serves.
struct Running {
    client: Client,
    app: App,
    origin: String,
    place: Place,
    tls: Option<Arc<Tls>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start_on(on: BackEnd) -> Self {
        Self::start_in(Place::new(on)).await
    }

    async fn start_in(place: Place) -> Self {
        let server = Server::bind(&place.config).await.unwrap();
        let (client, app) = (Client::new(server.address().unwrap()), server.app().clone());
        let origin = server.origin().to_owned();
        let tls = server.tls().cloned();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { client, app, origin, place, tls, stop, task }
    }

    /// Stops and gives the place back.
    async fn stop(self) -> Place {
        let Self { app, place, stop, task, .. } = self;
        drop(app);
        stop.send(()).unwrap();
        task.await.unwrap();
        place
    }

    /// Tests of forms are not slowed down; of throttling there are tests of its own.
    fn forget_tries(&self, name: &str) {
        let peer = Peer(([127, 0, 0, 1], 1).into());
        self.app.sources.succeeded(&peer.bucket("register"));
        self.app.names.succeeded(name.as_bytes());
    }

    fn stored_segments(&self) -> usize {
        self.place
            .folder
            .files()
            .iter()
            .filter(|path| path.components().any(|part| part.as_os_str() == "objects"))
            .filter(|path| !path.ends_with(lockstep_server::objects::local::MARKER))
            .count()
    }
}

/// Keys of an account; made once, because wrapping the root stretches a passphrase.
struct Material {
    unlocked: UnlockedAccount,
    device: DeviceKeys,
    enrolment: Enrolment,
}

static MATERIAL: OnceLock<Material> = OnceLock::new();

fn material() -> &'static Material {
    MATERIAL.get_or_init(|| {
        let mut rng = rng(1);
        let unlocked = UnlockedAccount::create(&mut rng).unwrap();
        let device = DeviceKeys::generate(&mut rng).unwrap();
        let credentials = NewCredentials {
            passphrase: &Passphrase::new("a passphrase of some length").unwrap(),
            recovery: &RecoveryKey::generate(&mut rng),
        };
        let joining = Joining { device: &device, name: "first", pins: Vec::new() };
        let enrolment = unlocked.first_enrolment(credentials, joining, &mut rng).unwrap();
        Material { unlocked, device, enrolment }
    })
}

/// An account that was put into the store past the routes, with a device's session and a provisional one.
struct Seeded {
    world: World,
    keyring: VaultId,
    chain: Chain,
    client: Client,
    provisional: Client,
}

const NAME: &str = "seeded";

async fn seed(running: &Running) -> Seeded {
    let material = material();
    let enrolment = &material.enrolment;
    let account = material.unlocked.account();
    let author = Author {
        keys: DeviceKeys::from_bytes(&material.device.to_bytes()).unwrap(),
        log_index: 0,
        log_head: enrolment.entry.digest(label::DEVICE_LOG_ENTRY),
    };
    let world = World { account, identity: *material.unlocked.identity(), author, seed: 1 };
    let keyring = world.keyring();
    let birth = world.birth(keyring, 1);
    let signature = material.unlocked.authorise(ACTION_REGISTER, b"seed", 0, Digest::ZERO);
    let action = Action { action: ACTION_REGISTER, body: b"seed", signature: &signature };
    let checked = check_registration(
        account,
        &action,
        &enrolment.key_header,
        &enrolment.entry,
        (&birth.create, &birth.genesis),
    );
    let (entry, keyring_birth, recovery) = checked.unwrap();
    let sign_in = NewSignIn { recovery, ..sign_in(1) };
    let new =
        NewAccount { name: NAME.into(), sign_in, entry, keyring: keyring_birth, invite: None, now_utc: 1 };
    running.app.store.register(new).await.unwrap();
    let device = open_session(&running.app, account, Some(world.author.keys.id())).await.unwrap();
    let provisional = open_session(&running.app, account, None).await.unwrap();
    Seeded {
        chain: Chain::of(&world, keyring),
        keyring,
        client: as_session(running, &device),
        provisional: as_session(running, &provisional),
        world,
    }
}

fn as_session(running: &Running, session: &Session) -> Client {
    running.client.with(&session.token)
}

impl Seeded {
    /// A path below the keyring vault.
    fn path(&self, rest: &str) -> String {
        format!("/v1/vaults/{}/{rest}", self.keyring)
    }
}
