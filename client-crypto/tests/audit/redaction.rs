//! Secrets show themselves in no `Debug`, no message and no chain of causes.

use crate::scenario::{self, Counter, PASSPHRASE};
use lockstep_client_crypto::account::{
    Credential, CredentialChange, Joining, KeyringKeys, NewCredentials, UnlockedAccount,
};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::local::LocalKeys;
use lockstep_client_crypto::passphrase::Passphrase;
use lockstep_client_crypto::recovery::RecoveryKey;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_client_crypto::vault::VaultKeys;
use lockstep_proto::id::{Epoch, VaultId};
use lockstep_proto::key_header::VerifiedKeyHeader;
use std::error::Error;

/// What a part of a secret looks like in a text: hexadecimal digits, a list of numbers, or the text itself.
fn looks(secret: &[u8]) -> Vec<String> {
    let mut looks = Vec::new();
    for part in [&secret[..6], &secret[secret.len() - 6..]] {
        let hex = format!("{part:02x?}").replace(", ", "").replace(['[', ']'], "");
        let list: Vec<String> = part.iter().map(u8::to_string).collect();
        looks.extend([hex, list.join(", "), list.join(",\n    "), list.join(",")]);
        looks.push(part.escape_ascii().to_string());
        looks.push(String::from_utf8_lossy(part).into_owned());
    }
    looks
}

fn shown(text: &str, secrets: &[(&'static str, Vec<u8>)]) -> Vec<&'static str> {
    let lower = text.to_lowercase();
    let is_shown = |secret: &[u8]| looks(secret).iter().any(|look| lower.contains(&look.to_lowercase()));
    secrets.iter().filter(|(_, secret)| is_shown(secret)).map(|(name, _)| *name).collect()
}

#[track_caller]
fn assert_silent(text: &str, secrets: &[(&'static str, Vec<u8>)]) {
    assert_eq!(shown(text, secrets), Vec::<&str>::new(), "in {text}");
}

/// A message and all of its causes, for people and for programmers.
fn chain(error: &dyn Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text} {error} {error:?}");
        cause = error.source();
    }
    text
}

#[test]
fn the_search_knows_a_secret_when_it_sees_one() {
    let secrets = scenario::secrets(&scenario::whole());
    for (name, secret) in &secrets {
        for text in
            [format!("{secret:?}"), format!("{secret:#?}"), format!("{secret:02x?}").replace(", ", "")]
        {
            assert!(shown(&text, &secrets).contains(name), "{name} in {text}");
        }
    }
    assert!(shown(&format!("no account for {PASSPHRASE:?}"), &secrets).contains(&"passphrase"));
}

#[test]
fn owners_of_secrets_print_nothing_of_them() {
    let outputs = scenario::whole();
    let secrets = scenario::secrets(&outputs);
    let passphrase = Passphrase::new(PASSPHRASE).unwrap();
    let account = UnlockedAccount::create(&mut Counter::new(1)).unwrap();
    let device = DeviceKeys::generate(&mut Counter::new(2)).unwrap();
    let recovery = RecoveryKey::generate(&mut Counter::new(3));
    let mut counter = Counter::new(7);
    let vault = VaultId::from_bytes([0x77; 16]);
    let secret = SecretKey::generate(&mut counter);
    let keys = VaultKeys::new(vault, &secret).with_epoch(Epoch::new(1), SecretKey::generate(&mut counter));
    let header = VerifiedKeyHeader::verify(account.account(), &outputs.header).unwrap();
    let keyring = KeyringKeys::open_as_device(&header, &device).unwrap();
    let opened = keys.open(&outputs.envelope).unwrap();
    let credentials = NewCredentials { passphrase: &passphrase, recovery: &recovery };
    let change = CredentialChange { passphrase: Some(&passphrase), recovery: Some(&recovery) };
    let joining = Joining { device: &device, name: "laptop", pins: Vec::new() };
    let mut said = 0;
    let mut silent = |text: String| {
        said += text.len();
        assert_silent(&text, &secrets);
        assert!(!text.contains("a document"), "{text}");
    };
    macro_rules! print {
        ($($value:expr),+ $(,)?) => {$( silent(format!("{:?} {:#?}", $value, $value)); )+};
    }
    print!(
        passphrase,
        account,
        device,
        recovery,
        secret,
        keys,
        keyring,
        LocalKeys::new(device.index_key()),
        keys.content_hasher(),
        Credential::Passphrase(&passphrase),
        Credential::Recovery(&recovery),
        credentials,
        change,
        joining,
        opened,
        outputs.reference,
        header.header(),
        device.to_bytes().len(),
    );
    assert!(said > 500, "something was printed");
    // The key from which a blob's is derived is in no message either.
    let reference = format!("{:?}", outputs.reference);
    assert!(!looks(&outputs.reference.seed.0).iter().any(|look| reference.contains(look)), "{reference}");
}

#[test]
fn errors_say_nothing_of_what_they_are_about() {
    let secrets = scenario::secrets(&scenario::whole());
    let device = DeviceKeys::generate(&mut Counter::new(2)).unwrap().to_bytes();
    let mut refused = 0;
    for place in 0..device.len() {
        // Another type for each item, and a shorter file.
        for byte in [0x00, 0x5f, 0x60, 0x78, 0x80, 0xa0, 0xf6, device[place] ^ 0x20] {
            let mut damaged = device.to_vec();
            damaged[place] = byte;
            for bytes in [&damaged[..], &damaged[..place]] {
                if let Err(error) = DeviceKeys::from_bytes(bytes) {
                    refused += 1;
                    assert_silent(&chain(&error), &secrets);
                }
            }
        }
    }
    assert!(refused > device.len());
    let recovery = RecoveryKey::generate(&mut Counter::new(3)).to_text();
    for place in 0..recovery.len() {
        for letter in ["q", "b", "?", "", "\u{e9}"] {
            let typed = [&recovery[..place], letter, &recovery[place + 1..]].concat();
            if let Err(error) = RecoveryKey::parse(&typed) {
                assert_silent(&chain(&error), &secrets);
            }
        }
    }
    let long = PASSPHRASE.repeat(40);
    assert_silent(&chain(&Passphrase::new(&long).unwrap_err()), &secrets);
}
