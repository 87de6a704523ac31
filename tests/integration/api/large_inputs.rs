//! Requests as large as they may be, in shapes that cost most: each is answered in few words.

use axum::http::Method;
use serde_json::{Value, json};

use crate::support::world::{Reply, World, acme, cluster_issuer, on_every_database};

const MIB: usize = 1024 * 1024;
/// Bytes of a refusal at most.
const SMALL: usize = 64 * 1024;

on_every_database! {
    async fn forty_thousand_unknown_fields_are_counted_and_a_hundred_told(world: World) {
        let unknown = (0..900).map(|n| format!("\n  x{n}: 1")).collect::<Vec<_>>().concat();
        let one = |n| format!("apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {{name: c{n}}}\nspec:\n  secretName: s{unknown}\n");
        let stream = (0..45).map(one).collect::<Vec<_>>().join("---\n");
        assert!(stream.len() < MIB);

        let reply = apply(&world, &stream).await;

        let problem = reply.is_problem(422, "validation_failed");
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 100);
        assert_eq!(errors[0]["code"], "unknown_field");
        assert_eq!(errors[0]["document"], 1);
        // `issuerRef` and a name are missing in each beside that.
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.ends_with("(and 40589 more; `errors` has the first 100)"), "{detail}");
        assert!(reply.text.len() < SMALL, "{}", reply.text.len());
    }
}

#[tokio::test]
async fn a_mebibyte_of_anything_is_refused_in_few_words() {
    let (_folder, url) = crate::support::world::sqlite();
    let world = World::on(&url).await;
    let certificate = |spec: &str| {
        format!(
            "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {{name: a}}\nspec:\n{spec}"
        )
    };
    let repeated = |text: &str| text.repeat((MIB - 1024) / text.len());
    let keys = (0..80_000).map(|n| format!("  x{n}: 1\n")).collect::<Vec<_>>().concat();
    let strange_below_a_long_key =
        format!("  {}: [{}]\n", "k".repeat(1000), vec!["\"\\0\""; 40_000].join(","));
    let shapes = [
        ("80,000 keys", certificate(&keys)),
        ("a long key", certificate(&format!("  {}: 1\n", "k".repeat(MIB - 2048)))),
        ("a long value", certificate(&format!("  profile: {}\n", "v".repeat(MIB - 2048)))),
        ("strange values", certificate(&strange_below_a_long_key)),
        ("many names", certificate(&format!("  dnsNames: [{}]\n", vec!["a"; 100_000].join(",")))),
        (
            "long names",
            certificate(&format!("  dnsNames: [{}]\n", vec!["\\\"x".repeat(400); 500].join(","))),
        ),
        ("depth", repeated("[")),
        ("depth of mappings", repeated("{a: ")),
        ("documents", repeated("a\n---\n")),
        ("empty mappings", repeated("{}\n---\n")),
        ("a list of nothing", format!("[{}]", repeated("{},"))),
        ("comments", format!("{}x", repeated("# a\n"))),
        ("tags", repeated("!a ")),
        ("anchors", repeated("&a ")),
        ("complex keys", repeated("? ")),
        ("quotes", format!("a: \"{}\"", repeated("\\\""))),
        ("tabs", repeated("\t")),
        (
            "items",
            format!("apiVersion: v1\nkind: List\nitems: [{}]", vec!["{kind: x}"; 20_000].join(",")),
        ),
        (
            "labels",
            format!(
                "apiVersion: cert-manager.io/v1\nkind: Certificate\nmetadata: {{name: a, labels: {{{}}}}}\nspec: {{secretName: a, dnsNames: [a.example.com], issuerRef: {{name: le}}}}",
                (0..990).map(|n| format!("'{n}!': '?'")).collect::<Vec<_>>().join(",")
            ),
        ),
        (
            "solvers",
            format!(
                "apiVersion: cert-manager.io/v1\nkind: Issuer\nmetadata: {{name: a}}\nspec: {{acme: {{server: 'https://a.example', solvers: [{}]}}}}",
                vec!["{x: 1, http01: {}}"; 20_000].join(",")
            ),
        ),
    ];
    for (name, text) in shapes {
        assert!(text.len() <= MIB, "{name}: {}", text.len());
        let reply = apply(&world, &text).await;

        assert!((400..500).contains(&reply.status), "{name}: {}", reply.text);
        assert!(reply.text.len() < SMALL, "{name}: {} bytes", reply.text.len());
    }
}

#[tokio::test]
async fn a_body_in_json_is_refused_in_few_words_whatever_it_holds() {
    let (_folder, url) = crate::support::world::sqlite();
    let world = World::on(&url).await;
    let many = |count: usize, value: Value| -> Value {
        Value::Object((0..count).map(|n| (format!("x{n}"), value.clone())).collect())
    };
    for (name, body) in [
        ("unknown fields", many(5_000, json!(1)).to_string()),
        (
            "labels",
            json!({"issuerRef": {"name": "le"}, "labels": many(4_000, json!("?"))}).to_string(),
        ),
        ("names", json!({"issuerRef": {"name": "le"}, "dnsNames": vec!["?"; 10_000]}).to_string()),
        ("strange", json!({"a": {"k".repeat(30_000): vec!["\0"; 3_000]}}).to_string()),
        ("depth", format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000))),
    ] {
        assert!(body.len() <= 64 * 1024, "{name}");
        let ask = world.ask(Method::POST, "/certificates").text(&body);
        let reply = ask.header("content-type", "application/json").send().await;

        assert!((400..500).contains(&reply.status), "{name}: {}", reply.text);
        assert!(reply.text.len() < SMALL, "{name}: {} bytes", reply.text.len());
    }
}

#[tokio::test]
async fn what_means_nothing_is_kept_in_a_small_and_flat_form_only() {
    let (_folder, url) = crate::support::world::sqlite();
    let world = World::on(&url).await;
    let with = |ingress: Value| {
        let mut issuer = cluster_issuer("le");
        issuer["acme"]["solvers"][1]["http01"]["ingress"] = ingress;
        issuer
    };
    let nested = (0..60).fold(json!(1), |inner, _| json!({"name": inner}));
    let pointer = "/acme/solvers/1/http01/ingress";
    for bad in [nested, json!({"name": "x".repeat(5_000)}), json!([1]), json!("text")] {
        let problem = world.post("/issuers", with(bad)).await.is_problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    world.post("/issuers", with(json!({"ingressClassName": "nginx"}))).await.accepted();

    let mut solvers = acme();
    solvers["solvers"] = json!(vec![json!({"http01": {}}); 8_000]);
    let text = json!({"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "large"}, "spec": {"acme": solvers}});
    let problem = apply(&world, &text.to_string()).await.is_problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["pointer"], "/spec/acme", "{problem}");
}

async fn apply(world: &World, text: &str) -> Reply {
    let ask = world.ask(Method::POST, "/apply?dryRun=true").text(text);
    ask.header("content-type", "application/yaml").send().await
}
