use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, DnType, IsCa, KeyPair,
};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::support::Wire;

/// A certificate authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for this host, address or client.
    pub fn issue(&self, name: &str) -> CertifiedKey<KeyPair> {
        let signing_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        CertifiedKey { cert: params.signed_by(&signing_key, &self.0).unwrap(), signing_key }
    }

    /// For whoever reads it from a file.
    #[cfg(feature = "redis-tls")]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For a client that is to trust it.
    pub fn root(&self) -> reqwest::Certificate {
        reqwest::Certificate::from_der(self.0.der()).unwrap()
    }
}

/// For a client that is to show it.
pub fn identity(certified: &CertifiedKey<KeyPair>) -> reqwest::Identity {
    let pem = certified.cert.pem() + &certified.signing_key.serialize_pem();
    reqwest::Identity::from_pem(pem.as_bytes()).unwrap()
}

/// TLS in front of a server.
pub struct Tls {
    address: SocketAddr,
    handshakes: Arc<Mutex<Vec<Option<Vec<u8>>>>>,
    task: JoinHandle<()>,
}

impl Tls {
    /// In front of a [`Wire`]; lets nobody through without a client certificate. `authority` issued
    /// its own, and must have issued the client's.
    pub async fn before(
        wire: &Wire,
        version: &'static SupportedProtocolVersion,
        authority: &Authority,
    ) -> Self {
        Self::start(wire.host(), demanding(version, authority)).await
    }

    /// In front of the server at this address; lets everybody through. `authority` issued its
    /// certificate.
    pub async fn before_address(address: String, authority: &Authority) -> Self {
        let builder = ServerConfig::builder().with_no_client_auth();
        let (chain, key) = own(authority);
        Self::start(address, builder.with_single_cert(chain, key).unwrap()).await
    }

    async fn start(inside: String, config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let handshakes = Arc::<Mutex<Vec<_>>>::default();
        let log = Arc::clone(&handshakes);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut outside) = acceptor.accept(stream).await else {
                    log.lock().push(None);
                    continue;
                };
                let certificates = outside.get_ref().1.peer_certificates().unwrap_or_default();
                log.lock().push(certificates.first().map(|certificate| certificate.to_vec()));
                let mut inside = TcpStream::connect(&inside).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut outside, &mut inside).await });
            }
        });
        Self { address, handshakes, task }
    }

    /// `https://127.0.0.1:<port>` and this path.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// The client's certificate in each handshake; `None` for one without, or that failed.
    pub fn handshakes(&self) -> Vec<Option<Vec<u8>>> {
        self.handshakes.lock().clone()
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn demanding(version: &'static SupportedProtocolVersion, authority: &Authority) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let (chain, key) = own(authority);
    ServerConfig::builder_with_protocol_versions(&[version])
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap()
}

/// A server's certificate and its key.
fn own(authority: &Authority) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let own = authority.issue("127.0.0.1");
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    (vec![own.cert.der().clone()], key)
}
