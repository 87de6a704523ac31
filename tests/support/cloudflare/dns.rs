//! The double's name server, for all its zones.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, Metadata, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, CAA, CNAME, NS, SOA, TXT};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use super::state::{Shared, State, StoredRecord, ZoneData};

const TTL: u32 = 1;
const MAX_CNAMES: usize = 12;

pub(super) struct Authority(pub(super) Arc<Shared>);

struct Reply {
    code: ResponseCode,
    answers: Vec<Record>,
    soa: Vec<Record>,
}

#[async_trait::async_trait]
impl RequestHandler for Authority {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut responder: R,
    ) -> ResponseInfo {
        let reply = match request.request_info() {
            Ok(info) => {
                let name = info.query.name().to_ascii();
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let kind = info.query.query_type();
                let mut state = self.0.lock();
                if kind == RecordType::A {
                    state.note_question(&name);
                }
                if kind == RecordType::CAA {
                    *state.caa_asked.entry(name.clone()).or_default() += 1;
                }
                let is_bogus = state.bogus.contains(&name) && !request.metadata.checking_disabled;
                if is_bogus || state.unanswered.contains(&name) {
                    let code = ResponseCode::ServFail;
                    Reply { code, answers: Vec::new(), soa: Vec::new() }
                } else {
                    reply(&state, &name, kind)
                }
            }
            Err(_) => Reply { code: ResponseCode::FormErr, answers: Vec::new(), soa: Vec::new() },
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = reply.code;
        metadata.authoritative = reply.code != ResponseCode::Refused;
        let response = MessageResponseBuilder::from_message_request(request).build(
            metadata,
            &reply.answers,
            &[],
            &reply.soa,
            &[],
        );
        responder.send_response(response).await.unwrap_or_else(|_| {
            ResponseInfo::from(Header { metadata, counts: HeaderCounts::default() })
        })
    }
}

/// The answer to a question, with the CNAME chain as far as it stays in our zones.
fn reply(state: &State, name: &str, kind: RecordType) -> Reply {
    let mut answers = Vec::new();
    let mut at = name.to_owned();
    for _ in 0..MAX_CNAMES {
        let Some(zone) = state.zone_of(&at) else { break };
        let cname = state.cnames.get(&at).filter(|_| kind != RecordType::CNAME);
        let Some(target) = cname else {
            let found = records_at(state, zone, &at, kind);
            let soa = if found.is_empty() { vec![soa(zone)] } else { Vec::new() };
            let code = if found.is_empty() && answers.is_empty() && !exists(state, zone, &at) {
                ResponseCode::NXDomain
            } else {
                ResponseCode::NoError
            };
            answers.extend(found);
            return Reply { code, answers, soa };
        };
        answers.push(record(&at, RData::CNAME(CNAME(fqdn(target)))));
        at.clone_from(target);
    }
    let code = if answers.is_empty() { ResponseCode::Refused } else { ResponseCode::NoError };
    Reply { code, answers, soa: Vec::new() }
}

fn records_at(state: &State, zone: &ZoneData, name: &str, kind: RecordType) -> Vec<Record> {
    let data: Vec<RData> = match kind {
        RecordType::SOA if name == zone.name => return vec![soa(zone)],
        RecordType::NS if name == zone.name => std::iter::once(format!("ns.{}", zone.name))
            .chain(zone.more_servers.clone())
            .map(|server| RData::NS(NS(fqdn(&server))))
            .collect(),
        RecordType::TXT => visible_txt(state, zone, name),
        RecordType::CNAME => {
            state.cnames.get(name).map(|to| RData::CNAME(CNAME(fqdn(to)))).into_iter().collect()
        }
        RecordType::CAA => state.caa.get(name).into_iter().flatten().map(caa).collect(),
        RecordType::A | RecordType::AAAA => addresses(state, name)
            .into_iter()
            .filter_map(|address| match (kind, address) {
                (RecordType::A, IpAddr::V4(v4)) => Some(RData::A(A(v4))),
                (RecordType::AAAA, IpAddr::V6(v6)) => Some(RData::AAAA(AAAA(v6))),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    data.into_iter().map(|data| record(name, data)).collect()
}

fn caa((flags, tag, value): &(u8, String, String)) -> RData {
    let mut record = CAA::new_issue(flags & 128 != 0, None, Vec::new());
    record.tag.clone_from(tag);
    record.value = value.clone().into_bytes();
    RData::CAA(record)
}

fn visible_txt(state: &State, zone: &ZoneData, name: &str) -> Vec<RData> {
    let is_visible =
        |record: &StoredRecord| record.written_at.is_none_or(|at| at.elapsed() >= state.dns_delay);
    zone.records
        .iter()
        .filter(|record| record.kind == "TXT" && record.name == name && is_visible(record))
        .map(|record| RData::TXT(TXT::new(vec![record.content.trim_matches('"').to_owned()])))
        .collect()
}

fn addresses(state: &State, name: &str) -> Vec<IpAddr> {
    match state.addresses.get(name) {
        Some(set) => set.clone(),
        None if name.starts_with('_') => Vec::new(),
        None => vec![Ipv4Addr::LOCALHOST.into()],
    }
}

/// Whether a name has any record: those of services, which start with `_`, have only TXT.
fn exists(state: &State, zone: &ZoneData, name: &str) -> bool {
    !name.starts_with('_')
        || state.cnames.contains_key(name)
        || state.addresses.contains_key(name)
        || !visible_txt(state, zone, name).is_empty()
}

fn soa(zone: &ZoneData) -> Record {
    let (server, mail) = (format!("ns.{}", zone.name), format!("dns.{}", zone.name));
    record(&zone.name, RData::SOA(SOA::new(fqdn(&server), fqdn(&mail), 1, 60, 60, 60, 1)))
}

fn record(name: &str, data: RData) -> Record {
    Record::from_rdata(fqdn(name), TTL, data)
}

fn fqdn(name: &str) -> Name {
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    name
}
