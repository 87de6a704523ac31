//! The program itself as an operator sees it: the real binary, in an empty folder and a clean
//! environment.

use std::process::Stdio;

use super::place::{ADDRESS_LINE, Place};

const SUBCOMMANDS: [&str; 5] = ["serve", "migrate", "secrets", "config", "openapi"];

#[test]
fn help_shows_examples_and_every_subcommand() {
    let ended = Place::new().run(&["--help"]).succeeded();

    assert!(ended.out.contains("Examples:\n  certwright serve"), "{ended:?}");
    for subcommand in SUBCOMMANDS {
        let described = |line: &str| line.trim_start().starts_with(&format!("{subcommand} "));
        assert!(ended.out.lines().any(described), "{subcommand}: {ended:?}");
        let own = Place::new().run(&[subcommand, "--help"]).succeeded();
        assert!(own.out.contains(&format!("Usage: certwright {subcommand}")), "{own:?}");
    }
}

#[test]
fn the_version_is_one_line() {
    let ended = Place::new().run(&["--version"]).succeeded();

    assert_eq!(ended.out, format!("certwright {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_no_command_is_a_usage_error() {
    for (arguments, named) in
        [(&["sevre"][..], "sevre"), (&["serve", "--prot"], "--prot"), (&[], "Usage:")]
    {
        let ended = Place::new().run(arguments);

        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains(named) && ended.out.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    for arguments in [&["openapi"][..], &["config"], &["config", "--markdown"], &["migrate"]] {
        let place = Place::new();
        let mut child = place.start_with(arguments, Stdio::piped());
        drop(child.child.stdout.take());

        let ended = child.end();
        assert!(!ended.err.contains("panic"), "{arguments:?}: {ended:?}");
        ended.succeeded();
    }
}

#[test]
fn a_service_outlives_the_reader_of_its_output() {
    let place = Place::new().ports();
    let mut child = place.start_with(&["serve"], Stdio::piped());
    drop(child.child.stdout.take());
    child.until("it is ready", |child| child.err().contains("\"ready\""));

    let ended = child.stop();
    assert!(!ended.err.contains("panic"), "{ended:?}");
    ended.succeeded();
}

#[test]
fn a_service_outlives_the_reader_of_its_log_and_stops_when_it_is_told_to() {
    let place = Place::new().ports();
    let mut child = place.start_logging_to(Stdio::piped(), &["serve"]);
    drop(child.child.stderr.take());
    child.until("it listens", |child| child.out().contains(ADDRESS_LINE));

    child.stop().succeeded();
}

#[test]
fn a_port_in_use_is_named_with_its_setting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().port();
    for setting in ["http.listen", "http01.listen"] {
        let place = Place::new();
        let ports = if setting == "http.listen" { (taken, 0) } else { (0, taken) };
        let ended = place.start_on(ports.0, ports.1, &["serve"]).end().failed();

        assert!(ended.err.contains(&format!("127.0.0.1:{taken}")), "{ended:?}");
        assert!(ended.err.contains(&format!("`{setting}`")), "{ended:?}");
        assert!(ended.out.is_empty(), "{ended:?}");
        // The key is not lost by a failed start.
        assert!(place.serve().key().is_some());
    }
}
