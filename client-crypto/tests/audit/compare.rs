//! Secrets are never compared in variable time: types that own one can not be compared at all, types that may hold one
//! compare in constant time, and whatever else compares something named like a secret is listed here with its reason.

use lockstep_client_crypto::account::{KeyringKeys, UnlockedAccount};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_client_crypto::opaque::{Login, Registration};
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::{ContentHasher, VaultKeys};
use std::path::{Path, PathBuf};

/// Does not compile if the type has the trait: then there are two ways to read the path.
macro_rules! lacks {
    ($type:ty: $($name:path),+) => {$({
        trait Two<Way> {
            fn way() {}
        }
        struct Has;
        impl<T: ?Sized> Two<()> for T {}
        impl<T: ?Sized + $name> Two<Has> for T {}
        let _: fn() = <$type as Two<_>>::way;
    })+};
}

macro_rules! owners_of_secrets {
    ($($type:ty),+) => {$(
        lacks!($type: PartialEq, PartialOrd, Clone, Copy, Default, std::hash::Hash, std::fmt::Display, serde::Serialize);
        lacks!($type: std::ops::Deref, AsRef<[u8]>, Into<Vec<u8>>);
    )+};
}

#[test]
fn owners_of_secrets_can_not_be_compared_copied_hashed_or_written() {
    owners_of_secrets!(
        SecretKey,
        Passphrase,
        RecoveryKey,
        DeviceKeys,
        UnlockedAccount,
        KeyringKeys,
        VaultKeys,
        LocalKeys,
        ContentHasher,
        Registration,
        Login
    );
}

/// Words that name secrets and what is derived from them to be compared.
const WORDS: &[&str] = &[
    "secret",
    "passphrase",
    "kek",
    "seed",
    "token",
    "commitment",
    "checksum",
    "content_hash",
    "tag",
    "mac",
    "ke3",
    "expose",
    "okm",
    "password",
];

/// Comparisons that name such a word and are in order: the file, the line, and why.
const LISTED: &[(&str, &str, &str)] = &[
    ("proto/src/chain.rs", "|| commit.state != StateDigest::default().checksum()", DIGESTS),
    ("client/src/past.rs", "if sum.checksum() == commit.state {", DIGESTS),
    (
        "client/src/replica/read.rs",
        "let state = StateDigest::from_bytes(&state).filter(|state| state.checksum() == tip.state);",
        DIGESTS,
    ),
    ("client/src/check.rs", "if state.checksum() != verified.commit().state {", DIGESTS),
    ("engine/src/repair.rs", "if state.checksum() != commit.state {", DIGESTS),
    ("server/src/domain/commit.rs", "if state.checksum() != push.commit.state {", DIGESTS),
    ("engine/src/verify.rs", "if state.checksum() != commit.state {", DIGESTS),
    (
        "client/src/blob.rs",
        "Ok(reference.filter(|known| known.size == size && known.content_hash == content_hash))",
        DIGESTS,
    ),
    (
        "client/src/backup/group.rs",
        "known.and_then(|known| known.blob.clone()).filter(|blob| blob.size == size && blob.content_hash == hash)",
        DIGESTS,
    ),
    (
        "client/src/archive/send.rs",
        "before.filter(|before| (before.size, before.content_hash) == (reference.size, hash))",
        DIGESTS,
    ),
    (
        "client/src/replica/contents.rs",
        "Ok(reference.filter(|known| known.size == size && known.content_hash == hash))",
        DIGESTS,
    ),
    (
        "client/src/backup/known.rs",
        "known.is_some_and(|(_, tag)| *tag == stat_tag(&self.keys, record, &entry.kind, &entry.stat))",
        OWN,
    ),
    ("client/src/heal/objects.rs", "(hasher.finish() == reference.content_hash).then_some(file)", DIGESTS),
    (
        "client/src/keyring/keys.rs",
        "(&key.doc.secret, &key.doc.create, &key.doc.genesis) == (&first.secret, &first.create, &first.genesis)",
        "the secret is a ByteArray, which compares in constant time",
    ),
    (
        "client/src/account.rs",
        "if self.writes() && token != self.home.session()? {",
        "a device's own token against its own file, whether it has to be written",
    ),
    (
        "proto/src/key_header.rs",
        "if passphrase.role != ROLE_PASSPHRASE || recovery.role != ROLE_RECOVERY {",
        PUBLIC,
    ),
    (
        "proto/src/key_header.rs",
        "if !PROFILES.iter().any(|(profile, ..)| *profile == passphrase.profile) || recovery.profile != 0 {",
        PUBLIC,
    ),
    ("server/src/extract/session.rs", "if decoded.len() != TOKEN_BYTES {", PUBLIC),
    ("server/src/domain/opaque.rs", "if ke3.len() != KE3_BYTES {", PUBLIC),
    (
        "server/src/domain/account.rs",
        "if renewed != [passphrase, recovery] || !(passphrase || recovery) {",
        PUBLIC,
    ),
];
const DIGESTS: &str = "both are Digests, which compare in constant time";
const OWN: &str = "a device compares what its own files look like with its own rows; nobody else says either";
const PUBLIC: &str = "lengths, roles and whether something changed are public";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && path.file_name().unwrap() != "tests.rs" {
            found.push(path);
        }
    }
}

/// Whether a line compares and names a secret as a word of an identifier.
fn is_suspect(line: &str) -> bool {
    let line = line.trim();
    if line.starts_with("//") || !(line.contains("==") || line.contains("!=") || line.contains(".eq(")) {
        return false;
    }
    let mut identifiers = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_lowercase);
    identifiers.any(|name| {
        WORDS.iter().any(|word| name == *word || format!("_{name}_").contains(&format!("_{word}_")))
    })
}

/// All suspect lines of non-test code: file from the root, line.
fn suspects() -> Vec<(String, String)> {
    let root = root();
    let mut files = Vec::new();
    for name in ["proto", "client-crypto", "engine", "client", "cli", "server"] {
        sources(&root.join(name).join("src"), &mut files);
    }
    assert!(files.len() > 100, "the sources were read");
    let mut found = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap();
        for line in code.lines().filter(|line| is_suspect(line)) {
            found.push((name.to_owned(), line.trim().to_owned()));
        }
    }
    found
}

#[test]
fn comparisons_of_what_is_named_like_a_secret_are_listed_with_their_reason() {
    for line in ["if token == stored {", "if a.commitment != b {", "kek_bytes.eq(&other)", "x.expose() == y"]
    {
        assert!(is_suspect(line), "{line}");
    }
    assert!(!is_suspect("let stage = a == b;") && !is_suspect("// token == token"));
    let found = suspects();
    for (file, line) in &found {
        let is_listed = LISTED.iter().any(|(known, text, _)| known == file && text == line);
        assert!(is_listed, "{file} compares something named like a secret; use subtle, or list it: {line}");
    }
    for (file, line, why) in LISTED {
        assert!(
            found.iter().any(|(known, text)| known == file && text == line),
            "{file} ({why}): {line} is gone"
        );
    }
}

#[test]
fn digests_and_byte_arrays_compare_in_constant_time() {
    for (file, name) in [("hash.rs", "PartialEq for Digest"), ("cbor.rs", "PartialEq for ByteArray<N>")] {
        let text = std::fs::read_to_string(root().join("proto/src").join(file)).unwrap();
        let body = text.split(name).nth(1).unwrap().split("\n}\n").next().unwrap();
        assert!(body.contains("self.0.ct_eq(&other.0).into()"), "{file}: {body}");
    }
}
