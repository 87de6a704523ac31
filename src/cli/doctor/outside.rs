//! The service as others reach it, the resolvers, and port 80.

use serde_json::Value;
use tokio::net::TcpStream;
use url::Url;

use super::report::Report;
use crate::cli::output::text;
use crate::cli::remote::Remote;
use crate::config::Config;
use crate::domain::issuer::Issuer;
use crate::outbound::{answers, system_nameservers};

/// Whether the service is ready, and what it says about itself.
pub(super) async fn service(remote: &Remote, report: &mut Report) -> anyhow::Result<()> {
    let session = remote.session()?;
    let server = session.client.server().to_owned();
    let readiness = match session.client.get("/readyz", &[]).await {
        Ok(readiness) => readiness,
        Err(error) => return report.warn("service", &error.to_string()),
    };
    report.ok("service", &format!("{server} is ready"))?;
    let checks = readiness["checks"].as_array();
    for check in checks.into_iter().flatten().filter(|check| check["ok"] == Value::Bool(false)) {
        report.warn(&format!("service, {}", text(check, "/name")), &text(check, "/why"))?;
    }
    Ok(())
}

/// Whether the HTTP-01 responder listens.
pub(super) async fn responder(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let address = config.http01_listen;
    match TcpStream::connect(address).await {
        Ok(_) => report.ok("HTTP-01 responder", &format!("listens on {address}")),
        Err(error) => report.warn(
            "HTTP-01 responder",
            &format!("does not listen on {address} ({error}); does the service run? `systemctl status certwright`"),
        ),
    }
}

/// Whether each resolver answers, asked for a CA's host.
pub(super) async fn resolvers(
    config: &Config,
    issuers: &[Issuer],
    report: &mut Report,
) -> anyhow::Result<()> {
    let servers = match &*config.nameservers {
        [] => system_nameservers().unwrap_or_default(),
        configured => configured.to_vec(),
    };
    if servers.is_empty() {
        return report.fail(
            "resolvers",
            "there is none: /etc/resolv.conf names no server, and `dns.nameservers` neither; set it, as in `dns.nameservers = [\"9.9.9.9\"]`",
        );
    }
    let hosts = issuers.iter().filter_map(|issuer| {
        let url = Url::parse(&issuer.acme.server).ok()?;
        url.domain().map(str::to_owned)
    });
    let host = hosts.into_iter().next().unwrap_or_else(|| "letsencrypt.org".to_owned());
    for server in servers {
        let what = format!("resolver {server}");
        match answers(server, &host).await {
            Ok(()) => report.ok(&what, "answers")?,
            Err(cause) => report.warn(&what, &format!("does not answer when asked for {host} ({cause}); `dig @{} {host}` shows more, `dns.nameservers` chooses others", server.ip()))?,
        }
    }
    Ok(())
}

/// What stands on port 80 of this machine. Whether the Internet reaches it cannot be seen from here.
pub(super) async fn port_80(config: &Config, report: &mut Report) -> anyhow::Result<()> {
    let (port, address) = (config.self_check_port, config.http01_listen);
    let forward = format!("has to forward /.well-known/acme-challenge/ to {address}");
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(_) => report.ok("HTTP-01", &format!("something listens on port {port} here; it {forward}"))?,
        Err(_) => report.warn("HTTP-01", &format!("nothing listens on port {port} here; whatever serves your names on port 80 {forward} (deploy/nginx.conf)"))?,
    }
    report.ok("HTTP-01, from outside", "cannot be seen from here: `curl -i http://NAME/.well-known/acme-challenge/x` from another network has to get a 404 of certwright's, over IPv4 and, if NAME has an AAAA record, over IPv6")
}
