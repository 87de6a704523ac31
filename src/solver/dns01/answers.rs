//! What name servers answer, read; no I/O.

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};

use crate::domain::caa;
use crate::domain::name::comparable;

/// Owner and data of every record of an answer.
pub(super) type Records = Vec<(Name, RData)>;

/// What one server answers about a TXT value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sight {
    Seen,
    Absent,
    Others(usize),
    Silent(String),
}

/// The records of an answer; that there is none is an empty answer.
pub(super) fn records(answer: Result<Lookup, NetError>) -> Result<Records, NetError> {
    match answer {
        Ok(found) => Ok(found
            .answers()
            .iter()
            .map(|record| (record.name.clone(), record.data.clone()))
            .collect()),
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Where the CNAME at `name` leads, if there is one.
pub(super) fn cname(found: Records, name: &Name) -> Option<Name> {
    found.into_iter().find_map(|(owner, data)| match data {
        RData::CNAME(target) if owner == *name => Some(target.0),
        _ => None,
    })
}

/// The CAA records of an answer, also at the end of a CNAME chain.
pub(super) fn caa(found: Records) -> Vec<caa::Record> {
    let read = |(_, data)| match data {
        RData::CAA(record) => Some(caa::Record {
            is_critical: record.issuer_critical,
            tag: record.tag,
            value: String::from_utf8_lossy(&record.value).into_owned(),
        }),
        _ => None,
    };
    found.into_iter().filter_map(read).collect()
}

/// Whether a resolver could not get an answer, or does not believe it.
pub(super) fn is_servfail(error: &NetError) -> bool {
    matches!(error, NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail)))
}

/// The names of a zone's servers.
pub(super) fn servers(found: Records) -> impl Iterator<Item = Name> {
    found.into_iter().filter_map(|(_, data)| match data {
        RData::NS(server) => Some(server.0),
        _ => None,
    })
}

/// Whether `value` is among the TXT records.
pub(super) fn sight(found: &Records, value: &str) -> Sight {
    let texts = found.iter().filter_map(|(_, data)| match data {
        RData::TXT(txt) => Some(txt.txt_data.concat()),
        _ => None,
    });
    let texts: Vec<Vec<u8>> = texts.collect();
    match texts.len() {
        0 => Sight::Absent,
        _ if texts.iter().any(|found| found == value.as_bytes()) => Sight::Seen,
        count => Sight::Others(count),
    }
}

/// The zone that `name` is in, as the answer to a question for its SOA says: the owner of the SOA, which also a
/// negative answer names.
pub(super) fn zone(
    answer: Result<Lookup, NetError>,
    name: &Name,
) -> Result<Option<Name>, NetError> {
    let owner = match answer {
        Ok(found) => found
            .answers()
            .iter()
            .find(|record| record.record_type() == RecordType::SOA)
            .map(|record| record.name.clone()),
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => none.soa.map(|soa| soa.name),
        // Some servers know no SOA queries; the label above may still answer.
        Err(NetError::Dns(DnsError::ResponseCode(_))) => None,
        Err(error) => return Err(error),
    };
    Ok(owner.filter(|owner| !owner.is_root() && owner.zone_of(name)))
}

/// The text that a name is kept as; `None` of one that would not be read back as itself: labels may hold any byte, dots
/// and spaces included.
pub(super) fn kept(name: &Name) -> Option<String> {
    let text = without_dot(name);
    (absolute(&text).as_ref() == Ok(name)).then_some(text)
}

/// A name to be asked for.
pub(super) fn absolute(name: &str) -> Result<Name, String> {
    let mut name =
        Name::from_ascii(comparable(name)).map_err(|error| format!("{name}: {error}"))?;
    name.set_fqdn(true);
    Ok(name)
}

/// A name as it is shown.
pub(super) fn without_dot(name: &Name) -> String {
    comparable(&name.to_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_only_if_it_reads_back_as_itself() {
        let name = |labels: &[&[u8]]| {
            let mut name = Name::from_labels(labels.to_vec()).unwrap();
            name.set_fqdn(true);
            name
        };
        for (labels, text) in [
            (&[&b"a"[..], b"Example", b"net"][..], Some("a.example.net")),
            (
                &[b"_acme-challenge", b"xn--bcher-kva", b"example"],
                Some("_acme-challenge.xn--bcher-kva.example"),
            ),
            (&[b"a", b"net."], Some("a.net\\..")),
            (&[b"a", b"net "], None),
        ] {
            assert_eq!(kept(&name(labels)).as_deref(), text, "{labels:?}");
        }
    }
}
