//! Somebody who logs in with the command line, at a real provider.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::place::Place;
use crate::support::openid_provider::{AUDIENCE, OpenIdProvider};
use crate::support::patience::until;
use crate::support::person::Person;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_logs_in_by_a_code_and_stays_so_until_the_logout() {
    let provider = OpenIdProvider::start().await;
    let settings = format!(
        "[log]\nlevel = \"trace\"\n[[oidc.issuers]]\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\ncli_client_id = \"cli\"\nrules = [{{match = {{sub = \"alice\"}}, role = \"reader\", namespaces = [\"*\"]}}]\n",
        provider.issuer()
    );
    let place = Place::new().file("certwright.toml", &settings);
    let service = tokio::task::block_in_place(|| place.serve());
    let mut person = Person::nowhere();
    person.server = format!("http://{}", service.address());
    assert_eq!(person.run(&["whoami"]).code, Some(5), "nobody is logged in");

    let mut login = person.begin(&["login"], "login");
    until("the code", async || provider.approve().await == 1).await;
    person.until("login", "logged in to").await;
    assert!(login.wait().unwrap().success());

    // Its tokens count for less time than is left to them: each command renews them.
    let mut shown = vec![fs::read_to_string(person.path("login")).unwrap()];
    let mut secrets = Vec::new();
    for _ in 0..2 {
        secrets.extend(tokens_of(&person));
        let who = person.run(&["whoami"]).succeeded();
        who.says_all(&["name: alice", "kind: token", "role: reader"]);
        shown.extend([who.out, who.err]);
    }
    secrets.extend(tokens_of(&person));
    shown.extend([service.out(), service.err()]);
    assert!(shown.last().unwrap().contains("DEBUG"), "the log tells everything");
    for secret in &secrets {
        assert!(!shown.iter().any(|text| text.contains(secret)), "{secret} is shown");
    }
    let folder = person.path(".config/certwright/tokens");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!((files.len(), mode(&files[0]), mode(&folder)), (1, 0o600, 0o700));
    person.run(&["logout"]).succeeded().says_all(&["logged out of"]);
    assert_eq!(person.run(&["whoami"]).code, Some(5));
    person.run(&["logout"]).succeeded().says_all(&["was not logged in"]);
    tokio::task::block_in_place(|| service.stop()).succeeded();
}

/// The token that counts now, and the one that renews it: what is secret of them.
fn tokens_of(person: &Person) -> Vec<String> {
    let folder = fs::read_dir(person.path(".config/certwright/tokens")).unwrap();
    let text = fs::read_to_string(folder.last().unwrap().unwrap().path()).unwrap();
    let login = &serde_json::from_str::<Value>(&text).unwrap()["login"];
    let bearer = login["bearer"].as_str().unwrap().rsplit('.').next().unwrap();
    vec![bearer.to_owned(), login["refresh_token"].as_str().unwrap().to_owned()]
}

#[test]
fn where_nobody_can_log_in_a_person_is_told_so() {
    let place = Place::new();
    let service = place.serve();
    let mut person = Person::nowhere();
    person.server = format!("http://{}", service.address());

    let refused = person.run(&["login"]);
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.err.contains("cli_client_id"), "{refused:?}");
    service.stop().succeeded();
}
