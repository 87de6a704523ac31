//! CSRs in all the forms in which people paste them: taken as one, or refused with the reason.

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, SanType};
use serde_json::{Value, json};

use crate::support::world::{World, id, on_every_database};

on_every_database! {
    async fn a_csr_is_judged_by_the_names_that_are_ordered(world: World) {
        world.create_issuer().await;
        for (name, why) in [
            ("dot.example.com.", "`dot.example.com`"),
            ("*.dot.example.com.", "`*.dot.example.com`"),
            ("192.0.2.1", "is an IP address"),
            ("2001:db8::1", "is an IP address"),
            ("com", "public suffix"),
            ("*.co.uk", "public suffix"),
            ("a.*.example.com", "`*`"),
            ("*", "`*`"),
            ("a b.example.com", "is not a DNS name"),
            (" a.example.com", "is not a DNS name"),
            ("a_b.example.com", "is not a DNS name"),
            ("a..example.com", "empty label"),
            ("xn--a.example.com", "is not a DNS name"),
            ("\u{7}bell.example.com", "is not a DNS name"),
        ] {
            let refused = world.post("/certificates", with(&csr(&[dns(name)]))).await;
            let fault = refused.is_problem(422, "validation_failed")["errors"][0].clone();
            assert_eq!(fault["pointer"], "/csr", "{name}");
            assert!(fault["detail"].as_str().unwrap().contains(why), "{name}: {fault}");
        }
        // Not an ASCII text at all, as some tools write international names.
        let raw = csr(&[SanType::OtherName((vec![1, 2], "x".into()))]);
        world.post("/certificates", with(&raw)).await.is_problem(422, "validation_failed");
        let mapped = csr_with_san(&[0x87, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
        let refused = world.post("/certificates", with(&mapped)).await;
        assert!(refused.is_problem(422, "validation_failed").to_string().contains("`192.0.2.1`"));
        let latin = csr_with_san(b"\x82\x09b\xc3\xbccher.de");
        let refused = world.post("/certificates", with(&latin)).await.is_problem(422, "validation_failed");
        assert_eq!(refused["errors"][0]["pointer"], "/csr", "{refused}");
        assert_eq!(world.certificates().await.len(), 0, "nothing of it was stored");
    }

    async fn what_cas_take_for_the_same_name_is_the_same_here(world: World) {
        world.create_issuer().await;
        let given = [dns("B.Example.com"), dns("b.example.com"), dns("*.B.example.com"), dns("xn--bcher-kva.de")];

        let made = world.post("/certificates", with(&csr(&given))).await.accepted();

        assert_eq!(made["dnsNames"], json!(["b.example.com", "*.b.example.com", "xn--bcher-kva.de"]));
    }

    async fn a_private_key_beside_a_csr_is_refused_and_never_shown(world: World) {
        world.create_issuer().await;
        let (good, key) = (csr(&[dns("a.example.com")]), KeyPair::generate().unwrap().serialize_pem());
        let secret = key.lines().nth(1).unwrap();
        let made = world.post("/certificates", with(&good)).await.accepted();
        let path = format!("/certificates/{}", id(&made));
        for text in [[&*key, &*good].concat(), [&*good, &*key].concat()] {
            let body = json!({"csr": text});
            for reply in [
                world.post("/certificates", with(&text)).await,
                world.put(&format!("{path}/csr"), body.clone()).await,
                world.patch(&path, body).await,
            ] {
                let problem = reply.is_problem(422, "validation_failed");
                assert!(problem["errors"][0]["detail"].as_str().unwrap().contains("private key"), "{problem}");
                assert!(!reply.text.contains(secret), "{}", reply.text);
            }
        }
        for place in [&*path, "/certificates", "/events"] {
            assert!(!world.get(place).await.text.contains(secret), "{place}");
        }
        assert_eq!(world.certificates().await.len(), 1);
    }

    async fn a_csr_is_stored_and_shown_in_one_form(world: World) {
        world.create_issuer().await;
        let plain = csr(&[dns("a.example.com")]).replace("\r\n", "\n");
        let windows = plain.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST").replace('\n', "\r\n");

        let made = world.post("/certificates", with(&windows)).await.accepted();

        assert_eq!(made["csr"], json!(plain));
        let path = format!("/certificates/{}", id(&made));
        let same = world.put(&format!("{path}/csr"), json!({"csr": plain})).await.json();
        assert_eq!((&same["csr"], &same["generation"]), (&json!(plain), &json!(1)), "it is the same CSR");
    }

    async fn names_of_private_cas_and_private_suffixes_are_left_to_the_ca(world: World) {
        world.create_issuer().await;
        for name in ["nas", "host.internal", "githubusercontent.com", "duckdns.org", "pages.dev"] {
            let body = json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "dnsNames": [name]});
            assert_eq!(world.post("/certificates", body).await.accepted()["dnsNames"], json!([name]));
        }
        // What is missing is a solver for it, no more.
        let body = json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "dnsNames": ["*.github.io"]});
        let problem = world.post("/certificates", body).await.is_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["code"], "no_solver", "{problem}");
        for name in ["com", "co.uk", "*.com", "*.co.uk"] {
            let body = json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "dnsNames": [name]});
            let problem = world.post("/certificates", body).await.is_problem(422, "validation_failed");
            assert_eq!(problem["errors"][0]["pointer"], "/dnsNames/0", "{problem}");
        }
    }
}

fn with(csr: &str) -> Value {
    json!({"issuerRef": {"name": "le", "kind": "ClusterIssuer"}, "csr": csr})
}

/// A DNS name as it stands, however odd.
fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn csr(names: &[SanType]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names.to_vec();
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

/// A CSR whose alternative names are these bytes.
fn csr_with_san(names: &[u8]) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let length = u8::try_from(names.len()).unwrap();
    let content = [&[0x30, length], names].concat();
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], content)];
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}
