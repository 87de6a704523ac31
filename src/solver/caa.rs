//! The CAA records that count for a name (RFC 8659, section 3), remembered for an hour.

use std::net::SocketAddr;
use std::sync::Arc;

use moka::sync::Cache;
use time::{Duration, OffsetDateTime};

use super::dns01::propagation::Dns;
use crate::domain::caa::{Record, RelevantSet, Unknown};

/// How long an answer is remembered, and how long a silence.
const FRESH_FOR: Duration = Duration::hours(1);
const SILENT_FOR: Duration = Duration::minutes(1);

/// Bytes that are remembered, about.
const MAX_REMEMBERED: u64 = 8 << 20;

/// How old an answer may be.
#[derive(Debug, Clone, Copy)]
pub enum Age {
    /// Up to an hour, at this moment.
    Lately(OffsetDateTime),
    /// From this moment on: whoever has just corrected a record is not to be told of the one before.
    Since(OffsetDateTime),
}

/// What name servers answered, by resolvers and name.
pub(super) struct CaaRecords(Cache<(Vec<SocketAddr>, String), Arc<Known>>);

/// The answer to one question.
struct Known {
    asked_at: OffsetDateTime,
    answer: Result<Vec<Record>, Unknown>,
}

impl Default for CaaRecords {
    fn default() -> Self {
        let weight = |_: &_, known: &Arc<Known>| known.weight();
        Self(Cache::builder().max_capacity(MAX_REMEMBERED).weigher(weight).build())
    }
}

impl CaaRecords {
    /// Climbs from `name` towards the root, to the first records that there are. A level that cannot be looked up
    /// might have some.
    pub(super) async fn relevant(
        &self,
        dns: &Dns,
        name: &str,
        age: Age,
    ) -> Result<Option<RelevantSet>, Unknown> {
        let mut at = name;
        loop {
            let known = self.at(dns, at, age).await;
            let records = known.answer.as_ref().map_err(Clone::clone)?;
            if !records.is_empty() {
                return Ok(Some(RelevantSet { at: at.to_owned(), records: records.clone() }));
            }
            match at.split_once('.') {
                Some((_, above)) if !above.is_empty() => at = above,
                _ => return Ok(None),
            }
        }
    }

    async fn at(&self, dns: &Dns, name: &str, age: Age) -> Arc<Known> {
        let key = (dns.nameservers().to_vec(), name.to_owned());
        if let Some(known) = self.0.get(&key).filter(|known| known.is_of(age)) {
            return known;
        }
        let answer = dns.caa(name).await;
        let (Age::Lately(asked_at) | Age::Since(asked_at)) = age;
        let known = Arc::new(Known { asked_at, answer });
        self.0.insert(key, Arc::clone(&known));
        known
    }
}

impl Known {
    fn is_of(&self, age: Age) -> bool {
        let fresh_for = if self.answer.is_ok() { FRESH_FOR } else { SILENT_FOR };
        match age {
            // A clock that was put back makes nothing young.
            Age::Lately(now) => (now - self.asked_at).abs() < fresh_for,
            Age::Since(now) => self.asked_at == now,
        }
    }

    fn weight(&self) -> u32 {
        const EACH: usize = 256;
        let texts = match &self.answer {
            Ok(records) => {
                records.iter().map(|one| EACH + one.tag.len() + one.value.len()).sum::<usize>()
            }
            Err(Unknown::Silent(why) | Unknown::Bogus(why)) => why.len(),
        };
        u32::try_from(EACH + texts).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn silent() -> Unknown {
        Unknown::Silent("nobody answers".to_owned())
    }

    #[test]
    fn an_answer_is_remembered_for_an_hour_and_a_silence_for_a_minute() {
        let noon = datetime!(2026-11-27 12:00 UTC);
        for (answer, age, is_good) in [
            (Ok(vec![]), Age::Lately(noon), true),
            (Ok(vec![]), Age::Lately(noon + Duration::minutes(59)), true),
            (Ok(vec![]), Age::Lately(noon + FRESH_FOR), false),
            (Ok(vec![]), Age::Lately(noon - Duration::days(2)), false),
            (Ok(vec![]), Age::Since(noon), true),
            (Ok(vec![]), Age::Since(noon + Duration::SECOND), false),
            (Ok(vec![]), Age::Since(noon - Duration::SECOND), false),
            (Err(silent()), Age::Lately(noon + Duration::seconds(59)), true),
            (Err(silent()), Age::Lately(noon + SILENT_FOR), false),
        ] {
            let known = Known { asked_at: noon, answer };
            assert_eq!(known.is_of(age), is_good, "{:?}, {age:?}", known.answer);
        }
    }
}
