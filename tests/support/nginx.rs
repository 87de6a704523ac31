//! nginx before the HTTP-01 listener, with the very snippet that deploy/ recommends.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use tokio::net::TcpStream;

use super::free_port;
use super::process::Server;

/// A running nginx that forwards challenge requests; it ends with this value.
pub struct Nginx {
    server: Server,
    address: SocketAddr,
}

impl Nginx {
    /// Starts one before `upstream` and waits until it accepts connections. Whatever is no challenge is a 404 of its own.
    pub async fn start(upstream: SocketAddr) -> Self {
        for _ in 0..5 {
            match Self::try_start(upstream).await {
                Ok(nginx) => return nginx,
                Err(error) if error.contains("Address already in use") => {}
                Err(error) => panic!("nginx {error}"),
            }
        }
        panic!("nginx lost every race for a port");
    }

    /// Starts one that serves TLS with this file, which holds key and chain.
    pub async fn with_certificate(combined: &str) -> Self {
        for _ in 0..5 {
            let tls = |dir: &Path, address: SocketAddr| {
                let file = dir.join("combined.pem");
                fs::write(&file, combined).unwrap();
                let file = file.display();
                format!("listen {address} ssl; ssl_certificate {file}; ssl_certificate_key {file};")
            };
            match Self::serve(tls).await {
                Ok(nginx) => return nginx,
                Err(error) if error.contains("Address already in use") => {}
                Err(error) => panic!("nginx {error}"),
            }
        }
        panic!("nginx lost every race for a port");
    }

    async fn try_start(upstream: SocketAddr) -> Result<Self, String> {
        Self::serve(|_, address| forwarding(address, upstream)).await
    }

    async fn serve(server: impl Fn(&Path, SocketAddr) -> String) -> Result<Self, String> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let dir = TempDir::with_prefix("certwright-nginx-").unwrap();
        let config = dir.path().join("nginx.conf");
        fs::write(&config, configuration(dir.path(), &server(dir.path(), address))).unwrap();

        let mut command = Command::new(binary());
        command.arg("-p").arg(dir.path()).arg("-e").arg("stderr").arg("-c").arg(&config);
        let mut nginx = Self { server: Server::start(dir, "TERM", &command), address };

        nginx.server.until_ready(async || TcpStream::connect(address).await.is_ok()).await?;
        Ok(nginx)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn forwarding(address: SocketAddr, upstream: SocketAddr) -> String {
    let snippet =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nginx.conf"))
            .unwrap();
    assert!(
        snippet.contains("127.0.0.1:8402"),
        "deploy/nginx.conf names the default HTTP-01 listener"
    );
    format!("listen {address}; {}", snippet.replace("127.0.0.1:8402", &upstream.to_string()))
}

fn configuration(dir: &Path, server: &str) -> String {
    around(dir, &format!("server {{ {server} location / {{ return 404; }} }}"))
}

/// A whole configuration with this in its `http` block.
pub(super) fn around(dir: &Path, http: &str) -> String {
    let dir = dir.display();

    format!(
        "daemon off;
         worker_processes 1;
         pid {dir}/pid;
         events {{ worker_connections 256; }}
         http {{
             access_log off;
             client_body_temp_path {dir}/body;
             proxy_temp_path {dir}/proxy;
             fastcgi_temp_path {dir}/fastcgi;
             uwsgi_temp_path {dir}/uwsgi;
             scgi_temp_path {dir}/scgi;
             {http}
         }}"
    )
}

/// `PATH` lacks sbin for many a user.
pub(super) fn binary() -> &'static str {
    let places =
        ["/usr/sbin/nginx", "/usr/local/sbin/nginx", "/usr/bin/nginx", "/usr/local/bin/nginx"];
    places
        .into_iter()
        .find(|path| Path::new(path).exists())
        .expect("nginx is missing: run scripts/setup")
}
