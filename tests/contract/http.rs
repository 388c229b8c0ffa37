//! The real server on loopback, asked over real connections.

mod account;
mod authority;
mod edge;
mod heal;
mod life;
mod malformed;
mod names;
mod object;
mod session;
mod stop;
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
use lockstep_server::config::{Config, Registration};
use lockstep_server::cors::CorsOrigins;
use lockstep_server::domain::account::{Action, check_registration};
use lockstep_server::extract::session::open_session;
use lockstep_server::http::Peer;
use lockstep_server::objects::settings::ObjectsAt;
use lockstep_server::proxy::TrustedProxies;
use lockstep_server::state::App;
use lockstep_server::store::{NewAccount, NewSignIn};
use lockstep_server::tls::Tls;
use std::sync::{Arc, OnceLock};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A server that serves.
struct Running {
    client: Client,
    app: App,
    origin: String,
    folder: Folder,
    tls: Option<Arc<Tls>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    async fn start() -> Self {
        Self::start_in(Folder::new()).await
    }

    async fn start_in(folder: Folder) -> Self {
        Self::start_with(folder, |_| {}).await
    }

    /// With other settings.
    async fn start_with(folder: Folder, change: impl FnOnce(&mut Config)) -> Self {
        let data = folder.path().join("data");
        let mut config = Config {
            listen: ([127, 0, 0, 1], 0).into(),
            database: data.join("test.sqlite"),
            objects: ObjectsAt::Folder(data.join("objects")),
            data,
            public_url: None,
            registration: Registration::Open,
            tls: None,
            trusted_proxies: TrustedProxies::default(),
            cors_origins: CorsOrigins::default(),
            quota: None,
        };
        change(&mut config);
        let server = Server::bind(&config).await.unwrap();
        let (client, app) = (Client::new(server.address().unwrap()), server.app().clone());
        let origin = server.origin().to_owned();
        let tls = server.tls().cloned();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(server.run(async {
            let _ = stopped.await;
        }));
        Self { client, app, origin, folder, tls, stop, task }
    }

    /// Stops and gives the folder back.
    async fn stop(self) -> Folder {
        let Self { app, folder, stop, task, .. } = self;
        drop(app);
        stop.send(()).unwrap();
        task.await.unwrap();
        folder
    }

    /// Tests of forms are not slowed down; of throttling there are tests of its own.
    fn forget_tries(&self, name: &str) {
        let peer = Peer(([127, 0, 0, 1], 1).into());
        self.app.sources.succeeded(&peer.bucket("register"));
        self.app.names.succeeded(name.as_bytes());
    }

    fn stored_segments(&self) -> usize {
        self.folder
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
