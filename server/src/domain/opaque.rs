//! OPAQUE (RFC 9807), server side (PROTOCOL.md section 2.4).

use crate::error::Refusal;
use lockstep_proto::api::problem::Code;
use lockstep_proto::cbor::encode;
use lockstep_proto::id::AccountId;
use lockstep_proto::label;
use opaque_ke::{
    CredentialFinalization, CredentialRequest, Identifiers, RegistrationRequest, RegistrationUpload,
    ServerLogin, ServerLoginParameters, ServerRegistration, ServerSetup,
};

/// The suite; key stretching happens at the client only.
pub struct Suite;

impl opaque_ke::CipherSuite for Suite {
    type OprfCs = opaque_ke::Ristretto255;
    type KeyExchange = opaque_ke::TripleDh<opaque_ke::Ristretto255, sha2_010::Sha512>;
    type Ksf = opaque_ke::ksf::Identity;
}

const REGISTRATION_REQUEST_BYTES: usize = 32;
const RECORD_BYTES: usize = 192;
const KE1_BYTES: usize = 96;
const KE3_BYTES: usize = 64;

/// The server's OPAQUE keys; they live in the database and its backups.
pub struct Opaque(ServerSetup<Suite>);

/// A sign-in that was answered.
pub struct Answered {
    /// KE2, to send.
    pub ke2: Vec<u8>,
    /// State, to keep until KE3 comes.
    pub state: Vec<u8>,
}

impl Opaque {
    /// Fresh keys.
    pub fn generate() -> Vec<u8> {
        ServerSetup::<Suite>::new(&mut SystemRng).serialize().to_vec()
    }

    /// Reads stored keys; none if they are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        ServerSetup::deserialize(bytes).ok().map(Self)
    }

    /// Answers a registration request under a fresh credential identifier.
    ///
    /// # Errors
    /// [`Refusal`] for a malformed request.
    pub fn start_record(&self, request: &[u8], credential: &[u8]) -> Result<Vec<u8>, Refusal> {
        let malformed = || Refusal::new(Code::Malformed, "the OPAQUE request is malformed");
        if request.len() != REGISTRATION_REQUEST_BYTES {
            return Err(malformed());
        }
        let request = RegistrationRequest::<Suite>::deserialize(request).map_err(|_| malformed())?;
        let started =
            ServerRegistration::<Suite>::start(&self.0, request, credential).map_err(|_| malformed())?;
        Ok(started.message.serialize().to_vec())
    }

    /// Checks an uploaded record; what is stored is what was sent.
    ///
    /// # Errors
    /// [`Refusal`] for a malformed record.
    pub fn check_record(record: &[u8]) -> Result<Vec<u8>, Refusal> {
        let malformed = || Refusal::new(Code::Malformed, "the OPAQUE record is malformed");
        if record.len() != RECORD_BYTES {
            return Err(malformed());
        }
        let upload = RegistrationUpload::<Suite>::deserialize(record).map_err(|_| malformed())?;
        Ok(ServerRegistration::<Suite>::finish(upload).serialize().to_vec())
    }

    /// Answers KE1. `record` is none for an unknown name: the answer looks the same.
    ///
    /// # Errors
    /// [`Refusal`] for a malformed KE1.
    pub fn start_login(
        &self,
        ke1: &[u8],
        credential: &[u8],
        record: Option<&[u8]>,
        account: AccountId,
        origin: &str,
    ) -> Result<Answered, Refusal> {
        let malformed = || Refusal::new(Code::Malformed, "the OPAQUE message is malformed");
        if ke1.len() != KE1_BYTES {
            return Err(malformed());
        }
        let request = CredentialRequest::<Suite>::deserialize(ke1).map_err(|_| malformed())?;
        let record = record.and_then(|bytes| ServerRegistration::<Suite>::deserialize(bytes).ok());
        let context = encode(&(label::OPAQUE.as_str(), origin));
        let identifiers = Identifiers { client: Some(account.as_bytes()), server: None };
        let parameters = ServerLoginParameters { context: Some(&context), identifiers };
        let started =
            ServerLogin::<Suite>::start(&mut SystemRng, &self.0, record, request, credential, parameters)
                .map_err(|_| malformed())?;
        Ok(Answered { ke2: started.message.serialize().to_vec(), state: started.state.serialize().to_vec() })
    }

    /// Whether KE3 proves the passphrase.
    pub fn finish_login(state: &[u8], ke3: &[u8]) -> bool {
        if ke3.len() != KE3_BYTES {
            return false;
        }
        let (Ok(state), Ok(ke3)) =
            (ServerLogin::<Suite>::deserialize(state), CredentialFinalization::<Suite>::deserialize(ke3))
        else {
            return false;
        };
        state.finish(ke3, ServerLoginParameters::default()).is_ok()
    }
}

/// The operating system's randomness.
pub struct SystemRng;

/// Fills an array from the operating system.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

fn fill(out: &mut [u8]) {
    use rand::rand_core::{Rng, UnwrapErr};
    // The kernel's generator fails only when there is no kernel to go on with.
    UnwrapErr(rand::rngs::SysRng).fill_bytes(out);
}

impl opaque_ke::rand::RngCore for SystemRng {
    fn next_u32(&mut self) -> u32 {
        u32::from_le_bytes(random_bytes())
    }

    fn next_u64(&mut self) -> u64 {
        u64::from_le_bytes(random_bytes())
    }

    fn fill_bytes(&mut self, out: &mut [u8]) {
        fill(out);
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), opaque_ke::rand::Error> {
        fill(out);
        Ok(())
    }
}

impl opaque_ke::rand::CryptoRng for SystemRng {}
