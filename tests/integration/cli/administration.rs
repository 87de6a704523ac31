//! What whoever runs the service does: keys, secrets, and a look at whether all is well.

use std::fs;

use serde_json::json;

use crate::support::patience::until;
use crate::support::person::Person;
use crate::support::site::Site;
use crate::support::{ClosedPort, databases, former_schema};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_does_what_it_may_until_it_is_deleted() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let moved = ["-n", "moved"];
    let issue = ["issue", "a.example.com", "--issuer", "dns"];
    person.run(&[&issue[..], &moved].concat()).succeeded();
    person.run(&issue).succeeded();

    let made = person
        .run(&[
            "keys",
            "create",
            "reader",
            "--permission",
            "certificates:read",
            "--in-namespace",
            "moved",
        ])
        .succeeded();

    let reader = Person { key: made.out.trim().to_owned(), ..Person::of(&site) };
    let seen = reader.run(&["get", "certs", "-A", "-o", "name"]).succeeded();
    assert_eq!(seen.out.lines().count(), 1, "{seen:?}");
    assert_eq!(reader.run(&["renew", "a.example.com", "-n", "moved"]).code, Some(5), "it may not");
    let more = reader.run(&["keys", "create", "more", "--permission", "*"]);
    assert_eq!(more.code, Some(5), "{more:?}");
    person.run(&["keys", "list"]).succeeded().says_all(&["reader"]);
    reader.run(&["whoami"]).succeeded().says_all(&["name: reader", "kind: apiKey", "- moved"]);
    let rotated = person.run(&["keys", "rotate", "reader", "--former-valid-for", "0s"]).succeeded();
    assert_eq!(reader.run(&["get", "certs"]).code, Some(5), "its former value has ended");
    let reader = Person { key: rotated.out.trim().to_owned(), ..Person::of(&site) };
    reader.run(&["get", "certs", "-A"]).succeeded();
    person
        .run(&["keys", "get", "reader"])
        .succeeded()
        .says_all(&["rotatedAt", "certificates:read"]);
    person.run(&["keys", "delete", "reader"]).succeeded();
    assert_eq!(reader.run(&["get", "certs"]).code, Some(5), "it is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_a_role_ends_when_it_was_made_to() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let create = ["keys", "create", "ci", "--role", "requester", "--in-namespace", "a"];

    person.run(&[&create[..], &["--expires-in", "2160h"]].concat()).succeeded();

    let shown = person.run(&["keys", "get", "ci"]).succeeded();
    shown.says_all(&["role: requester", "expiresAt: ", "certificates:readKey", "kind: apiKey"]);
    let wrong = person.run(&[&create[..], &["--expires-in", "soon"]].concat());
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert_eq!(person.run(&["keys", "create", "nothing"]).code, Some(2), "it may do nothing");
    person.run(&create).succeeded();
    let several = person.run(&["keys", "delete", "ci"]);
    assert!(several.err.contains("several API keys"), "{several:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_made_from_a_file_replaced_listed_and_deleted() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    fs::write(person.path("token"), "hunter2\n").unwrap();

    for word in ["created", "configured"] {
        let stored = person
            .run(&["secrets", "create", "mine", "--from-file", "api-token=token"])
            .succeeded();
        assert_eq!(stored.out, format!("secret/mine {word}\n"));
    }

    person.run(&["secrets", "list"]).succeeded().says_all(&["api-token"]);
    person.run(&["secrets", "delete", "mine"]).succeeded();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_says_what_is_well_and_what_is_missing_and_makes_nothing() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);

    let looked = person.run_with(&["doctor"], &site.environment()).succeeded();
    looked.says_all(&[
        "settings: can be used",
        "database: sqlite, schema version",
        "master key: opens",
        "ClusterIssuer dns: https://127.0.0.1",
        "its account is registered",
        "the token is valid and sees example.com",
        "it may edit records: _certwright-doctor.example.com (TXT) was written, and removed again",
        "database, disk: ",
        "database, write-ahead log: ",
        "database, writes: a row was written",
        "database, integrity: ",
        "database, API keys and policies: all 1 are as the service wrote them",
        "audit log: whole; head ",
        "answers, and the clocks agree",
        "HTTP-01, from outside: cannot be seen from here: `curl -i http://NAME/",
        "certificates: none has expired",
        "webhooks: none is in trouble",
        "throttles: nobody is asked to wait",
        "certificates, ends: all are renewed in time",
        "certificates, wanted: none has been waited for",
        "queues: all work is taken up",
        "ClusterIssuer dns, limits: more than a fifth",
    ]);
    assert!(!looked.out.lines().any(|line| line.starts_with("fail")), "{looked:?}");
    assert!(site.cloudflare.records("example.com").is_empty(), "its record is gone again");
    // The metrics are those of the process, in which other tests have had their troubles.
    let counted = ["since the start: ", "steps: ", "circuit breakers: ", "messages to webhooks: "];
    assert!(counted.iter().any(|line| looked.out.contains(line)), "{looked:?}");

    assert!(looked.err.contains("checks, none failed, with "), "{looked:?}");

    let made = ["keys", "create", "blind", "--permission", "certificates:read"];
    let blind = person.run(&made).succeeded();
    let blind = Person { key: blind.out.trim().to_owned(), ..Person::of(&site) };
    let looked = blind.run_with(&["doctor"], &site.environment());
    looked.says_all(&["warn  metrics: they cannot be read: ", "a key with `metrics:read`"]);

    let wrong = [("CERTWRIGHT_DATA_DIR".to_owned(), person.path("nothing").display().to_string())];
    let looked = person.run_with(&["doctor"], &wrong);
    assert_eq!(looked.code, Some(1), "{looked:?}");
    looked.says_all(&["fail  database", "certwright migrate"]);
    assert!(!person.path("nothing").exists(), "looking makes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_the_program_that_an_unknown_schema_needs() {
    let (_folder, url) = databases::sqlite_url();
    former_schema::make(&url, 1).await;

    let environment = [("CERTWRIGHT_DATABASE_URL".to_owned(), url)];
    let looked = Person::nowhere().run_with(&["doctor"], &environment);

    assert_eq!(looked.code, Some(1), "{looked:?}");
    looked.says_all(&["fail  database: version 1 of ", "`certwright migrate` of commit"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_a_file_that_is_damaged_and_what_to_do() {
    let (folder, url) = databases::sqlite_url();
    databases::open(&url).await.close().await;
    let file = folder.path().join("certwright.db");
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(b'?');
    fs::write(&file, bytes).unwrap();

    let environment = [("CERTWRIGHT_DATABASE_URL".to_owned(), url)];
    let looked = Person::nowhere().run_with(&["doctor"], &environment);

    assert_eq!(looked.code, Some(1), "{looked:?}");
    let next = "keep a copy of the file with its `-wal`, and put a backup in its place";
    looked.says_all(&["fail  database", next]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_what_somebody_has_written_into_the_database() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    person.run(&["keys", "create", "other", "--role", "reader"]).succeeded();
    until("the seals", async || {
        let page = site.get("/audit").await.body;
        page["items"].as_array().unwrap().iter().all(|entry| entry["seq"].is_i64())
    })
    .await;
    let changes = [
        "UPDATE audit_entries SET outcome = 'refused' WHERE action = 'apiKeys.create'",
        "UPDATE api_keys SET role = 'admin' WHERE name = 'other'",
    ];
    former_schema::execute(&url, &changes).await;

    let looked = person.run_with(&["doctor"], &site.environment());

    assert_eq!(looked.code, Some(1), "{looked:?}");
    looked.says_all(&[
        "fail  database, API keys and policies: 1 were written by somebody else, and are refused: API key other",
        "fail  audit log: it is not whole: entry ",
        "is not what was sealed",
    ]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_names_what_waits_for_somebody_with_the_next_command() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    site.cloudflare.forbid_edits("example.com");
    let blocked = site.issue("dns", &["blocked.example.com"]).await;
    assert_eq!(blocked["status"]["phase"], "Blocked", "{blocked}");

    let looked = person.run_with(&["doctor"], &site.environment());

    assert_eq!(looked.code, Some(1), "{looked:?}");
    looked.says_all(&[
        "fail  ClusterIssuer dns, Secret cloudflare: it cannot write and remove _certwright-doctor.example.com (TXT)",
        "`certwright renew --failed` tries what waits for it",
        "fail  certificate default/blocked.example.com: Blocked: ",
        "`certwright renew blocked.example.com -n default` tries again",
    ]);
    assert!(looked.err.contains("2 of "), "{looked:?}");
    let shown = person.run(&["status", "certificate", "blocked.example.com"]).succeeded();
    shown.says_all(&["To try at once, after the cause is mended: `certwright renew "]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn doctor_does_not_blame_the_token_for_a_provider_that_cannot_be_reached() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let mut solver = site.dns_solver();
    let closed = ClosedPort::new();
    let nobody = format!("http://{}/client/v4", closed.address());
    solver["dns01"]["cloudflare"]["baseURL"] = json!(nobody);
    site.create_issuer("away", &json!([solver]), &json!({})).await;

    let looked = person.run_with(&["doctor"], &site.environment());

    assert_eq!(looked.code, Some(1), "{looked:?}");
    looked.says_all(&["ClusterIssuer away, Secret cloudflare: Cloudflare cannot be reached, so that nothing is known about the token"]);
    assert!(!looked.out.contains("make a token"), "{looked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_containers_health_check_asks_the_listener_and_ends_with_0_or_1() {
    let (_folder, url) = databases::sqlite_url();
    let mut site = Site::on(&url).await;
    let person = Person::nowhere();
    // Whatever the way to the world is, this one is within the machine.
    let mut environment = site.environment();
    let closed = ClosedPort::new();
    environment.push(("HTTP_PROXY".to_owned(), format!("http://{}", closed.address())));

    let healthy = person.run_with(&["healthcheck"], &environment).succeeded();
    assert!(healthy.out.is_empty(), "{healthy:?}");
    site.stop().await;
    let unhealthy = person.run_with(&["healthcheck"], &environment).failed();
    assert!(unhealthy.err.contains(&site.api.to_string()), "{unhealthy:?}");
}
