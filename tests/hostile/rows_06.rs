//! Row 6, offline guessing: who has the whole database has nothing on which a guess of the passphrase can be tested
//! with less than one Argon2id at the floor.

use crate::revoked_keys::{account_of, header};
use crate::world::{PASSPHRASE, World};
use lockstep_client_crypto::account::{Credential, Enrolment, Joining, NewCredentials, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::opaque;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::{CryptoRng, kdf, seal};
use lockstep_proto::cbor::{Wire as _, encode};
use lockstep_proto::key_header::{KeyHeader, PROFILES, ROLE_PASSPHRASE, Wrap, WrapHeader};
use lockstep_proto::version::{SUITE, VERSION};
use lockstep_proto::{AccountId, Digest, label};
use lockstep_server::domain::opaque::{Opaque, Suite, SystemRng};
use opaque_ke::{
    ClientLogin, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters,
    CredentialResponse, Identifiers, RegistrationResponse,
};
use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

/// KiB and passes below which no stretching may be.
const FLOOR: (u32, u32) = (64 * 1024, 3);

type Columns = BTreeMap<(String, String), BTreeSet<Vec<u8>>>;

/// Every value of every column of every table.
fn dump(database: &Connection) -> Columns {
    let mut tables = database.prepare("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let names: Vec<String> = tables.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let mut found = Columns::new();
    for table in names.into_iter().filter(|name| !name.starts_with("sqlite_") && !name.starts_with("_sqlx")) {
        let mut statement = database.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = statement.query([]).unwrap();
        for column in &columns {
            found.entry((table.clone(), column.clone())).or_default();
        }
        while let Some(row) = rows.next().unwrap() {
            for (place, column) in columns.iter().enumerate() {
                let value = format!("{:?}", row.get_ref(place).unwrap()).into_bytes();
                found.get_mut(&(table.clone(), column.clone())).unwrap().insert(value);
            }
        }
    }
    found
}

/// What a change of the passphrase changes in the database is in these columns, and what it changes in the two
/// structures among them is the wrap and its place in the log.
#[test]
fn row_06_a_passphrase_touches_its_wrap_and_its_sign_in_record_alone() {
    let world = World::new();
    let a = world.signup("a");
    a.put("n", "1").ok();
    let (before, old) = (dump(&world.server.database()), header(&world.server.database()));
    assert!(before.len() > 60, "a blind search: {} columns", before.len());
    let new = world.secret("new", "another passphrase of some length");
    a.ok(&[
        "passphrase",
        "change",
        "--passphrase-file",
        &world.text("passphrase"),
        "--new-passphrase-file",
        &new,
    ]);
    let (after, now) = (dump(&world.server.database()), header(&world.server.database()));
    let changed: Vec<String> = after
        .iter()
        .filter(|(place, values)| before.get(*place) != Some(values))
        .map(|((table, column), _)| format!("{table}.{column}"))
        .filter(|name| !name.starts_with("challenge.") && !name.starts_with("session."))
        .collect();
    let expected = [
        "account.credential",
        "account.key_header",
        "account.key_header_signature",
        "account.log_head",
        "account.log_length",
        "account.opaque_record",
        "account.used_bytes",
        "device_log.bytes",
        "device_log.hash",
        "device_log.position",
        "device_log.signature",
    ];
    assert_eq!(changed, expected);
    let (old, now) = (old.header(), now.header());
    assert_ne!(old.wraps[0], now.wraps[0]);
    let rest = KeyHeader { counter: now.counter, wraps: now.wraps.clone(), ..old.clone() };
    assert_eq!((&rest, &old.wraps[1]), (now, &now.wraps[1]));
}

/// An account whose randomness is fixed, under a passphrase.
fn enrolled(passphrase: &str) -> (AccountId, Enrolment) {
    let mut rng = ChaCha20Rng::from_seed([6; 32]);
    let unlocked = UnlockedAccount::create(&mut rng).unwrap();
    let device = DeviceKeys::generate(&mut rng).unwrap();
    let credentials = NewCredentials {
        passphrase: &Passphrase::new(passphrase).unwrap(),
        recovery: &RecoveryKey::generate(&mut rng),
    };
    let joining = Joining { device: &device, name: "a", pins: Vec::new() };
    (unlocked.account(), unlocked.first_enrolment(credentials, joining, &mut rng).unwrap())
}

/// With all randomness fixed another passphrase gives the same structures, but for one wrap's commitment and
/// ciphertext, and the hash and signatures over them.
#[test]
fn row_06_with_fixed_randomness_only_the_wrap_depends_on_the_passphrase() {
    let ((account, one), (same, other)) =
        (enrolled("the first passphrase"), enrolled("the second passphrase"));
    assert_eq!(account, same);
    assert_ne!(one.key_header.bytes, other.key_header.bytes);
    let mut header = KeyHeader::decode(&one.key_header.bytes.0).unwrap();
    let second = KeyHeader::decode(&other.key_header.bytes.0).unwrap();
    assert_ne!(header.wraps[0].commitment, second.wraps[0].commitment);
    header.wraps[0].commitment = second.wraps[0].commitment;
    header.wraps[0].ciphertext = second.wraps[0].ciphertext;
    assert_eq!(header, second);
    let mut entry = lockstep_proto::device_log::DeviceLogEntry::decode(&one.entry.bytes.0).unwrap();
    let second = lockstep_proto::device_log::DeviceLogEntry::decode(&other.entry.bytes.0).unwrap();
    entry.key_header_hash = second.key_header_hash;
    assert_eq!(entry, second);
}

fn argon2id(passphrase: &str, salt: &[u8], (memory, passes): (u32, u32)) -> [u8; 32] {
    let mut out = [0; 32];
    let parameters = argon2::Params::new(memory, passes, 1, Some(32)).unwrap();
    argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, parameters)
        .hash_password_into(passphrase.as_bytes(), salt, &mut out)
        .unwrap();
    out
}

fn opens(account: AccountId, wrap: &Wrap, kek: &[u8; 32]) -> bool {
    let (role, profile, salt, nonce) = (wrap.role, wrap.profile, wrap.salt, wrap.nonce);
    let header = encode(&WrapHeader { version: VERSION, suite: SUITE, account, role, profile, salt, nonce });
    let kek = SecretKey::from_bytes(kek);
    seal::open(&kek, label::ROOT_WRAP, &header, &nonce.0, &wrap.commitment, &wrap.ciphertext.0).is_ok()
}

#[test]
fn row_06_a_guess_at_the_wrap_of_a_stolen_database_costs_argon2id() {
    let world = World::new();
    world.signup("a");
    let database = world.server.database();
    let (account, header) = (account_of(&database), header(&database));
    let wrap = &header.header().wraps[0];
    assert_eq!(wrap.role, ROLE_PASSPHRASE);
    let (_, memory, passes, _) = *PROFILES.iter().find(|(profile, ..)| *profile == wrap.profile).unwrap();
    assert!(PROFILES.iter().all(|(_, memory, passes, _)| *memory >= FLOOR.0 && *passes >= FLOOR.1));
    assert_eq!((memory, passes), FLOOR);
    for (guess, is_right) in [(PASSPHRASE, true), ("another guess at it", false)] {
        let guess = Passphrase::new(guess).unwrap();
        assert_eq!(UnlockedAccount::unlock(&header, Credential::Passphrase(&guess)).is_ok(), is_right);
    }
    let salt = Digest::of(label::KEK_SALT, &encode(&(account, wrap.salt))).truncate16();
    assert!(opens(account, wrap, &argon2id(PASSPHRASE, &salt, FLOOR)), "the test by hand is the real one");
    assert!(!opens(account, wrap, &argon2id("another guess at it", &salt, FLOOR)));
    // The same with less work, or none: the right passphrase does not show.
    for cheap in [(FLOOR.0 - 1, FLOOR.1), (FLOOR.0, FLOOR.1 - 1), (8 * 1024, 1), (8, 1)] {
        assert!(!opens(account, wrap, &argon2id(PASSPHRASE, &salt, cheap)), "{cheap:?}");
    }
    assert!(
        !opens(account, wrap, &argon2id(PASSPHRASE, &wrap.salt.0, FLOOR)),
        "the salt is the account's own"
    );
    let mut padded = [0; 32];
    padded[..PASSPHRASE.len()].copy_from_slice(PASSPHRASE.as_bytes());
    let hashed = *Digest::of(label::KEK_SALT, PASSPHRASE.as_bytes()).as_bytes();
    for plain in [padded, hashed] {
        let plain = SecretKey::from_bytes(&plain);
        let info = encode(&(label::KEK_SALT.as_str(), account, wrap.salt));
        for kek in [*plain.expose(), *kdf::expand::<32>(&plain, &info)] {
            assert!(!opens(account, wrap, &kek));
        }
    }
}

/// A sign-in with everything that the server has, without a connection.
struct Stolen {
    account: AccountId,
    server: Opaque,
    credential: Vec<u8>,
    record: Vec<u8>,
}

const ORIGIN: &str = "http://stolen.example";

impl Stolen {
    fn answer(&self, ke1: &[u8], record: &[u8]) -> Vec<u8> {
        self.server.start_login(ke1, &self.credential, Some(record), self.account, ORIGIN).unwrap().ke2
    }

    /// As the client does it.
    fn test(&self, guess: &str, rng: &mut dyn CryptoRng) -> bool {
        let guess = Passphrase::new(guess).unwrap();
        let (login, ke1) = opaque::Login::start(&guess, rng).unwrap();
        login.finish(&guess, self.account, ORIGIN, &self.answer(&ke1, &self.record), rng).is_ok()
    }

    /// The same, with key stretching left out.
    fn test_unstretched(&self, guess: &str, record: &[u8]) -> bool {
        let started = ClientLogin::<Suite>::start(&mut SystemRng, guess.as_bytes()).unwrap();
        let response =
            CredentialResponse::<Suite>::deserialize(&self.answer(&started.message.serialize(), record))
                .unwrap();
        let context = encode(&(label::OPAQUE.as_str(), ORIGIN));
        let parameters = ClientLoginFinishParameters::new(Some(&context), self.identifiers(), None);
        started.state.finish(&mut SystemRng, guess.as_bytes(), response, parameters).is_ok()
    }

    fn identifiers(&self) -> Identifiers<'_> {
        Identifiers { client: Some(self.account.as_bytes()), server: None }
    }

    /// A record that is made without stretching.
    fn unstretched(&self, passphrase: &str) -> Vec<u8> {
        let started = ClientRegistration::<Suite>::start(&mut SystemRng, passphrase.as_bytes()).unwrap();
        let response = self.server.start_record(&started.message.serialize(), &self.credential).unwrap();
        let response = RegistrationResponse::<Suite>::deserialize(&response).unwrap();
        let parameters = ClientRegistrationFinishParameters::new(self.identifiers(), None);
        let done = started.state.finish(&mut SystemRng, passphrase.as_bytes(), response, parameters).unwrap();
        Opaque::check_record(&done.message.serialize()).unwrap()
    }
}

#[test]
fn row_06_a_guess_at_the_sign_in_record_of_a_stolen_database_costs_argon2id() {
    let world = World::new();
    world.signup("a");
    let database = world.server.database();
    let text = "SELECT credential, opaque_record FROM account";
    let (credential, record): (Vec<u8>, Vec<u8>) =
        database.query_row(text, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let mut secrets = database.prepare("SELECT value FROM secret").unwrap();
    let mut secrets = secrets.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap().map(Result::unwrap);
    let server = secrets.find_map(|bytes| Opaque::from_bytes(&bytes)).expect("the server's keys");
    let stolen = Stolen { account: account_of(&database), server, credential, record };
    let mut rng = ChaCha20Rng::from_seed([7; 32]);
    assert!(stolen.test(PASSPHRASE, &mut rng), "a thief of the database can test guesses");
    assert!(!stolen.test("another guess at it", &mut rng));
    assert!(!stolen.test_unstretched(PASSPHRASE, &stolen.record), "but not without Argon2id");
    let weak = stolen.unstretched(PASSPHRASE);
    assert!(stolen.test_unstretched(PASSPHRASE, &weak), "which a record that lacks it would allow");
    assert!(!stolen.test_unstretched("another guess at it", &weak));
}
