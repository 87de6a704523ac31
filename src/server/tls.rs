//! TLS of a listener: the certificate that new connections are shown, and how another one takes its place.

use std::io;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, InconsistentKeys, ServerConfig};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Why a certificate cannot be shown to clients. The words follow a file's name or a certificate's.
#[derive(Debug, Error)]
pub enum TlsError {
    #[error("the chain is not readable PEM")]
    Chain,
    #[error("the chain holds no certificate")]
    NoCertificate,
    #[error("the private key is no unencrypted key in PEM")]
    Key,
    #[error("certificate and private key do not belong together")]
    Mismatch,
    #[error("certificate or private key cannot be used for TLS: {0}")]
    Unusable(#[from] Error),
}

/// A certificate chain with its private key.
#[derive(Debug)]
pub struct Identity(CertifiedKey);

impl Identity {
    /// Reads a PEM chain, leaf first, and a PEM key (PKCS #8, PKCS #1 or SEC 1), and holds that they belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsError::Chain)?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
        match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(identity) => Ok(Self(identity)),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsError::Mismatch),
            Err(error) => Err(error.into()),
        }
    }
}

/// The TLS side of a listener. Clones show the same certificate.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
}

impl Tls {
    /// TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1 to choose from.
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown(RwLock::new(Arc::new(identity.0))));
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(&shown) as _;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&TLS13, &TLS12])?
                .with_no_client_auth()
                .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), shown })
    }

    /// Shows another certificate from the next handshake on. Connections that are there stay.
    pub fn show(&self, identity: Identity) {
        *self.shown.0.write() = Arc::new(identity.0);
    }

    pub(super) async fn accept<I>(&self, stream: I) -> io::Result<TlsStream<I>>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(stream).await
    }
}

/// Every client is shown the same certificate, whatever name it asks for: there is one service here.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}
