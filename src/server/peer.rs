//! The client at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

/// The address of a client, and its certificate if it has shown one.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) certificate: Option<PeerCertificate>,
}

/// A client certificate that the handshake has verified. Requests have it in their extensions.
#[derive(Debug, Clone)]
pub struct PeerCertificate {
    der: Arc<[u8]>,
    /// Cancelled when the CAs by which it was verified are replaced.
    replaced: CancellationToken,
}

impl PeerCertificate {
    pub fn new(der: &[u8], replaced: CancellationToken) -> Self {
        Self { der: Arc::from(der), replaced }
    }

    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// False once other CAs count, which may not have signed it.
    pub fn is_trusted(&self) -> bool {
        !self.replaced.is_cancelled()
    }
}

impl Peer {
    /// Ends when its certificate has to be verified anew, which only another handshake does.
    pub(super) async fn outdated(&self) {
        match &self.certificate {
            Some(certificate) => certificate.replaced.cancelled().await,
            None => std::future::pending().await,
        }
    }
}
