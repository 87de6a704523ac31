//! The outside world, real or doubled, and a whole installation in a test's hands.
//!
//! Nothing is skipped when a program is missing: the test fails and names `scripts/setup`, which
//! installs it.

pub mod asking;
pub mod client_ca;
pub mod cloudflare;
pub mod collector;
pub mod databases;
pub mod driven;
pub mod fault_proxy;
pub mod fixtures;
pub mod former_schema;
pub mod hostile;
#[cfg(feature = "failpoints")]
pub mod installation;
pub mod log;
pub mod nginx;
pub mod openbao;
pub mod openid_provider;
pub mod patience;
pub mod pebble;
pub mod person;
pub mod postgres;
pub mod postgres_pair;
pub mod process;
pub mod prometheus;
pub mod proxies;
pub mod receiver;
pub mod relay;
pub mod site;
#[cfg(feature = "failpoints")]
pub mod small_disk;
pub mod sse;
pub mod stopped_clock;
pub mod world;

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use tokio::net::TcpSocket;

/// A loopback port that the kernel gives to nobody else for a minute: a connection to it was just closed
/// from its side, and so it may be listened on, but is not handed out. Who names a port itself may still take
/// it, so that whoever hands it to another program has to be ready to try again.
pub fn free_port() -> u16 {
    let reserved = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let client = TcpStream::connect(address)?;
        // The side that closes first is the one that the kernel remembers.
        drop(listener.accept()?);
        drop(client);
        Ok::<_, std::io::Error>(address.port())
    };
    reserved().expect("a free loopback port")
}

/// A loopback port where connections are refused for as long as this lives: nobody listens there, and nobody
/// else gets it.
pub struct ClosedPort {
    _bound: TcpSocket,
    address: SocketAddr,
}

impl ClosedPort {
    pub fn new() -> Self {
        let bound = TcpSocket::new_v4().unwrap();
        bound.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = bound.local_addr().unwrap();
        Self { _bound: bound, address }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
