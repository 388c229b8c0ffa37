//! OPAQUE (RFC 9807), client side: sign-in without showing the passphrase to the server
//! (PROTOCOL.md section 2.4). It authenticates and nothing else; no data key depends on it.

use crate::error::CryptoError;
use crate::passphrase::Passphrase;
use crate::secret::{DEEP, wiped};
use lockstep_proto::cbor::encode;
use lockstep_proto::hash::Digest;
use lockstep_proto::id::AccountId;
use lockstep_proto::label;
use opaque_ke::errors::InternalError;
use opaque_ke::generic_array::{ArrayLength, GenericArray};
use opaque_ke::{
    ClientLogin, ClientLoginFinishParameters, ClientRegistration, ClientRegistrationFinishParameters,
    CredentialResponse, Identifiers, RegistrationResponse,
};
use rand::rand_core::CryptoRng;
use zeroize::Zeroizing;

/// Key stretching that is compiled in; the crate's default is far weaker.
#[derive(Default)]
pub struct Stretch;

impl opaque_ke::ksf::Ksf for Stretch {
    fn hash<L: ArrayLength<u8>>(
        &self,
        input: GenericArray<u8, L>,
    ) -> Result<GenericArray<u8, L>, InternalError> {
        let stretched = stretch(&input).map_err(|_| InternalError::KsfError)?;
        let mut out = GenericArray::<u8, L>::default();
        if out.len() != stretched.len() {
            return Err(InternalError::KsfError);
        }
        out.copy_from_slice(stretched.as_ref());
        Ok(out)
    }
}

/// Argon2id 64 MiB, t=3, p=1 under a fixed salt, 64 bytes.
fn stretch(input: &[u8]) -> Result<Zeroizing<[u8; 64]>, CryptoError> {
    let salt = Digest::of(label::OPAQUE_KEY_STRETCH, b"").truncate16();
    crate::passphrase::argon2id(input, &salt, 64 * 1024, 3, 1)
}

/// ristretto255-SHA512, 3DH, [`Stretch`].
struct Suite;

impl opaque_ke::CipherSuite for Suite {
    type OprfCs = opaque_ke::Ristretto255;
    type KeyExchange = opaque_ke::TripleDh<opaque_ke::Ristretto255, sha2_010::Sha512>;
    type Ksf = Stretch;
}

const REGISTRATION_RESPONSE_BYTES: usize = 64;
const KE2_BYTES: usize = 320;

/// A registration that waits for the server's answer. Its state is as secret as the passphrase.
pub struct Registration {
    state: Box<ClientRegistration<Suite>>,
}

impl Registration {
    /// Begins; the second value is sent.
    ///
    /// # Errors
    /// [`CryptoError::Primitive`].
    pub fn start(passphrase: &Passphrase, rng: &mut dyn CryptoRng) -> Result<(Self, Vec<u8>), CryptoError> {
        wiped::<DEEP, _>(|| {
            let started = ClientRegistration::<Suite>::start(&mut Rng06(rng), passphrase.bytes())
                .map_err(|_| CryptoError::Primitive { what: "OPAQUE" })?;
            Ok((Self { state: Box::new(started.state) }, started.message.serialize().to_vec()))
        })
    }

    /// Ends; the result is the record that the server keeps. Runs Argon2id.
    ///
    /// # Errors
    /// [`CryptoError::Peer`] if the answer is malformed.
    pub fn finish(
        self,
        passphrase: &Passphrase,
        account: AccountId,
        response: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, CryptoError> {
        let peer = CryptoError::Peer { what: "answer to the registration" };
        if response.len() != REGISTRATION_RESPONSE_BYTES {
            return Err(peer);
        }
        let Ok(response) = RegistrationResponse::<Suite>::deserialize(response) else {
            return Err(peer);
        };
        let parameters = ClientRegistrationFinishParameters::new(identifiers(&account), None);
        wiped::<DEEP, _>(|| {
            let finished = self
                .state
                .finish(&mut Rng06(rng), passphrase.bytes(), response, parameters)
                .map_err(|_| peer)?;
            Ok(finished.message.serialize().to_vec())
        })
    }
}

/// A sign-in that waits for the server's answer.
pub struct Login {
    state: Box<ClientLogin<Suite>>,
}

impl Login {
    /// Begins; the second value (KE1) is sent.
    ///
    /// # Errors
    /// [`CryptoError::Primitive`].
    pub fn start(passphrase: &Passphrase, rng: &mut dyn CryptoRng) -> Result<(Self, Vec<u8>), CryptoError> {
        wiped::<DEEP, _>(|| {
            let started = ClientLogin::<Suite>::start(&mut Rng06(rng), passphrase.bytes())
                .map_err(|_| CryptoError::Primitive { what: "OPAQUE" })?;
            Ok((Self { state: Box::new(started.state) }, started.message.serialize().to_vec()))
        })
    }

    /// Ends: the result (KE3) is sent. Runs Argon2id.
    ///
    /// # Errors
    /// [`crate::OpenError`] in [`CryptoError::Open`] for a wrong passphrase or an unknown name alike.
    pub fn finish(
        self,
        passphrase: &Passphrase,
        account: AccountId,
        origin: &str,
        ke2: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<Vec<u8>, CryptoError> {
        if ke2.len() != KE2_BYTES {
            return Err(CryptoError::Peer { what: "answer to the sign-in" });
        }
        let response = CredentialResponse::<Suite>::deserialize(ke2)
            .map_err(|_| CryptoError::Peer { what: "answer to the sign-in" })?;
        let context = encode(&(label::OPAQUE.as_str(), origin));
        let parameters = ClientLoginFinishParameters::new(Some(&context), identifiers(&account), None);
        wiped::<DEEP, _>(|| {
            let finished = self
                .state
                .finish(&mut Rng06(rng), passphrase.bytes(), response, parameters)
                .map_err(|_| CryptoError::Open(crate::OpenError))?;
            Ok(finished.message.serialize().to_vec())
        })
    }
}

fn identifiers(account: &AccountId) -> Identifiers<'_> {
    Identifiers { client: Some(account.as_bytes()), server: None }
}

/// Our generator behind the older traits that `opaque-ke` takes.
struct Rng06<'a>(&'a mut dyn CryptoRng);

impl opaque_ke::rand::RngCore for Rng06<'_> {
    fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        self.0.fill_bytes(out);
        Ok(())
    }
}

impl opaque_ke::rand::CryptoRng for Rng06<'_> {}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn stretching_is_locked() {
        let out = stretch(b"fixed input").unwrap();
        let mut independent = [0; 64];
        argon2::Argon2::new(
            argon2::Algorithm::Argon2id,
            argon2::Version::V0x13,
            argon2::Params::new(65_536, 3, 1, Some(64)).unwrap(),
        )
        .hash_password_into(
            b"fixed input",
            &Digest::of(label::OPAQUE_KEY_STRETCH, b"").truncate16(),
            &mut independent,
        )
        .unwrap();
        assert_eq!(*out, independent);
        assert_eq!(lockstep_proto::hash::Digest::of(label::OPAQUE, out.as_ref()).to_string(), LOCKED);
    }

    const LOCKED: &str = "d33bc654417ffea43f7e1964459c42a9f7dc5f261bc0fb62a3f20d2c93926be1";

    #[test]
    fn the_suite_stretches_to_its_own_length_only() {
        use opaque_ke::generic_array::typenum::{U32, U64};
        use opaque_ke::ksf::Ksf as _;
        let input = GenericArray::<u8, U64>::default();
        assert_eq!(Stretch.hash(input).unwrap().as_slice(), stretch(&[0; 64]).unwrap().as_slice());
        assert!(Stretch.hash(GenericArray::<u8, U32>::default()).is_err());
    }

    #[test]
    fn the_account_is_the_client_that_signs_in() {
        let account = AccountId::from_bytes([5; 16]);
        let identifiers = identifiers(&account);
        assert_eq!((identifiers.client, identifiers.server), (Some(&[5; 16][..]), None));
    }

    #[test]
    fn the_older_traits_give_what_the_generator_gives() {
        use opaque_ke::rand::RngCore as _;
        use rand::Rng as _;
        let generator = || rand::rngs::ChaCha20Rng::from_seed([1; 32]);
        let (mut ours, mut plain) = (generator(), generator());
        let mut ours = Rng06(&mut ours);
        assert_eq!(ours.next_u32(), plain.next_u32());
        assert_eq!(ours.next_u64(), plain.next_u64());
        let (mut given, mut expected) = ([0; 40], [0; 40]);
        ours.fill_bytes(&mut given);
        plain.fill_bytes(&mut expected);
        assert_eq!(given, expected);
        ours.try_fill_bytes(&mut given).unwrap();
        plain.fill_bytes(&mut expected);
        assert_eq!(given, expected);
    }

    /// Ristretto's base point: an element that every field of an answer takes.
    const POINT: [u8; 32] = [
        0xe2, 0xf2, 0xae, 0x0a, 0x6a, 0xbc, 0x4e, 0x71, 0xa8, 0x84, 0xa9, 0x61, 0xc5, 0x00, 0x51, 0x5f, 0x58,
        0xe3, 0x0b, 0x6a, 0xa5, 0x82, 0xdd, 0x8d, 0xb6, 0xa6, 0x59, 0x45, 0xe0, 0x8d, 0x2d, 0x76,
    ];

    #[test]
    fn answers_of_the_right_length_are_judged_by_what_they_say() {
        let mut rng = rand::rngs::ChaCha20Rng::from_seed([1; 32]);
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        let answer = [POINT, POINT].concat();
        let mut register = |answer: &[u8]| {
            let (registration, _) = Registration::start(&passphrase, &mut rng).unwrap();
            registration.finish(&passphrase, AccountId::ZERO, answer, &mut rng)
        };
        assert_eq!(register(&answer).unwrap().len(), 192);
        for wrong in [&answer[..63], &[&answer[..], &[0]].concat(), &[0xff; 64]] {
            assert!(matches!(register(wrong), Err(CryptoError::Peer { .. })));
        }
        let ke2 = [&POINT[..], &[1; 32], &[2; 128], &[3; 32], &POINT, &[4; 64]].concat();
        let (login, _) = Login::start(&passphrase, &mut rng).unwrap();
        let result = login.finish(&passphrase, AccountId::ZERO, "http://localhost", &ke2, &mut rng);
        assert!(matches!(result, Err(CryptoError::Open(_))), "a server that does not know the passphrase");
    }

    #[test]
    fn malformed_answers_are_the_peers_fault() {
        let mut rng = rand::rngs::ChaCha20Rng::from_seed([1; 32]);
        let passphrase = Passphrase::new("correct horse battery").unwrap();
        let (login, ke1) = Login::start(&passphrase, &mut rng).unwrap();
        assert_eq!(ke1.len(), 96);
        let result = login.finish(&passphrase, AccountId::ZERO, "http://localhost", &[0; 321], &mut rng);
        assert!(matches!(result, Err(CryptoError::Peer { .. })));
    }
}
