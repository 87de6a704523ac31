//! Resolvers, and their errors in words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
    ResolverOpts,
};
use hickory_resolver::net::{DnsError, DnsHandle as _, NetError};
use hickory_resolver::proto::op::{DnsRequest, DnsRequestOptions, Message, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

use super::turnstile::Paced;

/// Looks names up, never more often than name servers may be asked.
pub type Resolver = hickory_resolver::Resolver<Paced>;

/// The resolvers that the operating system is configured with.
pub fn system_nameservers() -> Result<Vec<SocketAddr>, NetError> {
    let (config, _) = hickory_resolver::system_conf::read_system_conf()?;
    Ok(config.name_servers.iter().map(|server| SocketAddr::new(server.ip, 53)).collect())
}

/// A resolver that asks `nameservers` anew each time: a remembered "no such name" would hide the
/// record that has just been written.
pub fn resolver(nameservers: &[SocketAddr], recursive: bool) -> Result<Resolver, NetError> {
    let servers = nameservers.iter().copied().map(name_server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = Resolver::builder_with_config(config, Paced::default());
    *builder.options_mut() = options(recursive);
    builder.build()
}

fn options(recursive: bool) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.recursion_desired = recursive;
    options.try_tcp_on_error = true;
    options.timeout = Duration::from_secs(3);
    options.attempts = 1;
    options
}

/// Whether a resolver answers at all when it is asked for the addresses of a name; that there are none is an answer.
pub async fn answers(nameserver: SocketAddr, name: &str) -> Result<(), String> {
    let resolver = resolver(&[nameserver], true).map_err(|error| in_words(&error))?;
    match resolver.lookup_ip(name).await {
        Ok(_) | Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(()),
        Err(error) => Err(in_words(&error)),
    }
}

/// Whether the resolvers answer a question when they are asked not to validate the answer (RFC 4035, section 3.2.2);
/// that there are no records is an answer.
pub async fn answers_unvalidated(
    nameservers: &[SocketAddr],
    name: Name,
    kind: RecordType,
) -> Result<bool, NetError> {
    let context = PoolContext::new(options(true), TlsConfig::new()?);
    let servers = nameservers.iter().copied().map(name_server);
    let pool = NameServerPool::from_config(servers, Arc::new(context), Paced::default());
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = true;
    message.add_query(Query::query(name, kind));
    let request = DnsRequest::new(message, DnsRequestOptions::default());
    let answer = pool.send(request).next().await;
    Ok(match answer {
        Some(Ok(answer)) => {
            matches!(answer.response_code, ResponseCode::NoError | ResponseCode::NXDomain)
        }
        Some(Err(error)) => matches!(error, NetError::Dns(DnsError::NoRecordsFound(_))),
        None => false,
    })
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    NameServerConfig::new(address.ip(), true, connections)
}

/// A resolver's error for a person.
pub fn in_words(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => "no such name".to_owned(),
            _ => "no such record".to_owned(),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the server answered {code}"),
        other => other.to_string(),
    }
}
