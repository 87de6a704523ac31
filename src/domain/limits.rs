//! A CA's rate limits as far as we keep to them ourselves, so that it need not refuse.
//!
//! Limits are generic cell rates, as at Let's Encrypt: so many at once, and then one more each time
//! that its share of the period has passed.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use url::Url;
use utoipa::ToSchema;

use super::duration;

/// Let's Encrypt's directory, whose limits are known.
const LETS_ENCRYPT: &str = "acme-v02.api.letsencrypt.org";

/// Part of the new orders that is held back for renewals.
const FOR_RENEWALS: f64 = 0.2;

/// What an issuer says about its CA's limits: the name of a set, or each limit by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LimitsSpec {
    // Descriptions beside these references would have openapi-generator's TypeScript lose their imports.
    Named(Preset),
    Each(Limits),
}

/// A set of limits that is known by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Those of Let's Encrypt's production CA.
    LetsEncrypt,
    /// None at all.
    None,
}

/// How much a CA may be asked for; what is absent is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// New orders of the account. A fifth is held back for renewals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_orders: Option<Limit>,
    /// Certificates for names below one registered domain. Renewals are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_per_domain: Option<Limit>,
    /// Certificates for exactly the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates_per_exact_set: Option<Limit>,
    /// Failed validations of one name by the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_validations_per_name: Option<Limit>,
    /// Requests that the CA refuses or does not answer, in each process that works for the account;
    /// 1200 in `1m` when absent. Good answers are not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused_requests: Option<Limit>,
}

/// The token bucket for refused requests.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refusals {
    /// Burst.
    pub at_once: u32,
    /// Tokens that are earned in a second.
    pub per_second: f64,
}

/// So many in so long a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limit {
    /// How many at once.
    #[schema(minimum = 1)]
    pub count: u32,
    /// After this long all of them are there again. A duration, such as `3h` or `7d`.
    #[schema(example = "3h")]
    pub per: String,
}

/// Written by hand, since an untagged enum would not name the mistake.
impl<'de> Deserialize<'de> for LimitsSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(NameOrLimits)
    }
}

struct NameOrLimits;

impl<'de> Visitor<'de> for NameOrLimits {
    type Value = LimitsSpec;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the name of a set of limits, or an object with each limit")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<LimitsSpec, E> {
        Preset::deserialize(name.into_deserializer()).map(LimitsSpec::Named)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<LimitsSpec, A::Error> {
        Limits::deserialize(MapAccessDeserializer::new(members)).map(LimitsSpec::Each)
    }
}

impl LimitsSpec {
    /// The limits that hold for a CA, given what its issuer says.
    pub fn of(given: Option<&Self>, server: &str) -> Limits {
        match given {
            Some(Self::Each(limits)) => limits.clone(),
            Some(Self::Named(preset)) => preset.limits(),
            None if host(server).as_deref() == Some(LETS_ENCRYPT) => Preset::LetsEncrypt.limits(),
            None => Limits::default(),
        }
    }
}

impl Preset {
    fn limits(self) -> Limits {
        let limit = |count, per: &str| Some(Limit { count, per: per.to_owned() });
        match self {
            Self::None => Limits::default(),
            // <https://letsencrypt.org/docs/rate-limits/>; of five failed validations an hour, three.
            Self::LetsEncrypt => Limits {
                new_orders: limit(300, "3h"),
                certificates_per_domain: limit(50, "7d"),
                certificates_per_exact_set: limit(5, "7d"),
                failed_validations_per_name: limit(3, "1h"),
                refused_requests: None,
            },
        }
    }
}

impl Limits {
    /// The token bucket for refused requests: no period sees more than is set.
    pub fn refusals(&self) -> Refusals {
        /// A fifth may be spent at once, so that it and what is earned within a period are the whole.
        const AT_ONCE: u32 = 5;
        let (count, per) = self
            .refused_requests
            .as_ref()
            .and_then(|limit| Some((limit.count, limit.rate()?.window)))
            .unwrap_or((1200, Duration::minutes(1)));
        let at_once = (count / AT_ONCE).max(1);
        let earned = f64::from(count.saturating_sub(at_once).max(1));
        Refusals { at_once, per_second: earned / per.as_seconds_f64() }
    }

    /// Each limit on what is asked for that is set, by its name in JSON.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &Limit)> {
        [
            ("newOrders", &self.new_orders),
            ("certificatesPerDomain", &self.certificates_per_domain),
            ("certificatesPerExactSet", &self.certificates_per_exact_set),
            ("failedValidationsPerName", &self.failed_validations_per_name),
        ]
        .into_iter()
        .filter_map(|(name, limit)| limit.as_ref().map(|limit| (name, limit)))
    }
}

/// A limit, ready to be counted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// One is earned in this time.
    pub interval: Duration,
    /// Time by which spending may run ahead.
    pub window: Duration,
}

impl Limit {
    /// Why it cannot be counted with, if so; in words that follow the field's name.
    pub fn problem(&self) -> Option<String> {
        match duration::parse(&self.per) {
            Err(problem) => Some(problem),
            Ok(_) if self.count == 0 => Some("would never let anything through".to_owned()),
            Ok(per) if per < Duration::milliseconds(1) * self.count => {
                Some("is too short to be counted".to_owned())
            }
            Ok(per) if per > Duration::days(366) => Some("is longer than a year".to_owned()),
            Ok(_) => None,
        }
    }

    /// The rate; `None` for what [`Limit::problem`] refuses.
    pub fn rate(&self) -> Option<Rate> {
        let window = duration::parse(&self.per).ok().filter(|_| self.problem().is_none())?;
        Some(Rate { interval: window / self.count, window })
    }

    /// The part that is left at `now`, from 0 to 1; `spent_until` is when all of it is there again.
    pub fn remaining(&self, spent_until: OffsetDateTime, now: OffsetDateTime) -> f64 {
        let used = self.rate().map_or(0, |rate| rate.used(spent_until, now));
        1.0 - f64::from(used.min(self.count)) / f64::from(self.count.max(1))
    }
}

impl Rate {
    /// The part that is not reserved for renewals; at least one.
    #[must_use]
    pub fn without_reserve(self) -> Self {
        let window = (self.window * (1.0 - FOR_RENEWALS)).max(self.interval);
        Self { window, ..self }
    }

    /// How far spending runs ahead at most, also by those for whom nothing is reserved: what is farther was written
    /// by a clock that was ahead.
    pub fn farthest(self) -> Duration {
        self.window * 2
    }

    /// The time of the next spending; `spent_until` is when the past spending is earned back.
    pub fn free_at(self, spent_until: OffsetDateTime) -> OffsetDateTime {
        spent_until + self.interval - self.window
    }

    /// The number that is spent at `now`.
    pub fn used(self, spent_until: OffsetDateTime, now: OffsetDateTime) -> u32 {
        let spent = (spent_until - now).max(Duration::ZERO).whole_milliseconds();
        let each = self.interval.whole_milliseconds().max(1);
        u32::try_from((spent + each - 1) / each).unwrap_or(u32::MAX)
    }
}

/// Precedence of orders where a budget is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// The CA does not count it (ARI: the order names what it replaces, while the CA suggests it).
    Exempt,
    /// It renews what ends at this moment: the nearest end first, and before everything new.
    Renewal(OffsetDateTime),
    /// It is for something new, wanted since this moment.
    New(OffsetDateTime),
}

impl Precedence {
    /// Sort key: the least goes first.
    pub fn rank(self) -> i64 {
        /// Beyond every end of a certificate, in milliseconds.
        const NEW: i64 = 1 << 52;
        let millis =
            |at: OffsetDateTime| i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(0);
        match self {
            Self::Exempt => 0,
            Self::Renewal(end) => millis(end).min(NEW - 1),
            Self::New(since) => NEW.saturating_add(millis(since)),
        }
    }
}

fn host(server: &str) -> Option<String> {
    Url::parse(server).ok()?.host_str().map(str::to_owned)
}

/// Reads a CA's limit of names from its refusal, such as "Order cannot contain more than 25 identifiers".
pub fn most_names(words: &str) -> Option<u32> {
    let words = words.to_ascii_lowercase();
    ["more than ", "maximum of ", "at most ", "up to ", "limit of "].iter().find_map(|before| {
        let (_, rest) = words.split_once(before)?;
        let (number, what) = rest.split_once(' ')?;
        let what = what.trim_start_matches("dns ").trim_start_matches("domain ");
        let is_names =
            ["identifier", "name", "san", "domain"].iter().any(|it| what.starts_with(it));
        number.parse().ok().filter(|_| is_names)
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_limit_is_left_until_it_is_spent() {
        let now = datetime!(2026-11-24 12:00 UTC);
        let limit = Limit { count: 10, per: "10m".into() };

        for (spent, left) in [(0, 1.0), (1, 0.9), (10, 0.0), (20, 0.0)] {
            let found = limit.remaining(now + Duration::minutes(spent), now);
            assert!((found - left).abs() < 1e-9, "{spent}: {found}");
        }
    }

    #[test]
    fn the_number_of_names_is_taken_from_the_words() {
        for (words, most) in [
            ("Error creating new order :: Order cannot contain more than 25 identifiers", Some(25)),
            ("Order cannot contain more than 100 DNS names", Some(100)),
            ("a maximum of 10 names is allowed", Some(10)),
            ("At most 5 domains per certificate", Some(5)),
            ("no more than 50 requests in an hour", None),
            ("more than enough identifiers", None),
            ("more than 99999999999 names", None),
            ("", None),
        ] {
            assert_eq!(most_names(words), most, "{words}");
        }
    }

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn lets_encrypt_is_known_by_its_host_and_others_are_not_limited() {
        let at = |server| LimitsSpec::of(None, server);

        let known = at("https://acme-v02.api.letsencrypt.org/directory");
        assert_eq!(known.new_orders, Some(Limit { count: 300, per: "3h".into() }));
        assert_eq!(known.each().count(), 4);
        for other in
            ["https://acme-staging-v02.api.letsencrypt.org/directory", "https://ca.example"]
        {
            assert_eq!(at(other), Limits::default());
        }
        let off = LimitsSpec::Named(Preset::None);
        assert_eq!(
            LimitsSpec::of(Some(&off), "https://acme-v02.api.letsencrypt.org/x"),
            Limits::default()
        );
    }

    #[test]
    fn limits_are_written_by_name_or_one_by_one() {
        let read = |text: &str| serde_json::from_str::<LimitsSpec>(text);

        assert_eq!(read(r#""letsencrypt""#).unwrap(), LimitsSpec::Named(Preset::LetsEncrypt));
        let each = read(r#"{"newOrders": {"count": 10, "per": "1h"}}"#).unwrap();
        assert_eq!(LimitsSpec::of(Some(&each), "").each().count(), 1);
        assert!(read(r#"{"newOrder": {"count": 10, "per": "1h"}}"#).is_err());
        for (count, per) in [(0, "1h"), (1, "soon"), (1, "0s"), (10, "9ms"), (1, "10000d")] {
            assert!(Limit { count, per: per.into() }.problem().is_some(), "{count} {per}");
        }
    }

    #[test]
    fn a_rate_earns_one_at_a_time() {
        let rate = Limit { count: 300, per: "3h".into() }.rate().unwrap();

        assert_eq!(rate.interval, Duration::seconds(36));
        assert_eq!(rate.used(NOW, NOW), 0);
        assert_eq!(rate.used(NOW + Duration::seconds(37), NOW), 2);
        assert_eq!(rate.free_at(NOW + rate.window), NOW + rate.interval);
        let rest = rate.without_reserve();
        assert_eq!(rest.window, Duration::seconds(36 * 240));
    }

    #[test]
    fn the_nearest_end_goes_first_and_whatever_is_new_last() {
        let ranks = [
            Precedence::Renewal(NOW + Duration::days(1)).rank(),
            Precedence::Renewal(NOW + Duration::days(2)).rank(),
            Precedence::New(NOW - Duration::days(9)).rank(),
            Precedence::New(NOW).rank(),
        ];
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }
}
