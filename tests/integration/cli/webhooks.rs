//! Webhooks at the command line.

use crate::support::databases;
use crate::support::person::Person;
use crate::support::receiver::{Receiver, Reply};
use crate::support::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn webhooks_are_made_tried_and_looked_at() {
    let (_folder, url) = databases::sqlite_url();
    let receiver = Receiver::start().await;
    let port = receiver.url().parse::<url::Url>().unwrap().port().unwrap().to_string();
    let settings = [("outbound.allow_http", "true"), ("outbound.ports", &*port)];
    let site = Site::configured(&url, &settings).await;
    let person = Person::of(&site);

    let refused = person.run(&["webhooks", "create", "http://192.0.2.1:1/"]);
    assert!(refused.code == Some(1) && refused.err.contains("/url"), "{refused:?}");
    let made = person
        .run(&[
            "webhooks",
            "create",
            &receiver.url(),
            "--name",
            "deploy",
            "--event",
            "certificate.issued",
        ])
        .succeeded();
    assert!(made.out.starts_with("whsec_") && made.out.lines().count() == 1, "{made:?}");
    assert!(made.err.starts_with("webhook/deploy created"), "{made:?}");
    let taken = person.run(&["webhooks", "create", &receiver.url(), "--name", "deploy"]);
    assert!(taken.code == Some(1) && taken.err.contains("a webhook `deploy`"), "{taken:?}");
    let unnamed = person.run(&["webhooks", "create", &receiver.url(), "-n", "shop"]).succeeded();
    assert!(unnamed.err.starts_with("webhook/webhook-"), "{unnamed:?}");

    let tried = person.run(&["webhooks", "test", "deploy"]).succeeded();
    assert_eq!(tried.out, "webhook/deploy took a webhook.test (status 204)\n");
    assert_eq!(receiver.types(), ["webhook.test"]);
    receiver.will_answer([Reply::Status(500)]);
    let tried = person.run(&["webhooks", "test", "deploy"]);
    assert_eq!(tried.code, Some(1), "{tried:?}");
    assert!(tried.err.contains("refused a webhook.test with status 500"), "{tried:?}");

    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let got = person.run(&["get", "webhooks", "-o", "wide"]).succeeded();
    let lines: Vec<_> = got.out.lines().map(words).collect();
    assert_eq!(lines[0], ["NAME", "URL", "EVENTS", "PHASE", "MESSAGE", "AGE"], "{got:?}");
    assert_eq!(lines[1][..3], ["deploy", &*receiver.url(), "certificate.issued"], "{got:?}");
    assert!(["Ready", "Failing"].contains(&lines[1][3].as_str()), "{got:?}");
    let listed = person.run(&["webhooks", "list"]).succeeded();
    assert!(listed.out.contains("deploy") && !listed.out.contains("whsec_"), "{listed:?}");

    let shown = person.run(&["webhooks", "get", "deploy"]).succeeded();
    assert!(shown.out.contains("name: deploy\n") && !shown.out.contains("whsec_"), "{shown:?}");
    let described = person.run(&["describe", "webhook", "deploy"]).succeeded();
    assert!(described.out.starts_with("Name:         deploy\n"), "{described:?}");
    assert!(described.out.contains("Created"), "its events: {described:?}");
    let happened = person.run(&["events", "--for", "webhook/deploy"]).succeeded();
    assert!(happened.out.contains("webhook/deploy"), "{happened:?}");

    site.issue("dns", &["told.example.com"]).await;
    assert_eq!(receiver.until(3).await[2].kind(), "certificate.issued");
    let events = person.run(&["get", "events"]).succeeded();
    let lines: Vec<_> = events.out.lines().map(words).collect();
    assert_eq!(lines[0], ["LAST", "SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"], "{events:?}");
    assert!(lines[1..].iter().any(|line| line[1..3] == ["Normal", "Issuing"]), "{events:?}");

    person.run(&["webhooks", "delete", "deploy"]).succeeded();
    assert_eq!(person.run(&["webhooks", "test", "deploy"]).code, Some(3), "it is gone");
}
