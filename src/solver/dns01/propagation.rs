//! DNS look-ups: the target of a name, its zone, and the servers that see a TXT record.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{join, join_all};
use futures_util::stream::FuturesUnordered;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::rr::{Name, RecordType};
use moka::future::Cache;
use tokio::time::{Instant, timeout_at};

use super::Readiness;
use super::answers::{self, Records, Sight, absolute, without_dot};
use crate::domain::caa;
use crate::domain::challenge::Observation;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::PropagationMode;
use crate::outbound::{self, Guard, Resolver, in_words, is_global};
use crate::telemetry::metrics::calls as metrics;
use crate::telemetry::trace::{Kind, Span};

/// CAs follow about as many.
const MAX_CNAMES: usize = 10;

/// A zone with more servers than this, or servers with more addresses, is asked in part.
const MAX_SERVERS: usize = 16;
const MAX_ADDRESSES: usize = 4;

/// Servers that it is remembered how to ask.
const MAX_DIRECT: u64 = 1000;

/// How long a name's zone and its servers are remembered: every challenge asks for them at each look.
const SERVERS_FRESH_FOR: Duration = Duration::from_mins(1);

/// A look goes over several servers in turn; the one who asked holds a lease meanwhile.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the others are waited for once an answer decides: who is slow does not hold up the verdict of who
/// is not, and people still see what most of them say.
const GRACE: Duration = Duration::from_secs(1);

/// Looks into the DNS, from the resolvers' and from the authoritative servers' side.
pub struct Dns {
    nameservers: Vec<SocketAddr>,
    resolver: Resolver,
    authority_port: u16,
    guard: Guard,
    zones: Cache<Name, Name>,
    servers: Cache<Name, Arc<Vec<Server>>>,
    /// One for each server that is asked directly, and whether it is asked to ask others.
    direct: moka::sync::Cache<(SocketAddr, bool), Resolver>,
}

/// One name server of a zone, or a resolver.
#[derive(Debug)]
struct Server {
    name: String,
    addresses: Vec<SocketAddr>,
    /// Whether some of its addresses may not be connected to.
    guarded: bool,
}

impl Dns {
    /// Asks `nameservers`, or the system's where none are given; `authority_port` is 53 but in tests.
    /// The servers of a zone are whatever its owner says: they are asked where `guard` permits.
    pub fn new(
        nameservers: &[SocketAddr],
        authority_port: u16,
        guard: Guard,
    ) -> Result<Self, NetError> {
        let nameservers = match nameservers {
            [] => outbound::system_nameservers()?,
            given => given.to_vec(),
        };
        let resolver = outbound::resolver(&nameservers, true)?;
        let zones = Cache::builder().max_capacity(1000).time_to_live(SERVERS_FRESH_FOR).build();
        let servers = Cache::builder().max_capacity(1000).time_to_live(SERVERS_FRESH_FOR).build();
        let direct = moka::sync::Cache::new(MAX_DIRECT);
        Ok(Self { nameservers, resolver, authority_port, guard, zones, servers, direct })
    }

    /// Where the CNAME chain that starts at `name` ends; `name` itself without one. No final dot.
    pub async fn canonical(&self, name: &str) -> Result<String, Failure> {
        let mut at = absolute(name).map_err(|error| Failure::of(code::DNS_INVALID_NAME, error))?;
        let deadline = Instant::now() + LOOK_TIMEOUT;
        for _ in 0..MAX_CNAMES {
            let found = timeout_at(deadline, self.cname(&at)).await;
            match found.unwrap_or(Err(NetError::Timeout)) {
                Ok(Some(next)) => at = next,
                Ok(None) => return answers::kept(&at).ok_or_else(|| not_a_name(name, &at)),
                Err(error) => {
                    return Err(Failure::of(code::DNS_LOOKUP_FAILED, in_words(&error))
                        .titled(format!("The CNAME of {} cannot be looked up", without_dot(&at))));
                }
            }
        }
        Err(Failure::of(
            code::DNS_CNAME_LOOP,
            format!("After {MAX_CNAMES} steps it is at {}.", without_dot(&at)),
        )
        .titled(format!("The CNAME chain of {name} does not end")))
    }

    async fn cname(&self, name: &Name) -> Result<Option<Name>, NetError> {
        let found = self.lookup(&self.resolver, name, RecordType::CNAME).await?;
        Ok(answers::cname(found, name))
    }

    /// The CAA records at `name`, as the resolvers find them; or why they do not.
    pub async fn caa(&self, name: &str) -> Result<Vec<caa::Record>, caa::Unknown> {
        let name = absolute(name).map_err(caa::Unknown::Silent)?;
        match self.lookup(&self.resolver, &name, RecordType::CAA).await {
            Ok(found) => Ok(answers::caa(found)),
            Err(error) => {
                let shown = without_dot(&name);
                let words = in_words(&error);
                if answers::is_servfail(&error) && self.is_bogus(&name).await {
                    return Err(caa::Unknown::Bogus(shown));
                }
                let why = format!("the CAA records of {shown} are not known: {words}");
                Err(caa::Unknown::Silent(why))
            }
        }
    }

    /// Whether DNSSEC is why the resolvers do not answer: they do if they are not to validate, and still do not if they
    /// are. One that stumbles once is not taken for that.
    async fn is_bogus(&self, name: &Name) -> bool {
        let kind = RecordType::CAA;
        let unvalidated = outbound::answers_unvalidated(&self.nameservers, name.clone(), kind);
        if !unvalidated.await.unwrap_or(false) {
            return false;
        }
        let again = self.lookup(&self.resolver, name, kind).await;
        again.is_err_and(|error| answers::is_servfail(&error))
    }

    /// The resolvers that are asked.
    pub fn nameservers(&self) -> &[SocketAddr] {
        &self.nameservers
    }

    /// Whether everybody who counts in this mode sees `value` among the TXT records at `name`.
    ///
    /// A server that does not answer does not see it: it might be the one that the CA asks.
    pub async fn look_for_txt(&self, name: &str, value: &str, mode: PropagationMode) -> Readiness {
        let look = async {
            match mode {
                PropagationMode::None => Ok(Vec::new()),
                PropagationMode::Authoritative => self.ask_authorities(name, value).await,
                PropagationMode::Recursive => self.ask_resolvers(name, value).await,
            }
        };
        match timeout_at(Instant::now() + LOOK_TIMEOUT, look).await {
            Ok(Ok(observed)) if observed.iter().all(|one| one.seen) => Readiness::Ready,
            Ok(Ok(observed)) => Readiness::NotYet { observed },
            Ok(Err(why)) => Readiness::unknown(why),
            Err(_) => {
                let seconds = LOOK_TIMEOUT.as_secs();
                let why = format!("the DNS of {name} did not answer within {seconds} seconds");
                Readiness::unknown(why)
            }
        }
    }

    async fn ask_authorities(&self, name: &str, value: &str) -> Result<Vec<Observation>, String> {
        let name = absolute(name)?;
        let zone = self.zones.try_get_with_by_ref(&name, self.zone(&name));
        let zone = zone.await.map_err(|error| (*error).clone())?;
        let servers = self.servers_of(&zone).await?;
        Ok(self.ask_all(&servers, false, &name, value).await)
    }

    async fn ask_resolvers(&self, name: &str, value: &str) -> Result<Vec<Observation>, String> {
        let name = absolute(name)?;
        let resolvers: Vec<Server> = self
            .nameservers
            .iter()
            .map(|address| Server {
                name: "resolver".to_owned(),
                addresses: vec![*address],
                guarded: false,
            })
            .collect();
        Ok(self.ask_all(&resolvers, true, &name, value).await)
    }

    async fn ask_all(
        &self,
        servers: &[Server],
        recursive: bool,
        name: &Name,
        value: &str,
    ) -> Vec<Observation> {
        let looks = servers.iter().map(|server| self.ask(server, recursive, name, value));
        // One that does not see the value is enough for "not yet"; for the opposite all have to.
        let is_missing = |seen: &Vec<Observation>| seen.iter().any(|one| !one.seen);
        let answers = side_by_side(looks, is_missing).await;
        let late = |server: &Server| {
            vec![Observation::missing(server.name.clone(), "has not answered yet")]
        };
        let answers = servers.iter().zip(answers);
        answers.flat_map(|(server, seen)| seen.unwrap_or_else(|| late(server))).collect()
    }

    /// The answers of one server, at each of its addresses.
    ///
    /// A server may have addresses that cannot be reached from here (IPv6 on a host without it):
    /// it is silent only when all are.
    async fn ask(
        &self,
        server: &Server,
        recursive: bool,
        name: &Name,
        value: &str,
    ) -> Vec<Observation> {
        let looks =
            server.addresses.iter().map(|address| self.txt_at(*address, recursive, name, value));
        let answers = side_by_side(looks, |sight| !matches!(sight, Sight::Silent(_))).await;
        let sights: Vec<_> = server.addresses.iter().copied().zip(answers).collect();
        if sights.is_empty() {
            let why = if server.guarded {
                "leads to an address that is not public, where this service may not connect (the setting `outbound.allow` permits it)"
            } else {
                "has no address"
            };
            return vec![Observation::missing(server.name.clone(), why)];
        }
        let is_answer = |sight: &Option<Sight>| !matches!(sight, None | Some(Sight::Silent(_)));
        let answered = sights.iter().any(|(_, sight)| is_answer(sight));
        let place = without_dot(name);
        let seen = |(address, sight): (SocketAddr, Option<Sight>)| {
            // An address inside is nothing for whoever asks for a certificate.
            let who = if is_global(address.ip()) {
                format!("{} {}", server.name, address.ip())
            } else {
                server.name.clone()
            };
            match sight? {
                Sight::Seen => {
                    Some(Observation::seen(who, format!("has the TXT record at {place}")))
                }
                Sight::Absent => {
                    Some(Observation::missing(who, format!("has no TXT record at {place}")))
                }
                Sight::Others(count) => Some(Observation::missing(
                    who,
                    format!("has other values ({count}) at {place}"),
                )),
                Sight::Silent(_) if answered => None,
                Sight::Silent(reason) => {
                    Some(Observation::missing(who, format!("cannot be asked: {reason}")))
                }
            }
        };
        sights.into_iter().filter_map(seen).collect()
    }

    async fn txt_at(&self, server: SocketAddr, recursive: bool, name: &Name, value: &str) -> Sight {
        let known = self
            .direct
            .try_get_with((server, recursive), || outbound::resolver(&[server], recursive));
        let resolver = match known {
            Ok(resolver) => resolver,
            Err(error) => return Sight::Silent(in_words(&error)),
        };
        match self.lookup(&resolver, name, RecordType::TXT).await {
            Ok(found) => answers::sight(&found, value),
            Err(error) => Sight::Silent(in_words(&error)),
        }
    }

    /// The zone that `name` is in.
    async fn zone(&self, name: &Name) -> Result<Name, String> {
        let mut at = name.clone();
        while !at.is_root() {
            let answer = self.resolver.lookup(at.clone(), RecordType::SOA).await;
            let zone = answers::zone(answer, name).map_err(|error| {
                format!("the zone of {name} is not known: {}", in_words(&error))
            })?;
            if let Some(zone) = zone {
                return Ok(zone);
            }
            at = at.base_name();
        }
        Err(format!("nobody says which zone {name} is in"))
    }

    async fn servers_of(&self, zone: &Name) -> Result<Arc<Vec<Server>>, String> {
        self.servers
            .try_get_with(zone.clone(), async { self.look_up_servers(zone).await.map(Arc::new) })
            .await
            .map_err(|error| (*error).clone())
    }

    async fn look_up_servers(&self, zone: &Name) -> Result<Vec<Server>, String> {
        let found = self.lookup(&self.resolver, zone, RecordType::NS).await.map_err(|error| {
            format!("the servers of {zone} are not known: {}", in_words(&error))
        })?;
        let names = answers::servers(found);
        let servers = join_all(names.take(MAX_SERVERS).map(|name| self.server(name))).await;
        if servers.is_empty() {
            return Err(format!("{zone} has no name servers"));
        }
        Ok(servers)
    }

    async fn server(&self, name: Name) -> Server {
        let (v4, v6) = join(
            self.lookup(&self.resolver, &name, RecordType::A),
            self.lookup(&self.resolver, &name, RecordType::AAAA),
        )
        .await;
        let name = without_dot(&name);
        let found: Vec<IpAddr> = [v4, v6]
            .into_iter()
            .flat_map(Result::unwrap_or_default)
            .filter_map(|(_, data)| data.ip_addr())
            .collect();
        let open: Vec<IpAddr> =
            found.iter().copied().filter(|address| self.guard.permits(&name, *address)).collect();
        let guarded = open.len() < found.len();
        let addresses = open.into_iter().take(MAX_ADDRESSES);
        let addresses = addresses.map(|address| SocketAddr::new(address, self.authority_port));
        Server { name, addresses: addresses.collect(), guarded }
    }

    /// Asks, and counts that.
    async fn lookup(
        &self,
        resolver: &Resolver,
        name: &Name,
        kind: RecordType,
    ) -> Result<Records, NetError> {
        let begun = Instant::now();
        let mut span = Span::here(Kind::Client, "dns");
        let answer = resolver.lookup(name.clone(), kind).await;
        let end = match &answer {
            Ok(_) => "found",
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => "nothing",
            Err(_) => "failed",
        };
        metrics::dns(kind.into(), end, begun.elapsed());
        if let Some(span) = &mut span {
            span.set("dns.question.name", || without_dot(name));
            span.set("dns.question.type", || <&str>::from(kind));
            span.set("certwright.outcome", || end);
        }
        answers::records(answer)
    }
}

fn not_a_name(name: &str, target: &Name) -> Failure {
    let why = format!("It leads to {}. Let it lead to a host name.", without_dot(target));
    Failure::of(code::DNS_INVALID_NAME, why)
        .titled(format!("The CNAME of {name} leads to a name with strange characters"))
}

/// The answers of those who are asked side by side; `None` of one who was late when another's decided.
async fn side_by_side<T>(
    looks: impl Iterator<Item = impl Future<Output = T>>,
    decides: impl Fn(&T) -> bool,
) -> Vec<Option<T>> {
    let numbered = looks.enumerate().map(async |(place, look)| (place, look.await));
    let mut looks: FuturesUnordered<_> = numbered.collect();
    let mut answers: Vec<Option<T>> = (0..looks.len()).map(|_| None).collect();
    let mut deadline = None;
    loop {
        let next = looks.next();
        let answered = match deadline {
            Some(deadline) => timeout_at(deadline, next).await.ok().flatten(),
            None => next.await,
        };
        let Some((place, answer)) = answered else { return answers };
        if decides(&answer) {
            deadline.get_or_insert_with(|| Instant::now() + GRACE);
        }
        answers[place] = Some(answer);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::future::Either;

    use super::*;

    /// Who answers at once, or never.
    fn server(answer: Option<&'static str>) -> impl Future<Output = &'static str> {
        answer.map_or(Either::Right(pending()), |answer| Either::Left(ready(answer)))
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_does_not_hold_up_a_verdict_that_is_certain() {
        let begun = Instant::now();
        let servers = [Some("there"), None, Some("not there")].into_iter().map(server);

        let answers = side_by_side(servers, |answer| *answer == "not there").await;

        assert_eq!(answers, [Some("there"), None, Some("not there")]);
        assert_eq!(Instant::now() - begun, GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_silent_is_waited_for_where_all_have_to_see_it() {
        let servers = [Some("there"), None].into_iter().map(server);
        let verdict = side_by_side(servers, |answer| *answer == "not there");

        let late = timeout_at(Instant::now() + LOOK_TIMEOUT, verdict).await;

        assert!(late.is_err(), "the CA may ask the silent one");
    }
}
