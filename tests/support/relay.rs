//! A TCP port that leads to a server's Unix socket, and to another server's when it is told so: what a proxy does that
//! follows the primary of a PostgreSQL cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Relay {
    pub address: SocketAddr,
    server: watch::Sender<Option<PathBuf>>,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub async fn before(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (server, watched) = watch::channel(Some(server));
        let accepting = tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut watched = watched.clone();
                let target = watched.borrow_and_update().clone();
                tokio::spawn(async move {
                    let Some(target) = target else { return };
                    let Ok(mut server) = UnixStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = watched.changed() => {}
                    }
                });
            }
        });
        Self { address, server, accepting }
    }

    /// Ends every connection, and ends each new one at once.
    pub fn cut(&self) {
        self.server.send_replace(None);
    }

    /// Ends every connection; new ones reach this server.
    pub fn lead_to(&self, server: PathBuf) {
        self.server.send_replace(Some(server));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
