//! Settings as an operator gives and sees them, and what is refused.

use super::place::Place;
use crate::support::ClosedPort;

#[test]
fn settings_are_shown_with_their_sources_and_without_secrets() {
    let place = Place::new()
        .file("certwright.toml", "[bootstrap]\napi_key = \"hunter1\"\n[log]\nlevel = \"debug\"\n")
        .env("CERTWRIGHT_DATABASE_URL", "postgres://certwright:hunter2@db/certwright")
        .env("CERTWRIGHT_MASTER_KEY", "hunter3")
        .env("CERTWRIGHT_WORKER_CONCURRENCY", "7");
    let ended = place.run(&["config", "--set", "log.format=json"]).succeeded();

    for line in [
        "data_dir = \"./data\" # default",
        "level = \"debug\" # certwright.toml",
        "concurrency = \"7\" # environment variable CERTWRIGHT_WORKER_CONCURRENCY",
        "format = \"json\" # flag",
        "api_key = \"(redacted)\" # certwright.toml",
        "url = \"postgres://certwright:redacted@db/certwright\" # environment variable CERTWRIGHT_DATABASE_URL",
        "master_key = \"(redacted)\" # environment variable CERTWRIGHT_MASTER_KEY",
    ] {
        assert!(ended.out.lines().any(|shown| shown == line), "{line}: {ended:?}");
    }
    assert!(!ended.everything().contains("hunter"), "{ended:?}");
    assert!(!place.data().exists(), "showing settings makes nothing");
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let text = "[http]\nlisten = \"127.0.0.1:1\"\n[http01]\nlisten = \"127.0.0.1:2\"\n[log]\nlevel = \"warn\"\n";
    for flag in ["--config", "-c"] {
        let place = Place::new()
            .file("my.toml", text)
            .file("certwright.toml", "[log]\nlevel = \"trace\"\n")
            .env("CERTWRIGHT_HTTP_LISTEN", "127.0.0.1:3")
            .env("CERTWRIGHT_HTTP01_LISTEN", "127.0.0.1:4");
        let set = ["--set", "http.listen=127.0.0.1:5"];
        let ended = place.run(&[&[flag, "my.toml", "config"], &set[..]].concat()).succeeded();

        for line in [
            "listen = \"127.0.0.1:5\" # flag",
            "listen = \"127.0.0.1:4\" # environment variable CERTWRIGHT_HTTP01_LISTEN",
            "level = \"warn\" # my.toml",
        ] {
            assert!(ended.out.lines().any(|shown| shown == line), "{line}: {ended:?}");
        }
        // The same flags after the subcommand, and the file from the environment.
        let after = place.run(&[&["config", flag, "my.toml"], &set[..]].concat()).succeeded();
        assert_eq!(after.out, ended.out);
        let place = place.env("CERTWRIGHT_CONFIG", "my.toml");
        assert_eq!(place.run(&[&["config"], &set[..]].concat()).succeeded().out, ended.out);
    }
}

#[test]
fn a_variable_that_nobody_knows_stops_every_command() {
    for command in ["config", "migrate", "serve"] {
        let place = Place::new().env("CERTWRIGHT_HTTP_LISSTEN", "127.0.0.1:1");
        let ended = place.run(&[command]).failed();

        assert!(ended.err.contains("CERTWRIGHT_HTTP_LISSTEN"), "{ended:?}");
        assert!(ended.err.contains("did you mean \"CERTWRIGHT_HTTP_LISTEN\"?"), "{ended:?}");
        assert!(!place.data().exists(), "{command} made something");
    }
}

#[test]
fn a_key_that_nobody_knows_is_named_with_its_file() {
    let place = Place::new().file("certwright.toml", "[http]\nlissten = \"127.0.0.1:1\"\n");
    let ended = place.run(&["config"]).failed();

    assert!(ended.err.contains("certwright.toml"), "{ended:?}");
    assert!(ended.err.contains("\"http.lissten\"; did you mean \"http.listen\"?"), "{ended:?}");
    let flag = Place::new().run(&["config", "--set", "log.levle=debug"]).failed();
    assert!(flag.err.contains("flag: there is no setting \"log.levle\""), "{flag:?}");
}

#[test]
fn a_value_that_makes_no_sense_is_named_with_where_it_came_from() {
    for command in ["config", "migrate", "serve"] {
        let place = Place::new().env("CERTWRIGHT_HTTP_LISTEN", "8080");
        let ended = place.run(&[command]).failed();

        assert!(ended.err.contains("CERTWRIGHT_HTTP_LISTEN: http.listen = \"8080\""), "{ended:?}");
        assert!(!place.data().exists(), "{command} made something");
    }
    let text = "[worker]\nconcurrency = 0\n";
    let ended = Place::new().file("my.toml", text).run(&["-c", "my.toml", "config"]).failed();
    assert!(ended.err.contains("my.toml: worker.concurrency = \"0\""), "{ended:?}");
}

#[test]
fn a_log_level_that_is_none_is_named() {
    let place = Place::new().env("CERTWRIGHT_LOG_LEVEL", "certwright=loud");

    let ended = place.run(&["serve"]).failed();
    assert!(ended.err.contains("log.level = \"certwright=loud\""), "{ended:?}");
}

#[test]
fn a_file_that_is_named_has_to_be_there() {
    let ended = Place::new().run(&["--config", "missing.toml", "config"]).failed();

    assert!(ended.err.contains("missing.toml"), "{ended:?}");
}

#[test]
fn a_file_that_is_no_toml_is_refused_without_showing_what_it_holds() {
    for text in [
        "[log]\nlevel = \"info\"\n[bootstrap]\napi_key = \"hunter2\n",
        "master_key = hunter2\n",
        "[database]\nurl = \"postgres://u:hunter2@h/d\" x\n",
    ] {
        let ended = Place::new().file("certwright.toml", text).run(&["config"]).failed();

        assert!(ended.err.contains("certwright.toml"), "{ended:?}");
        assert!(ended.err.contains(&format!("line {}", text.lines().count())), "{ended:?}");
        assert!(!ended.everything().contains("hunter2"), "{ended:?}");
    }
}

#[test]
fn a_database_that_cannot_be_opened_is_refused_without_its_password() {
    let closed = ClosedPort::new();
    for url in [
        format!("postgres://certwright:hunter2@{}/certwright", closed.address()),
        "postgres://certwright:hunter2@127.0.0.1:port/certwright".to_owned(),
        "postgres://certwright:hunter2@127.0.0.1/certwright?sslmode=hunter2x".to_owned(),
        "mysql://certwright:hunter2@127.0.0.1/certwright".to_owned(),
    ] {
        let ended = Place::new().env("CERTWRIGHT_DATABASE_URL", &url).run(&["migrate"]).failed();

        assert!(ended.err.contains("database"), "{ended:?}");
        assert!(!ended.everything().contains("certwright:hunter2"), "{ended:?}");
    }
}
