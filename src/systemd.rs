//! What systemd is told: `Type=notify`, `sd_notify(3)`.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::{env, io};

/// Says that requests are answered, where the service was started by somebody who waits for that.
pub fn ready() {
    let Some(socket) = env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = tell(&socket, b"READY=1") {
        tracing::warn!(
            %error,
            "systemd cannot be told that the service is ready, and will stop it: leave NOTIFY_SOCKET as systemd sets it"
        );
    }
}

fn tell(socket: &OsStr, state: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        // The abstract namespace, whose names begin with a zero byte.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_at_a_socket_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notify");
        let abstract_name = format!("certwright-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (socket, name) in [
            (UnixDatagram::bind(&file).unwrap(), file.display().to_string()),
            (UnixDatagram::bind_addr(&address).unwrap(), format!("@{abstract_name}")),
        ] {
            tell(OsStr::new(&name), b"READY=1").unwrap();

            let mut said = [0; 32];
            let length = socket.recv(&mut said).unwrap();
            assert_eq!(&said[..length], b"READY=1", "{name}");
        }
    }

    #[test]
    fn nobody_there_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("notify");
        assert_eq!(tell(gone.as_os_str(), b"READY=1").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
