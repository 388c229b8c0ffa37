//! Certificates made on the spot, and a client that trusts exactly one of them.

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

/// A certificate of 127.0.0.1 that signs itself.
pub struct Certificate(CertifiedKey<KeyPair>);

impl Default for Certificate {
    fn default() -> Self {
        Self(generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap())
    }
}

impl Certificate {
    /// Writes certificate and key as PEM.
    pub fn write(&self, cert: &Path, key: &Path) {
        std::fs::write(cert, self.0.cert.pem()).unwrap();
        std::fs::write(key, self.0.signing_key.serialize_pem()).unwrap();
    }

    /// Connects, and shakes hands with whoever shows this certificate, and with nobody else.
    ///
    /// # Errors
    /// No connection, or another certificate.
    pub fn connect(&self, address: SocketAddr) -> io::Result<Encrypted> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder.unwrap().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::from(address.ip());
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(address)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Encrypted(StreamOwned::new(connection, stream)))
    }
}

/// A connection after the handshake.
pub struct Encrypted(StreamOwned<ClientConnection, TcpStream>);

impl Encrypted {
    /// The protocol that both sides chose.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.conn.alpn_protocol()
    }

    /// Asks for a path, as the last request of this connection, and reads the answer to its end.
    ///
    /// # Errors
    /// The connection broke.
    pub fn get(mut self, path: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        self.0.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}
