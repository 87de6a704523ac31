//! TLS of a listener: the certificate that new connections are shown, the CAs whose client certificates are taken, and
//! how others take their places.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::peer::PeerCertificate;

/// Why a certificate cannot be used. The words follow a file's name or a certificate's.
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
    #[error("a certificate cannot be that of a CA: {0}")]
    Authority(#[source] Error),
}

/// The CAs whose client certificates are taken.
#[derive(Debug, Clone)]
pub struct ClientCas(Arc<RootCertStore>);

impl ClientCas {
    /// Reads the certificates of CAs, PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in read_chain(pem)? {
            roots.add(certificate).map_err(TlsError::Authority)?;
        }
        Ok(Self(Arc::new(roots)))
    }
}

/// A certificate chain with its private key.
#[derive(Debug)]
pub struct Identity(CertifiedKey);

impl Identity {
    /// Reads a PEM chain, leaf first, and a PEM key (PKCS #8, PKCS #1 or SEC 1), and holds that they belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        let chain = read_chain(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::Key)?;
        match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
            Ok(identity) => Ok(Self(identity)),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsError::Mismatch),
            Err(error) => Err(error.into()),
        }
    }
}

/// At least one certificate.
fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|_| TlsError::Chain)?;
    if chain.is_empty() { Err(TlsError::NoCertificate) } else { Ok(chain) }
}

/// The TLS side of a listener. Clones show and trust the same certificates.
#[derive(Clone)]
pub struct Tls {
    accepting: Arc<RwLock<Accepting>>,
    shown: Arc<Shown>,
}

/// How the next connection is accepted.
#[derive(Clone)]
struct Accepting {
    acceptor: TlsAcceptor,
    /// Cancelled when connections are accepted in another way.
    replaced: CancellationToken,
}

impl Tls {
    /// TLS 1.2 and 1.3, with HTTP/2 and HTTP/1.1 to choose from. Clients are not asked for certificates.
    pub fn new(identity: Identity) -> Result<Self, TlsError> {
        let shown = Arc::new(Shown(RwLock::new(Arc::new(identity.0))));
        let accepting = Arc::new(RwLock::new(Accepting::new(&shown, None)?));
        Ok(Self { accepting, shown })
    }

    /// Shows another certificate from the next handshake on. Connections that are there stay.
    pub fn show(&self, identity: Identity) {
        *self.shown.0.write() = Arc::new(identity.0);
    }

    /// Asks clients for certificates of these CAs from the next handshake on; one that has none is let in without.
    /// Connections with a certificate that other CAs have verified are closed.
    pub fn trust(&self, cas: &ClientCas) -> Result<(), TlsError> {
        // No session is resumed across the change: a resumption verifies no certificate.
        let next = Accepting::new(&self.shown, Some(cas))?;
        let former = std::mem::replace(&mut *self.accepting.write(), next);
        former.replaced.cancel();
        Ok(())
    }

    pub(super) async fn accept<I>(
        &self,
        stream: I,
    ) -> io::Result<(TlsStream<I>, Option<PeerCertificate>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let Accepting { acceptor, replaced } = self.accepting.read().clone();
        let stream = match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => stream,
            Err((error, stream)) => {
                if is_about_a_certificate(&error) {
                    linger(stream).await;
                }
                return Err(error);
            }
        };
        let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = leaf.map(|leaf| PeerCertificate::new(leaf, replaced));
        Ok((stream, certificate))
    }
}

impl Accepting {
    fn new(shown: &Arc<Shown>, cas: Option<&ClientCas>) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let config = match cas {
            None => config.with_no_client_auth(),
            Some(ClientCas(roots)) => {
                let roots = Arc::clone(roots);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| TlsError::Authority(Error::General(error.to_string())))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let resolver: Arc<dyn ResolvesServerCert> = Arc::clone(shown) as _;
        let mut config = config.with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let replaced = CancellationToken::new();
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), replaced })
    }
}

/// A client certificate that the handshake has not taken: there was no request.
#[derive(Debug)]
pub struct RefusedCertificate {
    /// The client, or the proxy before it.
    pub from: SocketAddr,
    /// What is wrong with the certificate.
    pub error: io::Error,
}

/// Reads what a refused client has sent already: closing before that would take the alert away from it, which says why.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    const MOST_BYTES: u64 = 64 * 1024;
    if stream.shutdown().await.is_ok() {
        tokio::io::copy(&mut stream.take(MOST_BYTES), &mut tokio::io::sink()).await.ok();
    }
}

/// Whether a handshake has failed because of the client's certificate.
pub(super) fn is_about_a_certificate(error: &io::Error) -> bool {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    matches!(tls, Some(Error::InvalidCertificate(_)))
}

/// Every client is shown the same certificate, whatever name it asks for: there is one service here.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}
