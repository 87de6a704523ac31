//! Messages of name servers, as they come from the network.

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::DnsResponse;
use hickory_resolver::proto::rr::RData;

use super::answers::{Sight, absolute, cname, kept, records, servers, sight, without_dot, zone};
use crate::domain::text::{Lines, refuse};
use crate::outbound::in_words;

const VALUE: &str = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0";

pub(crate) fn check(bytes: &[u8]) {
    let Ok(response) = DnsResponse::from_buffer(bytes.to_vec()) else { return };
    let Some(query) = response.queries.first().cloned() else { return };
    let name = query.name().clone();
    let answer = DnsError::from_response(response).map_err(NetError::from);
    let answer =
        answer.map(|response| Lookup::new_with_max_ttl(query, response.answers.iter().cloned()));
    if let Ok(Some(zone)) = zone(answer.clone(), &name) {
        assert!(!zone.is_root() && zone.zone_of(&name), "{zone} is not above {name}");
    }
    let found = match records(answer) {
        Ok(found) => found,
        Err(error) => {
            let words = in_words(&error);
            assert!(refuse(&words, Lines::One).is_ok() && words.len() < 1_000, "{words:?}");
            return;
        }
    };
    let texts = found.iter().filter(|(_, data)| matches!(data, RData::TXT(_))).count();
    match sight(&found, VALUE) {
        Sight::Seen => assert!(texts > 0),
        Sight::Absent => assert_eq!(texts, 0),
        Sight::Others(count) => assert_eq!(count, texts),
        Sight::Silent(why) => panic!("{why}"),
    }
    for server in servers(found.clone()) {
        let shown = without_dot(&server);
        assert!(refuse(&shown, Lines::One).is_ok() && shown.len() < 1_100, "{shown:?}");
    }
    if let Some(target) = cname(found, &name) {
        let is_plain = |label: &[u8]| label.iter().all(u8::is_ascii_alphanumeric);
        match kept(&target) {
            Some(kept) => assert_eq!(absolute(&kept).as_ref(), Ok(&target), "{kept}"),
            None => assert!(!target.iter().all(is_plain), "{target}"),
        }
    }
}
