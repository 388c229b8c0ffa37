//! Row 24, keys that reach the server: in the requests of a whole life there is no byte of a secret, in no place and in
//! no form; a session's token is in its header alone.

use super::tap::{Asked, tapped_with};
use crate::canary::hex;
use crate::life::recover;
use crate::revoke::{login_as, revoke};
use crate::revoked_keys::header;
use crate::tree::{noise, write};
use crate::world::{Device, PASSPHRASE, World};
use lockstep_client_crypto::account::KeyringKeys;
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_client_crypto::{kdf, seal};
use lockstep_engine::keyring::{VAULT_KEY_TYPE, VaultKeyDoc};
use lockstep_proto::cbor::{Wire as _, encode};
use lockstep_proto::id::VaultId;
use lockstep_proto::key_header::{VerifiedKeyHeader, WrapHeader};
use lockstep_proto::label::{self, Label};
use lockstep_proto::recovery::parse_recovery_key;
use lockstep_proto::vault_log::keyring_vault_id;
use lockstep_proto::version::{SUITE, VERSION};
use std::collections::{BTreeMap, BTreeSet};

/// Secrets by what they are.
type Secrets = BTreeMap<String, Vec<u8>>;

/// Keys in a device's file: each is 32 bytes behind a head of two.
fn of_device(name: &str, device: &Device, secrets: &mut Secrets) {
    let file = std::fs::read(device.home.join("device")).unwrap();
    DeviceKeys::from_bytes(&file).unwrap();
    let places = [("signing seed", 20), ("X-Wing seed", 54), ("nonce key", 88), ("index key", 122)];
    assert_eq!(file.len(), 122 + 34);
    for (what, place) in places {
        assert_eq!(file[place..place + 2], [0x58, 0x20]);
        secrets.insert(format!("{what} of {name}"), file[place + 2..place + 34].to_vec());
    }
}

/// What a passphrase leads to.
fn of_passphrase(header: &VerifiedKeyHeader, passphrase: &str, secrets: &mut Secrets) {
    let account = header.header().account;
    let wrap = &header.header().wraps[0];
    let (role, profile, salt, nonce) = (wrap.role, wrap.profile, wrap.salt, wrap.nonce);
    let kek = Passphrase::new(passphrase).unwrap().derive_kek(account, profile, &salt).unwrap();
    let bound = encode(&WrapHeader { version: VERSION, suite: SUITE, account, role, profile, salt, nonce });
    let root =
        seal::open(&kek, label::ROOT_WRAP, &bound, &nonce.0, &wrap.commitment, &wrap.ciphertext.0).unwrap();
    let root = SecretKey::from_slice(&root).unwrap();
    secrets.insert(format!("KEK of {passphrase}"), kek.expose().to_vec());
    secrets.insert(format!("passphrase {passphrase}"), passphrase.as_bytes().to_vec());
    secrets.insert("root".into(), root.expose().to_vec());
    for label in [label::IDENTITY_KEY, label::KEYRING_WRAP_KEY] {
        let key = kdf::derive_key(&root, label, kdf::NONE);
        secrets.insert(label.as_str().into(), key.expose().to_vec());
    }
}

fn of_kit(world: &World, kit: &str, header: &VerifiedKeyHeader, secrets: &mut Secrets) {
    let text = std::fs::read_to_string(world.path(kit)).unwrap();
    let text = text.lines().find_map(|line| line.strip_prefix("recovery key: ")).unwrap();
    let bytes = parse_recovery_key(text).unwrap();
    let wrap = &header.header().wraps[1];
    let info = encode(&(label::RECOVERY_KEK.as_str(), header.header().account, wrap.salt));
    let kek: zeroize::Zeroizing<[u8; 32]> = kdf::expand(&SecretKey::from_bytes(&bytes), &info);
    secrets.insert(format!("KEK of {kit}"), kek.to_vec());
    let login = RecoveryKey::parse(text).unwrap().login_key();
    secrets.insert(format!("sign-in key of {kit}"), login.to_bytes().to_vec());
    secrets.insert(format!("text of {kit}"), text.as_bytes().to_vec());
    secrets.insert(format!("plain text of {kit}"), text.replace(' ', "").into_bytes());
    secrets.insert(format!("recovery key of {kit}"), bytes.to_vec());
}

/// Keys of the keyring and of all vaults, and seeds of blobs, as a device reads them.
fn of_vaults(world: &World, device: &Device, secrets: &mut Secrets) {
    let database = world.server.database();
    let header = header(&database);
    let keys = DeviceKeys::from_bytes(&std::fs::read(device.home.join("device")).unwrap()).unwrap();
    let opened = KeyringKeys::open_as_device(&header, &keys).unwrap();
    let keyring = keyring_vault_id(&header.identity().to_bytes());
    let mut vaults = BTreeMap::from([(keyring, VaultKeys::new(keyring, &opened.vault_secret()))]);
    of_secret(keyring, &opened.vault_secret(), secrets);
    for (epoch, key) in opened.keys() {
        vaults.get_mut(&keyring).unwrap().add_epoch(epoch, key.duplicate());
        secrets.insert(format!("keyring key {epoch}"), key.expose().to_vec());
    }
    let text =
        "SELECT v.vault, r.envelope FROM version r JOIN vault v ON v.id = r.vault ORDER BY v.is_keyring DESC";
    let mut rows = database.prepare(text).unwrap();
    let rows = rows.query_map([], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, Vec<u8>>(1)?))).unwrap();
    for row in rows {
        let (vault, envelope) = row.unwrap();
        let content = vaults[&VaultId::from_bytes(vault)].open(&envelope).unwrap().content;
        for blob in &content.blobs {
            secrets.insert(format!("seed of {}", blob.blob), blob.seed.0.to_vec());
        }
        if content.record_type == VAULT_KEY_TYPE {
            let doc = VaultKeyDoc::decode(&content.document.0).unwrap();
            let (secret, key) = (SecretKey::from_bytes(&doc.secret.0), SecretKey::from_bytes(&doc.key.0));
            secrets.insert(format!("key {} of vault {}", doc.epoch, doc.vault), doc.key.0.to_vec());
            of_secret(doc.vault, &secret, secrets);
            let keys = vaults.entry(doc.vault).or_insert_with(|| VaultKeys::new(doc.vault, &secret));
            keys.add_epoch(doc.epoch, key);
        }
    }
}

fn of_secret(vault: VaultId, secret: &SecretKey, secrets: &mut Secrets) {
    secrets.insert(format!("secret of vault {vault}"), secret.expose().to_vec());
    let labels: [Label; 4] =
        [label::RECORD_ID_KEY, label::CONTENT_HASH_KEY, label::CHUNKER_KEY, label::BLOB_SECRET];
    for label in labels {
        let key = kdf::derive_key(secret, label, &[vault]);
        secrets.insert(format!("{} of vault {vault}", label.as_str()), key.expose().to_vec());
    }
}

fn base64(bytes: &[u8], last: [u8; 2]) -> String {
    let mut digits: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').collect();
    digits.extend(last);
    bytes
        .chunks_exact(3)
        .flat_map(|c| {
            let bits = u32::from(c[0]) << 16 | u32::from(c[1]) << 8 | u32::from(c[2]);
            [18, 12, 6, 0].map(|shift| digits[(bits >> shift & 63) as usize] as char)
        })
        .collect()
}

/// The forms in which a secret could be written: its halves as bytes, and all of it as hex and base64 of either alphabet
/// from each of the three places that a group can begin at.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let (first, second) = secret.split_at(secret.len() / 2);
    let mut forms = vec![first.to_vec(), second.to_vec()];
    for half in [first, second] {
        forms.extend([hex(half).into_bytes(), hex(half).to_uppercase().into_bytes()]);
        for skip in 0..3 {
            forms.extend([b"+/", b"-_"].map(|last| base64(&half[skip..], *last).into_bytes()));
        }
        let mut backwards = half.to_vec();
        backwards.reverse();
        forms.push(backwards);
    }
    forms
}

fn has(bytes: &[u8], needle: &[u8]) -> bool {
    needle.len() >= 6 && bytes.windows(needle.len()).any(|window| window == needle)
}

/// Forms of secrets by their first two bytes: one pass over some bytes looks for all of them.
struct Search<'a>(Vec<Vec<(&'a str, Vec<u8>)>>);

impl<'a> Search<'a> {
    fn new(secrets: &'a Secrets) -> Self {
        let mut table = vec![Vec::new(); 65_536];
        for (name, secret) in secrets {
            for form in forms(secret).into_iter().filter(|form| form.len() >= 6) {
                table[usize::from(form[0]) << 8 | usize::from(form[1])].push((name.as_str(), form));
            }
        }
        Self(table)
    }

    /// Names of the secrets that are somewhere in the bytes.
    fn names(&self, bytes: &[u8]) -> BTreeSet<&'a str> {
        let mut names = BTreeSet::new();
        for (place, pair) in bytes.windows(2).enumerate() {
            let at = &self.0[usize::from(pair[0]) << 8 | usize::from(pair[1])];
            let hits = at.iter().filter(|(_, form)| bytes[place..].starts_with(form));
            names.extend(hits.map(|(name, _)| *name));
        }
        names
    }
}

fn bytes_of(asked: &Asked) -> Vec<u8> {
    [asked.head.as_bytes(), &asked.body].concat()
}

/// A whole life; gives what was asked in it, the devices, and every secret there is.
fn live() -> (World, Vec<Asked>, Secrets, Vec<String>) {
    let (world, tap) = tapped_with(&[("LOCKSTEP_LOG", "trace")]);
    let mut secrets = Secrets::new();
    let a = world.signup("a");
    let now = || header(&world.server.database());
    of_passphrase(&now(), PASSPHRASE, &mut secrets);
    of_kit(&world, "kit", &now(), &mut secrets);
    for (number, size) in [0, 100, 20_000, 100_000, 9_000_000].into_iter().enumerate() {
        write(&world.path(&format!("docs/{number}")), noise(number as u64, size));
    }
    let snapshot = a.backup("docs");
    a.put("n", "1").ok();
    a.ok(&["vault", "create", "second"]);
    a.run_with(&["record", "put", "--type", "note", "--vault", "second"], "{}").ok();
    let (b, c) = (login_as(&world, "b"), login_as(&world, "c"));
    b.restore("out");
    c.put("n", "2").ok();
    a.ok(&["session", "list"]);
    let new = world.secret("new", "the second passphrase of a life");
    a.ok(&[
        "passphrase",
        "change",
        "--passphrase-file",
        &world.text("passphrase"),
        "--new-passphrase-file",
        &new,
    ]);
    of_passphrase(&now(), "the second passphrase of a life", &mut secrets);
    a.ok(&["recovery-key", "rotate", "--passphrase-file", &new, "--kit", &world.text("kit-2")]);
    of_kit(&world, "kit-2", &now(), &mut secrets);
    std::fs::copy(&new, world.path("passphrase")).unwrap();
    of_device("c", &c, &mut secrets);
    revoke(&world, &a, "c").ok();
    b.put("n", "3").ok();
    recover(&world, "d", "kit-2", "kit-3", &["--keep-others"]).ok();
    of_kit(&world, "kit-3", &now(), &mut secrets);
    of_passphrase(&now(), "a passphrase after recovery", &mut secrets);
    let d = world.device("d");
    d.ok(&["check", "--read-data"]);
    d.ok(&["forget", &snapshot]);
    a.ok(&["device", "rename", "b", "renamed"]);
    a.ok(&["fingerprint"]);
    of_vaults(&world, &d, &mut secrets);
    for (name, device) in [("a", &a), ("b", &b), ("d", &d)] {
        of_device(name, device, &mut secrets);
    }
    let passphrase = world.text("passphrase-recovered");
    d.ok(&["vault", "delete", "second", "--yes", "--passphrase-file", &passphrase]);
    let tokens = [&a, &b, &d].map(|device| std::fs::read_to_string(device.home.join("session")).unwrap());
    let tokens = tokens.map(|token| token.trim().to_owned()).to_vec();
    b.ok(&["logout"]);
    let asked = tap.take();
    (world, asked, secrets, tokens)
}

#[test]
fn row_24_no_request_of_a_whole_life_has_a_byte_of_a_key() {
    let (_world, asked, secrets, tokens) = live();
    let routes: BTreeSet<String> = asked.iter().map(Asked::route).collect();
    assert!(asked.len() > 100 && routes.len() > 25, "{} requests, {routes:#?}", asked.len());
    assert!(secrets.len() > 45, "{:?}", secrets.keys());
    let search = Search::new(&secrets);
    for asked in &asked {
        assert_eq!(search.names(&bytes_of(asked)), BTreeSet::new(), "{}", asked.head);
    }
    // The search is not blind: each secret, in each form, in each place.
    for (number, (name, secret)) in secrets.iter().enumerate() {
        let forms = forms(secret);
        let form = forms.into_iter().filter(|form| form.len() >= 6).cycle().nth(number).unwrap();
        let mut planted = asked[number].clone();
        match String::from_utf8(form.clone()) {
            Ok(text) if number % 2 == 0 => {
                planted.head = format!("GET /v1/vaults?key={text} HTTP/1.1\r\n\r\n");
            }
            _ => planted.body.extend_from_slice(&form),
        }
        assert!(search.names(&bytes_of(&planted)).contains(name.as_str()), "{name}");
    }
    // Bearer tokens: in the one header, and nowhere else.
    for token in &tokens {
        let mut uses = 0;
        for asked in &asked {
            assert!(!has(&asked.body, token.as_bytes()) && !asked.path().contains(token.as_str()));
            for line in asked.head.lines().filter(|line| line.contains(token.as_str())) {
                assert_eq!(
                    line.to_ascii_lowercase(),
                    format!("authorization: bearer {}", token.to_ascii_lowercase())
                );
                uses += 1;
            }
        }
        assert!(uses > 0, "a token that nobody used");
    }
    // Paths hold ids and numbers; whatever is longer than an id is none.
    for asked in &asked {
        let longest = asked.path().split(['/', '?', '&', '=']).map(str::len).max().unwrap();
        assert!(longest <= 36, "{}", asked.path());
        assert!(!asked.head.to_ascii_lowercase().contains("referer:"));
    }
}

/// What the server stored and logged in that life, at its most talkative: no key, either. (Names and contents are in
/// `canary.rs`.)
#[test]
fn leakage_no_key_of_a_whole_life_is_stored_or_logged() {
    let (mut world, _, secrets, _) = live();
    let search = Search::new(&secrets);
    world.server.stop();
    let mut paths = world.server.files();
    paths.push(world.server.log.clone());
    assert!(paths.len() > 3, "{paths:?}");
    let mut bytes = 0;
    for path in &paths {
        let contents = std::fs::read(path).unwrap_or_default();
        bytes += contents.len();
        assert_eq!(search.names(&contents), BTreeSet::new(), "in {}", path.display());
        assert_eq!(search.names(path.as_os_str().as_encoded_bytes()), BTreeSet::new());
    }
    assert!(bytes > 5_000_000, "a blind search of {bytes} bytes");
    let log = std::fs::read(&world.server.log).unwrap();
    for (name, secret) in &secrets {
        assert!(search.names(&[&log[..1000], &forms(secret)[0]].concat()).contains(name.as_str()), "{name}");
    }
}
