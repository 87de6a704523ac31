//! Tokens, and the keys that issuers publish.

use time::OffsetDateTime;
use time::macros::datetime;

use super::TokenError;
use super::key_set::{Algorithm, KeySet};
use super::token::{Unverified, check_claims, part};
use crate::domain::access_rule::{Claims, Namespaces, Rule, grant};
use crate::domain::role::Role;
use crate::domain::scope::{Scope, is_namespace};
use crate::domain::text::{Lines, refuse};
use crate::domain::token_issuer::TokenIssuer;

const NOW: OffsetDateTime = datetime!(2026-12-01 0:00 UTC);

/// Public keys whose private ones are lost.
const KEYS: &str = r#"{"keys":[{"kty":"EC","kid":"ec","crv":"P-256","x":"SxjiCD4Unlp3NfLLRTasAg8fZtEtRQPXYubAD_kJjYI","y":"Pu6axWKXn-DV6JgkvAdJV1svwcBOWNfI12WFooZVYmg"},{"kty":"RSA","kid":"rsa","n":"uVh03ROY7_eLvtwxwhk4U4atsTnyboCMMpaweE3j-Yx7Kw9kflfwfBlvuzvW9YVTNyE62XotCrg-Ac6NcnBgVgJZwP5th5pcKlD8xtLDQdcSVHY8P70cD0Z0v73JJtBVurmygtlPY8sMQ_VCYQ4Vbb6iyMkD8dOTJCxBM6PT1r4RxzZvqHqQ2b2qGrXDMOHZUFokcJhJzvKUurFMEZkJrWzjXlWoWwKMrviWHXXu7oIGbNe0EfMHCfXjx9-4Rvo4sov5bs8encpnvFm3LebUW9kqpXowRpi2dIZYe6SVbLfeylSp2M3_BXwOv4QXkh9UPB9RMHjbooUzsnkUS4erOw","e":"AQAB"}]}"#;

/// What was signed with them: header and claims of the tokens in the corpus.
const SIGNED: [&str; 2] = [
    "eyJhbGciOiJFUzI1NiIsImtpZCI6ImVjIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJjZXJ0d3JpZ2h0Iiwic3ViIjoicmVwbzpvcmcvd2ViIiwiZXhwIjo0MTAyNDQ0ODAwLCJncm91cHMiOlsidGVhbS1hIiwidGVhbS1iIl19",
    "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOlsieCIsImNlcnR3cmlnaHQiXSwic3ViIjoicmVwbzpvcmcvd2ViIiwiZXhwIjo0MTAyNDQ0ODAwLCJncm91cHMiOlsidGVhbS1hIiwidGVhbS1iIl0sIm5iZiI6MTUwMDAwMDAwMH0",
];

pub(crate) fn check(bytes: &[u8]) {
    if let Ok(keys) = KeySet::parse(bytes) {
        assert!(keys.0.len() <= 100);
        for id in [None, Some("ec")] {
            drop(Algorithm::of_token("ES256").map(|algorithm| keys.find(id, algorithm)));
        }
    }
    let text = String::from_utf8_lossy(bytes);
    let token = match Unverified::read(&text) {
        Ok(token) => token,
        Err(refusal) => return is_shown(&refusal),
    };
    is_shown(&TokenError::unknown_issuer(&token.issuer));
    let Ok(keys) = KeySet::parse(KEYS.as_bytes()) else { panic!("the keys cannot be read") };
    // With every key that could be taken for it, whatever key it names.
    for id in [token.key_id.as_deref(), Some("ec"), Some("rsa")] {
        let Some(key) = keys.find(id, token.algorithm) else { continue };
        match token.verify(&key) {
            Ok(claims) => {
                let message = text.rsplit_once('.').map(|(message, _)| message);
                assert!(SIGNED.iter().any(|signed| message == Some(*signed)), "forged: {text}");
                are_judged(&claims);
            }
            Err(refusal) => is_shown(&refusal),
        }
    }
    if let Some(Ok(claims)) = text.split('.').nth(1).map(part::<Claims>) {
        are_judged(&claims);
    }
}

/// Claims that were signed may be anything, too.
fn are_judged(claims: &Claims) {
    let rule = |namespaces| Rule {
        claims: vec![("sub".to_owned(), "repo:org/*".to_owned())],
        role: Role::Requester,
        namespaces,
    };
    let settings = TokenIssuer {
        issuer: "https://id.example".to_owned(),
        audience: "certwright".to_owned(),
        cli_client_id: None,
        ca_bundle: None,
        rules: vec![rule(Namespaces::Claim("groups".to_owned()))],
    };
    match check_claims(claims, &settings, NOW) {
        Ok((subject, end)) => {
            assert!((1..=255).contains(&subject.len()) && refuse(&subject, Lines::One).is_ok());
            assert!(end > NOW, "{end}");
        }
        Err(refusal) => is_shown(&refusal),
    }
    match grant(&settings.rules, claims) {
        Some((Role::Requester, Scope::Namespaces(names))) => {
            assert!(
                (1..=100).contains(&names.len()) && names.iter().all(|name| is_namespace(name))
            );
        }
        None => {}
        other => panic!("{other:?} was never granted"),
    }
}

/// It stands in answers and in the log.
fn is_shown(refusal: &TokenError) {
    let words = refusal.to_string();
    assert!(refuse(&words, Lines::One).is_ok() && words.chars().count() < 500, "{words:?}");
}
