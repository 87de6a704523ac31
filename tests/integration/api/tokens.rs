//! Tokens of OIDC issuers, made by a real provider: who is let in, who is not, and what it is told.

use std::num::NonZeroU32;

use axum::http::Method;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use certwright::api::CallerLimits;
use certwright::domain::access_rule::{Namespaces, Rule};
use certwright::domain::role::Role;
use certwright::domain::token_issuer::TokenIssuer;
use futures_util::future::join_all;
use serde_json::{Value, json};
use time::Duration;

use crate::policies::allow;
use crate::support::openid_provider::{AUDIENCE, OpenIdProvider};
use crate::support::patience::{until, within};
use crate::support::world::{Reply, World, certificate, id, on_every_database};

on_every_database! {
    async fn a_token_may_do_what_its_rule_grants_and_nothing_else(world: World) {
        let (provider, world) = meet(world).await;
        world.create_issuer().await;
        for algorithm in ["RS256", "ES256", "EdDSA"] {
            let token = provider.token_for(AUDIENCE, algorithm, &json!({"groups": ["x", "team-a"]})).await;
            let who = get(&world, "/whoami", &token).await.json();
            assert_eq!((&who["kind"], &who["name"], &who["role"]), (&json!("token"), &json!("ci"), &json!("requester")));
            assert_eq!((&who["namespaces"], &who["issuer"]), (&json!(["a"]), &json!(provider.issuer())));
            assert!(who["expiresAt"].is_string() && who["permissions"].to_string().contains("readKey"), "{who}");
        }
        allow(&world, "a", "a", &["**.example.com"]).await;
        let token = provider.token(&json!({"groups": ["team-a"]})).await;
        let create = async |namespace: &str| {
            let mut wanted = certificate("web");
            wanted["namespace"] = json!(namespace);
            world.ask(Method::POST, "/certificates").with_key(&token).json(&wanted).send().await
        };

        let made = create("a").await.accepted();
        create("b").await.is_problem(403, "permission_denied");
        assert_eq!(get(&world, &format!("/certificates/{}", id(&made)), &token).await.status, 200);
        get(&world, "/api-keys", &token).await.is_problem(403, "permission_denied");
    }

    async fn a_namespace_that_a_claim_names_is_the_only_one(world: World) {
        let (provider, world) = meet(world).await;
        world.create_issuer().await;
        let mut foreign = certificate("foreign");
        foreign["namespace"] = json!("b");
        let foreign = world.post("/certificates", foreign).await.accepted();
        let token = provider.token(&json!({"kubernetes.io": {"namespace": "a"}})).await;

        assert_eq!(get(&world, "/whoami", &token).await.json()["namespaces"], json!(["a"]));
        let path = format!("/certificates/{}", id(&foreign));
        get(&world, &path, &token).await.is_problem(404, "not_found");
        let listed = get(&world, "/certificates?namespace=b", &token).await.json();
        assert_eq!(listed["items"], json!([]));
        for strange in [json!("*"), json!(""), json!("certwright/../b"), json!(["*"])] {
            let token = provider.token(&json!({"kubernetes.io": {"namespace": strange}})).await;
            get(&world, "/whoami", &token).await.is_problem(403, "permission_denied");
        }
        // The Secrets of ClusterIssuers are out of reach.
        let token = provider.token(&json!({"kubernetes.io": {"namespace": "certwright"}})).await;
        assert_eq!(get(&world, "/whoami", &token).await.json()["namespaces"], json!([]));
    }

    async fn what_is_wrong_with_a_token_is_said(world: World) {
        let (provider, world) = meet(world).await;
        let claims = json!({"groups": ["team-a"]});
        let good = provider.token(&claims).await;
        assert_eq!(get(&world, "/whoami", &good).await.status, 200);

        let other = provider.token_for("urn:other", "RS256", &claims).await;
        let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
        let more = changed(payload, |claims| claims["groups"] = json!(["root"]));
        let strange = changed(payload, |claims| claims["iss"] = json!("https://id.example"));
        let with_algorithm = |word: &str| changed(header, |header| header["alg"] = json!(word));
        for (token, words) in [
            (other, "`aud` has to be `urn:certwright`"),
            (format!("{header}.{more}.{signature}"), "signature does not match"),
            (format!("{header}.{strange}.{signature}"), "`https://id.example` is not configured"),
            (format!("{}.{more}.", with_algorithm("none")), "signed with `none`"),
            (format!("{}.{more}.{signature}", with_algorithm("HS256")), "signed with `HS256`"),
            (format!("{}.{payload}.{signature}", with_algorithm("PS256")), "no key that it could be signed with"),
            (format!("{header}.{payload}."), "signature does not match"),
            ("a.b.c".to_owned(), "not a JWT"),
        ] {
            let problem = get(&world, "/whoami", &token).await.is_problem(401, "unauthenticated");
            assert!(problem["detail"].as_str().unwrap().contains(words), "{words}: {problem}");
        }
        let nobody = provider.token(&json!({"groups": ["team"]})).await;
        let problem = get(&world, "/whoami", &nobody).await.is_problem(403, "permission_denied");
        assert!(problem["detail"].as_str().unwrap().contains("no rule"), "{problem}");

        world.clock.advance(Duration::minutes(11) + Duration::seconds(5));
        let problem = get(&world, "/whoami", &good).await.is_problem(401, "unauthenticated");
        assert!(problem["detail"].as_str().unwrap().contains("expired"), "{problem}");
    }

    async fn whoever_matches_no_rule_has_failed_and_is_counted_like_the_others(world: World) {
        let (provider, world) = meet(world.limited(CallerLimits::new(NonZeroU32::new(2), None))).await;
        let nobody = provider.token(&json!({"groups": ["team"]})).await;
        let ask = async |path: &str, from: &str| world.ask(Method::GET, path).with_key(&nobody).from(from).send().await;
        for _ in 0..2 {
            ask("/whoami", "192.0.2.1").await.is_problem(403, "permission_denied");
        }
        ask("/whoami", "192.0.2.1").await.is_problem(429, "too_many_requests");
        ask("/certificates/by-name/default/www", "192.0.2.1").await.is_problem(429, "too_many_requests");
        ask("/whoami", "192.0.2.2").await.is_problem(403, "permission_denied");

        let refused = world.get("/audit").await.json()["items"].clone();
        let shown = |one: &Value| (one["from"].clone(), one["principal"].clone(), one["outcome"].clone());
        let shown: Vec<_> = refused.as_array().unwrap().iter().map(shown).collect();
        let entry = |from: &str| (json!(from), Value::Null, json!("refused"));
        assert_eq!(shown, [entry("192.0.2.1"), entry("192.0.2.2")], "{refused:#}");
        assert!(refused[0]["reason"].as_str().unwrap().contains("no rule"), "{refused:#}");
    }

    async fn a_rotated_key_is_learned_at_most_once_a_minute_and_a_withdrawn_one_forgotten(world: World) {
        let (provider, world) = meet(world).await;
        let claims = json!({"groups": ["team-a"]});
        let before = provider.token(&claims).await;
        let requests = (0..20).map(|_| get(&world, "/whoami", &before));
        assert!(join_all(requests).await.iter().all(|reply| reply.status == 200));
        assert_eq!(provider.asked().await, json!(1), "one fetch for all");

        provider.rotate().await;
        let after = provider.token(&claims).await;
        let problem = get(&world, "/whoami", &after).await.is_problem(401, "unauthenticated");
        assert!(problem["detail"].as_str().unwrap().contains("once a minute"), "{problem}");
        assert_eq!(get(&world, "/whoami", &before).await.status, 200, "its key is cached");
        assert_eq!(provider.asked().await, json!(1));

        world.clock.advance(Duration::minutes(1));
        assert_eq!(get(&world, "/whoami", &after).await.status, 200);
        get(&world, "/whoami", &before).await.is_problem(401, "unauthenticated");
        assert_eq!(provider.asked().await, json!(2));
    }

    async fn an_issuer_that_is_away_lets_nobody_in_whom_it_has_not_let_in_lately(world: World) {
        let (provider, world) = meet(world).await;
        let claims = json!({"groups": ["team-a"]});
        let token = provider.token(&claims).await;
        provider.go_away().await;

        let refused = get(&world, "/whoami", &token).await;
        let problem = refused.is_problem(503, "issuer_unavailable");
        assert!(problem["detail"].as_str().unwrap().contains(provider.issuer()), "{problem}");
        assert!(!refused.header("retry-after").is_empty());
        get(&world, "/whoami", &token).await.is_problem(503, "issuer_unavailable");
        assert_eq!(provider.asked().await, json!(1), "not once more for each request");
        assert_eq!(world.get("/whoami").await.status, 200, "API keys need no issuer");

        provider.come_back().await;
        world.clock.advance(Duration::seconds(10));
        assert_eq!(get(&world, "/whoami", &token).await.status, 200);
        provider.go_away().await;
        assert_eq!(get(&world, "/whoami", &token).await.status, 200, "its keys are cached");
    }

    async fn a_request_is_repeated_with_the_next_token_of_the_same_subject(world: World) {
        let (provider, world) = meet(world).await;
        world.create_issuer().await;
        allow(&world, "a", "a", &["**.example.com"]).await;
        let create = async |token: &str| {
            let mut wanted = certificate("web");
            wanted["namespace"] = json!("a");
            let ask = world.ask(Method::POST, "/certificates").with_key(token).json(&wanted);
            ask.header("idempotency-key", "one").send().await
        };
        let (one, other) = (provider.token(&json!({"groups": ["team-a"]})).await, provider.token(&json!({"groups": ["team-a", "y"]})).await);

        let first = create(&one).await.accepted();
        let again = create(&other).await;
        assert_eq!(again.header("idempotency-replayed"), "true", "{}", again.text);
        assert_eq!(id(&again.json()), id(&first));
    }

    async fn what_a_token_makes_says_so(world: World) {
        let (provider, world) = meet(world).await;
        let admin = provider.token(&json!({"groups": ["root"]})).await;
        let wanted = json!({"name": "made", "role": "reader"});

        let ask = world.ask(Method::POST, "/api-keys").with_key(&admin).json(&wanted);
        let made = ask.send().await.accepted();
        let who = get(&world, "/whoami", &admin).await.json();
        assert_eq!(made["createdBy"], json!({"kind": "token", "id": who["id"], "name": "ci"}));
    }

    async fn a_held_request_ends_with_its_token(world: World) {
        let (provider, world) = meet(world).await;
        world.create_issuer().await;
        allow(&world, "a", "a", &["**.example.com"]).await;
        let token = provider.token(&json!({"groups": ["team-a"]})).await;
        let mut wanted = certificate("held");
        wanted["namespace"] = json!("a");
        let held = world.ask(Method::POST, "/certificates").with_key(&token);
        let held = held.header("prefer", "wait=300").json(&wanted);

        let (answer, ()) = tokio::join!(within("the end of the token", held.send()), async {
            until("the certificate", async || !world.certificates().await.is_empty()).await;
            world.clock.advance(Duration::minutes(12));
        });
        answer.is_problem(401, "unauthenticated");
    }
}

/// A provider, and a world that takes its tokens.
async fn meet(world: World) -> (OpenIdProvider, World) {
    let provider = OpenIdProvider::start().await;
    let rule = |claim: &str, glob: &str, role, namespaces| Rule {
        claims: vec![(claim.to_owned(), glob.to_owned()), ("sub".to_owned(), "c*".to_owned())],
        role,
        namespaces,
    };
    let in_claim = "/kubernetes.io/namespace";
    let settings = TokenIssuer {
        issuer: provider.issuer().to_owned(),
        audience: AUDIENCE.to_owned(),
        cli_client_id: None,
        ca_bundle: None,
        rules: vec![
            rule("groups", "team-*", Role::Requester, Namespaces::These(vec!["a".into()])),
            rule("groups", "root", Role::Admin, Namespaces::All),
            rule(in_claim, "*", Role::Requester, Namespaces::Claim(in_claim.into())),
        ],
    };
    (provider, world.trusting(vec![settings]))
}

async fn get(world: &World, path: &str, token: &str) -> Reply {
    world.ask(Method::GET, path).with_key(token).send().await
}

/// A part of a token, with another content.
fn changed(part: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut content = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    change(&mut content);
    URL_SAFE_NO_PAD.encode(content.to_string())
}
