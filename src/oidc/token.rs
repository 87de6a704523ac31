//! One token: its parts, its signature, and the claims that every token has (RFC 7519, RFC 8725).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::{Duration, OffsetDateTime};

use super::TokenError;
use super::key_set::Algorithm;
use crate::domain::access_rule::Claims;
use crate::domain::text::{Lines, foreign_words, refuse};
use crate::domain::token_issuer::TokenIssuer;

/// How far the issuer's clock may be from ours.
const LEEWAY: Duration = Duration::seconds(60);

/// Bytes of a token: more than a head of a request may have is never seen.
const MOST_BYTES: usize = 16 * 1024;

const LONGEST_SUBJECT: usize = 255;

/// Characters of a token's words in a message.
const LONGEST_QUOTE: usize = 200;

/// A token of which nothing is believed yet.
#[derive(Debug)]
pub(super) struct Unverified<'t> {
    token: &'t str,
    pub(super) issuer: String,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

impl<'t> Unverified<'t> {
    pub(super) fn read(token: &'t str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = token.split('.').collect();
        let [header, payload, _signature] = parts[..] else { return Err(unreadable()) };
        if token.len() > MOST_BYTES {
            return Err(refused(format!("it is larger than {MOST_BYTES} bytes")));
        }
        let header: Header = part(header)?;
        let Issuer { iss: issuer } = part(payload)?;
        if header.crit.is_some() {
            return Err(refused("its header has extensions that are critical (`crit`)"));
        }
        let algorithm = Algorithm::of_token(&header.alg).ok_or_else(|| {
            let (alg, known) = (quoted(&header.alg), Algorithm::words());
            refused(format!("it is signed with `{alg}`, and has to be with one of {known}"))
        })?;
        Ok(Self { token, issuer, algorithm, key_id: header.kid })
    }

    /// Its claims, if it was signed with this key.
    pub(super) fn verify(&self, key: &DecodingKey) -> Result<Claims, TokenError> {
        // Only the signature: the claims are judged by our clock, and with words of ours.
        let mut validation = Validation::new(self.algorithm.of_library());
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        jsonwebtoken::decode::<Claims>(self.token, key, &validation)
            .map(|token| token.claims)
            .map_err(|_| refused("its signature does not match"))
    }
}

/// Judges the claims that every token has; its subject and its end.
pub(super) fn check_claims(
    claims: &Claims,
    settings: &TokenIssuer,
    now: OffsetDateTime,
) -> Result<(String, OffsetDateTime), TokenError> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("iss") != Some(&settings.issuer) {
        return Err(refused("its issuer (`iss`) is another one"));
    }
    let is_for_us = match claims.get("aud") {
        Some(Value::Array(all)) => all.iter().any(|one| one == settings.audience.as_str()),
        Some(one) => one == settings.audience.as_str(),
        None => false,
    };
    if !is_for_us {
        let audience = &settings.audience;
        return Err(refused(format!(
            "it is not meant for this service: `aud` has to be `{audience}`"
        )));
    }
    let end = moment(claims, "exp")?.ok_or_else(|| refused("it has no end (`exp`)"))?;
    if end + LEEWAY <= now {
        return Err(refused("it has expired; get a new one"));
    }
    if moment(claims, "nbf")?.is_some_and(|begin| begin - LEEWAY > now) {
        return Err(refused("it is not valid yet (`nbf`)"));
    }
    let subject = text("sub").filter(|subject| {
        (1..=LONGEST_SUBJECT).contains(&subject.len()) && refuse(subject, Lines::One).is_ok()
    });
    let subject =
        subject.ok_or_else(|| refused("it has no subject (`sub`) of 1 to 255 characters"))?;
    Ok((subject.to_owned(), end + LEEWAY))
}

/// Seconds since the epoch, which may have decimals (RFC 7519, section 2). A far end is an end all the same.
fn moment(claims: &Claims, name: &str) -> Result<Option<OffsetDateTime>, TokenError> {
    const LATEST: f64 = 253_402_300_000.0 - 86_400.0;
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds));
    let seconds = seconds.ok_or_else(|| refused(format!("`{name}` is no time")))?;
    #[expect(clippy::cast_possible_truncation, reason = "it is within the range")]
    let moment = OffsetDateTime::from_unix_timestamp(seconds as i64);
    moment.map(Some).map_err(|_| refused(format!("`{name}` is no time")))
}

/// One of the three parts, of which nothing is believed yet.
pub(super) fn part<T: DeserializeOwned>(encoded: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| unreadable())?;
    serde_json::from_slice(&bytes).map_err(|_| unreadable())
}

/// Words of a token that is not believed, as far as they are told.
pub(super) fn quoted(words: &str) -> String {
    foreign_words(words, LONGEST_QUOTE).unwrap_or_default()
}

fn unreadable() -> TokenError {
    refused("it is not a JWT with an algorithm and an issuer")
}

fn refused(detail: impl Into<String>) -> TokenError {
    TokenError::Refused(detail.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    fn encoded(value: &Value) -> String {
        URL_SAFE_NO_PAD.encode(value.to_string())
    }

    fn settings() -> TokenIssuer {
        TokenIssuer {
            issuer: "https://id.example".into(),
            audience: "certwright".into(),
            cli_client_id: None,
            ca_bundle: None,
            rules: Vec::new(),
        }
    }

    #[test]
    fn only_pinned_algorithms_are_read() {
        let payload = encoded(&json!({"iss": "https://id.example"}));
        let read = |header: Value| {
            Unverified::read(&format!("{}.{payload}.c2ln", encoded(&header)))
                .map(|token| token.algorithm)
                .map_err(|error| error.to_string())
        };

        assert!(read(json!({"alg": "RS256", "kid": "1"})).is_ok());
        for alg in ["none", "None", "HS256", "HS512", "RS1", "", "dir"] {
            let refusal = read(json!({"alg": alg})).unwrap_err();
            assert!(refusal.contains("one of RS256"), "{refusal}");
        }
        assert!(read(json!({"alg": "RS256", "crit": ["b64"]})).unwrap_err().contains("crit"));
        let strange = format!("x\u{1b}[31m\n{}", "y".repeat(9_000));
        let refusal = read(json!({"alg": strange})).unwrap_err();
        assert!(refusal.contains("`x[31m yyy") && refusal.len() < 400, "{refusal}");
        for strange in
            ["", "..", "a.b.c", "e30.e30.", &format!("{}.e30.", encoded(&json!({"alg": "RS256"})))]
        {
            assert!(Unverified::read(strange).unwrap_err().to_string().contains("not a JWT"));
        }
    }

    #[test]
    fn claims_are_judged_exactly_but_for_a_minute_of_leeway() {
        let now = NOW.unix_timestamp();
        let good =
            json!({"iss": "https://id.example", "aud": "certwright", "sub": "a", "exp": now + 300});
        let judge = |claim: &str, value: Value| {
            let mut claims = good.clone();
            claims[claim] = value;
            let Value::Object(mut claims) = claims else { panic!("claims are an object") };
            claims.retain(|_, value| !value.is_null());
            check_claims(&claims, &settings(), NOW).map_err(|error| error.to_string())
        };

        for (claim, value) in [
            ("aud", json!(["other", "certwright"])),
            ("exp", json!(now - 59)),
            ("exp", serde_json::from_str(&format!("{now}.5")).unwrap()),
            ("nbf", json!(now + 60)),
            ("sub", json!("repo:org/web:ref:refs/heads/main")),
        ] {
            assert!(judge(claim, value.clone()).is_ok(), "{claim} {value}");
        }
        for (claim, value, part) in [
            ("iss", json!("https://id.example/"), "`iss`"),
            ("iss", json!(["https://id.example"]), "`iss`"),
            ("aud", json!("certwright2"), "`aud` has to be `certwright`"),
            ("aud", json!(["other"]), "`aud`"),
            ("aud", json!([["certwright"]]), "`aud`"),
            ("aud", json!(null), "`aud`"),
            ("exp", json!(now - 60), "expired"),
            ("exp", json!(null), "no end"),
            ("exp", json!("tomorrow"), "`exp` is no time"),
            ("exp", json!(-1), "`exp` is no time"),
            ("exp", json!(1e300), "`exp` is no time"),
            ("nbf", json!(now + 61), "not valid yet"),
            ("nbf", json!("now"), "`nbf` is no time"),
            ("sub", json!(null), "no subject"),
            ("sub", json!(""), "no subject"),
            ("sub", json!("a\u{1b}[31m"), "no subject"),
            ("sub", json!("a".repeat(256)), "no subject"),
        ] {
            let refusal = judge(claim, value.clone()).unwrap_err();
            assert!(refusal.contains(part), "{claim} {value}: {refusal}");
        }
    }
}
