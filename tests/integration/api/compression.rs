//! Compressed answers: which are, how small they get, and what their tags say.

use std::io::Read as _;

use axum::http::Method;
use serde_json::{Value, json};

use super::imports::{pair, tls_secret};
use super::manifests::{CLUSTER_ISSUER, ISSUER, apply, found, send, stream, www};
use crate::support::asking::Reply;
use crate::support::world::{World, certificate, id, on_every_database};

on_every_database! {
    async fn a_long_answer_is_compressed_as_the_client_accepts_it(world: World) {
        world.create_issuer().await;
        for number in 0..20 {
            world.create_certificate(&format!("web-{number}")).await;
        }
        for path in ["/certificates?limit=500", "/openapi.json", "/docs/swagger-ui.css", "/docs/"] {
            let plain = world.get(path).await;
            assert_eq!((plain.status, plain.header("content-encoding")), (200, ""), "{path}");
            assert!(plain.body.len() > 500, "{path}");
            for (accept, coding) in [
                ("gzip", "gzip"),
                ("br", "br"),
                ("gzip, br", "br"),
                ("gzip;q=1, br;q=0.5", "gzip"),
                ("br;q=0, gzip", "gzip"),
            ] {
                let answer = accepting(&world, path, accept).await;
                if answer.header("content-encoding").is_empty() {
                    assert!(plain.body.len() < 4_096, "{path} is long");
                    continue;
                }
                assert_eq!(answer.header("content-encoding"), coding, "{path} {accept}");
                assert_eq!(decoded(&answer), plain.body, "{path} {accept}");
                assert!(answer.body.len() * 3 < plain.body.len(), "{path}: {} of {}", answer.body.len(), plain.body.len());
                assert!(varies_by(&answer, "accept-encoding"), "{path}: {:?}", answer.headers);
            }
            for accept in ["identity", "gzip;q=0", "zstd", "deflate", ""] {
                let answer = accepting(&world, path, accept).await;
                assert_eq!((answer.header("content-encoding"), &answer.body), ("", &plain.body), "{path} {accept}");
            }
            // Caches have to know it of the plain one as well.
            assert!(plain.body.len() < 4_096 || varies_by(&plain, "accept-encoding"), "{path}");
        }
        let short = accepting(&world, "/healthz", "gzip").await;
        assert_eq!(short.header("content-encoding"), "");
    }

    async fn each_coding_has_a_tag_of_its_own_that_names_the_same_state(world: World) {
        world.create_issuer().await;
        let mut body = certificate("web");
        body["dnsNames"] = (0..100).map(|number| format!("name-{number}.a-long-label-for-a-long-answer.example.com")).collect();
        let path = format!("/certificates/{}", id(&world.post("/certificates", body).await.accepted()));
        let plain = world.get(&path).await.header("etag").to_owned();
        let mut tags = vec![plain];
        for coding in ["gzip", "br"] {
            let answer = accepting(&world, &path, coding).await;
            assert_eq!(answer.header("content-encoding"), coding);
            let tag = answer.header("etag").to_owned();
            assert!(!tag.starts_with("W/") && !tags.contains(&tag), "{tag} of {tags:?}");
            tags.push(tag);
        }

        for tag in &tags {
            let known = world.ask(Method::GET, &path).header("if-none-match", &format!("\"other\", {tag}"));
            let known = known.header("accept-encoding", "br, gzip").send().await;
            assert_eq!((known.status, known.header("etag")), (304, &**tag));
            assert!(varies_by(&known, "accept-encoding") && known.body.is_empty());
        }
        for (number, coding) in ["", "gzip", "br"].into_iter().enumerate() {
            let present = accepting(&world, &path, coding).await.header("etag").to_owned();
            let change = async || {
                let ask = world.ask(Method::PATCH, &path).header("if-match", &present);
                ask.json(&json!({"labels": {"team": number.to_string()}})).send().await
            };
            assert_eq!(change().await.status, 200, "{present}");
            change().await.is_problem(412, "precondition_failed");
        }
    }

    async fn nothing_that_holds_a_secret_is_compressed(world: World) {
        apply(&world, &[ISSUER, CLUSTER_ISSUER].join("---\n")).await.done();
        let pair = pair(&["www.example.com"], 60);
        send(&world, "/import", &stream(&[tls_secret("www-tls", &pair), www("www-tls")])).await.done();
        let made = found(&world, "/certificates?name=www").await;
        for (file, holds_a_key) in [
            ("privkey.pem", true), ("combined.pem", true), ("keystore.p12", true), ("keystore.jks", true),
            ("fullchain.pem", false), ("cert.der", false),
        ] {
            let path = format!("/certificates/{}/{file}", id(&made));
            let ask = world.ask(Method::GET, &path).header("x-keystore-password", "correct horse");
            let answer = ask.header("accept-encoding", "gzip, br").send().await;
            assert_eq!((answer.status, answer.header("content-encoding")), (200, ""), "{file}");
            assert_eq!(answer.header("cache-control") == "no-store", holds_a_key, "{file}");
        }

        let namespaces: Vec<_> = (0..80).map(|number| format!("a-team-with-a-name-that-is-rather-long-{number:020}")).collect();
        let key = json!({"name": "long", "role": "reader", "namespaces": namespaces});
        let shown = posted(&world, "/api-keys", &key).await;
        let rotated = format!("/api-keys/{}/rotate", id(&shown.accepted()));
        let hook = json!({"url": "https://1.1.1.1/", "namespaces": namespaces});
        let hooked = posted(&world, "/webhooks", &hook).await;
        let path = format!("/webhooks/{}/rotate", id(&hooked.accepted()));
        for answer in [shown, posted(&world, &rotated, &json!({})).await, hooked, posted(&world, &path, &json!({})).await] {
            assert!((200..300).contains(&answer.status), "{}", answer.text);
            assert!(answer.text.contains("cw_") || answer.text.contains("whsec_"), "{}", answer.text);
            assert!(answer.body.len() > 4_096, "it is long enough: {}", answer.text);
            assert_eq!(answer.header("content-encoding"), "", "{}", answer.text);
        }
    }

    async fn a_reader_of_headers_alone_is_told_of_the_plain_answer(world: World) {
        let plain = world.get("/openapi.json").await;
        let head = world.ask(Method::HEAD, "/openapi.json").header("accept-encoding", "gzip").send().await;

        assert_eq!((head.status, head.header("content-encoding")), (200, ""));
        assert_eq!(head.header("etag"), plain.header("etag"));
        assert_eq!(head.header("content-length"), plain.body.len().to_string());
    }
}

async fn accepting(world: &World, path: &str, codings: &str) -> Reply {
    world.ask(Method::GET, path).header("accept-encoding", codings).send().await
}

async fn posted(world: &World, path: &str, body: &Value) -> Reply {
    world.ask(Method::POST, path).header("accept-encoding", "gzip, br").json(body).send().await
}

pub(super) fn varies_by(answer: &Reply, header: &str) -> bool {
    let lines = answer.headers.get_all("vary").iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case(header))
}

fn decoded(answer: &Reply) -> Vec<u8> {
    let mut plain = Vec::new();
    match answer.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(&*answer.body).read_to_end(&mut plain).unwrap(),
        "br" => brotli::Decompressor::new(&*answer.body, 4_096).read_to_end(&mut plain).unwrap(),
        coding => panic!("{coding} is no coding"),
    };
    plain
}
