//! `--watch` and `--follow`, which go on until they are interrupted.

use crate::support::person::Person;
use crate::support::site::Site;
use crate::support::{databases, free_port};

/// `--watch` and `--follow` go on until they are interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_watches_sees_what_changes() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::on(&url).await;
    let person = Person::of(&site);
    let mut watching = person.begin(&["get", "certs", "--watch"], "watched");
    let mut following = person.begin(&["logs", "--follow"], "followed");

    site.issue("dns", &["watched.example.com"]).await;

    let watched = person.until("watched", "watched.example.com   True").await;
    assert!(watched.lines().count() >= 1, "{watched}");
    let followed = person.until("followed", "The certificate has been successfully issued").await;
    let mut lines: Vec<_> = followed.lines().collect();
    let count = lines.len();
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), count, "everything once: {followed}");
    for child in [&mut watching, &mut following] {
        assert!(child.try_wait().unwrap().is_none(), "it goes on");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A stream that breaks off is continued where it broke off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_follows_misses_nothing_when_the_server_starts_anew() {
    let (_folder, url) = databases::sqlite_url();
    let port = free_port();
    let settings = [("http.listen", &*format!("127.0.0.1:{port}"))];
    let mut site = Site::configured(&url, &settings).await;
    let person = Person::of(&site);
    let mut following = person.begin(&["logs", "-f"], "followed");
    site.issue("dns", &["first.example.com"]).await;
    person.until("followed", "The certificate has been successfully issued").await;

    site.stop().await;
    site.start_again().await;
    site.issue("dns", &["second.example.com"]).await;

    let about = ["  certificate/second.example.com ", "  Issuing ", "  The certificate has been"];
    let followed = person.until_line("followed", &about).await;
    let told = followed.lines().filter(|line| about.iter().all(|part| line.contains(part)));
    assert_eq!(told.count(), 1, "{followed}");
    following.kill().unwrap();
    following.wait().unwrap();
}
