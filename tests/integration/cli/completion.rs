//! Completion, as shells ask for it: the script in a real bash, and what the scripts of zsh and fish send.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::databases;
use crate::support::person::Person;
use crate::support::process::output;
use crate::support::site::Site;

/// What bash offers for the last word of the line.
fn in_bash(person: &Person, line: &str) -> Vec<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let (place, last) = (words.len() - 1, words[words.len() - 1]);
    let quoted: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        "set -e; source <(certwright completion bash); COMP_WORDS=({}); COMP_CWORD={place}; COMP_TYPE=9
         _clap_complete_certwright certwright '{last}' ''; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted.join(" ")
    );
    asked(person, "bash", &["-c", &script], &[])
}

/// What the program tells a shell that calls it with these variables.
fn asked(person: &Person, program: &str, arguments: &[&str], more: &[(&str, &str)]) -> Vec<String> {
    let folder = Path::new(env!("CARGO_BIN_EXE_certwright")).parent().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("HOME", person.home.path());
    command.env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
    command.env("CERTWRIGHT_SERVER", &person.server).env("CERTWRIGHT_API_KEY", &person.key);
    command.envs(more.iter().copied());
    let ended = tokio::task::block_in_place(|| output(&mut command));
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success() && error.is_empty(), "{arguments:?}: {error}");
    let out = String::from_utf8(ended.stdout).unwrap();
    out.lines().map(|word| word.trim_end().to_owned()).filter(|word| !word.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_completes_names_that_the_server_has() {
    let (_folder, url) = databases::sqlite_url();
    let site = Site::configured(&url, &[]).await;
    let person = Person::of(&site);
    for (namespace, name) in [("default", "www"), ("default", "wiki"), ("shop", "pay")] {
        let wanted = json!({"namespace": namespace, "name": name, "dnsNames": [format!("{name}.example.com")],
            "issuerRef": {"name": "dns", "kind": "ClusterIssuer"}});
        site.post("/certificates", &wanted).await.expect_status(202);
    }
    let secret = json!({"name": "token", "stringData": {"api-token": "kept-to-itself"}});
    site.post("/secrets", &secret).await.expect_status(201);

    for (line, offered) in [
        ("certwright app", &["apply", "approve"][..]),
        ("certwright get certificater", &[]),
        ("certwright get cert", &["certificates"]),
        ("certwright get certificate w", &["wiki", "www"]),
        ("certwright describe cert/ww", &["cert/www"]),
        ("certwright -n shop describe certificate ", &["pay"]),
        ("certwright get certificate -A p", &["pay"]),
        ("certwright renew -n s", &["shop"]),
        ("certwright renew -n shop ", &["pay"]),
        ("certwright issue a.example.com --issuer d", &["dns"]),
        ("certwright status certificate wi", &["wiki"]),
        ("certwright delete secret t", &["token"]),
    ] {
        let found = in_bash(&person, line);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        let found = if line.ends_with(' ') { without_flags(&found) } else { found };
        assert_eq!(found, offered, "{line}");
    }

    let words = ["--", "certwright", "get", "certificate", "w"];
    let zsh = [("CERTWRIGHT_COMPLETE", "zsh"), ("_CLAP_COMPLETE_INDEX", "3"), ("_CLAP_IFS", "\n")];
    assert_eq!(asked(&person, "certwright", &words, &zsh), ["wiki", "www"]);
    let fish = [("CERTWRIGHT_COMPLETE", "fish")];
    assert_eq!(asked(&person, "certwright", &words, &fish), ["wiki", "www"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_server_answers_a_shell_completes_commands_alone_and_soon() {
    // It takes connections, and never says anything.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", silent.local_addr().unwrap());
    for server in [server, "not an address".to_owned()] {
        let person = Person { server, ..Person::nowhere() };
        // A request would be waited for longer than the guard of child processes lets this take.
        let nothing = in_bash(&person, "certwright get certificate w");
        assert_eq!(nothing, [""; 0], "{}", person.server);
        assert_eq!(in_bash(&person, "certwright desc"), ["describe"]);
    }
}

fn without_flags<'w>(words: &[&'w str]) -> Vec<&'w str> {
    words.iter().copied().filter(|word| !word.starts_with('-')).collect()
}
