//! The settings in words: as they are, and as they can be.

use std::fmt::Write as _;

use super::settings::{SETTINGS, Setting};
use super::sources::{Values, shown};

/// The settings that are in force, as TOML, each with where it came from. Secrets are not shown.
pub fn toml(values: &Values) -> String {
    let mut text = String::new();
    // A key without a table has to stand before the first table.
    let (tables, plain): (Vec<&Setting>, Vec<&Setting>) =
        SETTINGS.iter().partition(|setting| setting.key.contains('.'));
    let mut table = "";
    for setting in plain.into_iter().chain(tables) {
        let (group, key) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if group != table {
            table = group;
            writeln!(text, "\n[{group}]").ok();
        }
        let origin = values.origin(setting.key);
        let value = match values.given(setting.key) {
            None => {
                writeln!(text, "# {key} is not set").ok();
                continue;
            }
            Some(_) if setting.list => format!("{:?}", values.list(setting.key)),
            Some(value) if setting.tables => value,
            Some(value) => shown(setting, &value),
        };
        // Writing to a String cannot fail.
        writeln!(text, "{key} = {value} # {origin}").ok();
    }
    text
}

/// The table of `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text =
        "| setting (TOML) | environment | default | what it is for |\n|---|---|---|---|\n"
            .to_owned();
    for setting in SETTINGS {
        let default = match setting.default {
            "" => "–".to_owned(),
            default => format!("`{default}`"),
        };
        let (key, env, help) = (setting.key, setting.env(), setting.help);
        writeln!(text, "| `{key}` | `{env}` | {default} | {help} |").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    #[test]
    fn secrets_are_not_shown_and_origins_are() {
        let environment = [
            ("CERTWRIGHT_MASTER_KEY".to_owned(), "hunter2".to_owned()),
            ("CERTWRIGHT_OUTBOUND_ALLOW".to_owned(), "127.0.0.0/8,a.example".to_owned()),
        ];
        let text = toml(&read(None, environment, &[]).unwrap());

        assert!(!text.contains("hunter2"), "{text}");
        let hidden = "master_key = \"(redacted)\" # environment variable CERTWRIGHT_MASTER_KEY";
        assert!(text.contains(hidden), "{text}");
        let shown = |url: &str| {
            let environment = [("CERTWRIGHT_DATABASE_URL".to_owned(), url.to_owned())];
            toml(&read(None, environment, &[]).unwrap())
        };
        let database =
            shown("postgres://certwright:hunter2@db.example.com:5432/certs?sslmode=require");
        let url =
            "url = \"postgres://certwright:redacted@db.example.com:5432/certs?sslmode=require\"";
        assert!(database.contains(url) && !database.contains("hunter2"), "{database}");
        assert!(
            shown("sqlite:///var/lib/certwright.db")
                .contains("url = \"sqlite:///var/lib/certwright.db\"")
        );
        assert!(!shown("postgres://db/certs?user=a&password=hunter2").contains("hunter2"));
        assert!(text.contains("allow = [\"127.0.0.0/8\", \"a.example\"]"), "{text}");
        assert!(text.contains("listen = \"127.0.0.1:8080\" # default"), "{text}");
        text.parse::<::toml::Table>().unwrap();
    }

    #[test]
    fn the_documentation_lists_every_setting_as_it_is() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let documented = std::fs::read_to_string(file).unwrap();
        assert!(
            documented.contains(&markdown()),
            "docs/configuration.md is out of date; put what `certwright config --markdown` prints into it"
        );
    }
}
