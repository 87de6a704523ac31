//! `certwright inspect`: certificates in files and at servers.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use clap::Args;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Url;

use super::output::{self, Colour, now, paint, print};
use super::remote::run;
use crate::client::peer_chain;
use crate::pki::{self, Look};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright inspect fullchain.pem
  certwright inspect www.example.com:443
  certwright inspect https://www.example.com
  certwright inspect 192.0.2.7:443 --server-name www.example.com")]
pub(super) struct Inspect {
    /// A PEM or DER file, `host:port`, or an https URL
    what: String,
    /// The name that the server is asked for [default: the host]
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// JSON instead
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let path = Path::new(&self.what);
        let ders = if path.is_file() { read(path)? } else { self.shown_by_server()? };
        let looks = ders.iter().map(|der| pki::look(der)).collect::<Result<Vec<_>, _>>()?;
        if self.json {
            let all: Vec<Value> = looks.iter().map(document).collect();
            return print(&output::json(&Value::Array(all)));
        }
        let mut out = String::new();
        for (place, look) in looks.iter().enumerate() {
            if place > 0 {
                out.push('\n');
            }
            let title = if place == 0 { "Certificate" } else { "Chain" };
            out.push_str(&report(title, look));
        }
        print(&out)
    }

    fn shown_by_server(&self) -> anyhow::Result<Vec<Vec<u8>>> {
        let text = if self.what.contains("://") {
            self.what.clone()
        } else {
            format!("https://{}", self.what)
        };
        let url = Url::parse(&text).ok().filter(|url| url.host_str().is_some());
        let url = url.with_context(|| {
            format!("`{}` is no file that is there, and no `host:port` either", self.what)
        })?;
        let host = url.host_str().unwrap_or_default();
        let address = format!("{host}:{}", url.port().unwrap_or(443));
        let name = self.server_name.as_deref().unwrap_or_else(|| host.trim_matches(['[', ']']));
        let mut shown = Vec::new();
        run(async {
            shown = peer_chain(&address, name).await.map_err(|problem| {
                anyhow!("{address} shows no certificate for `{name}`: {problem}")
            })?;
            Ok(())
        })?;
        Ok(shown)
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<Vec<u8>>> {
    let bytes = fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
    match String::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN") => {
            pki::certificates(&text).with_context(|| format!("{} cannot be used", path.display()))
        }
        Ok(text) => Ok(vec![text.into_bytes()]),
        Err(error) => Ok(vec![error.into_bytes()]),
    }
}

fn days_left(look: &Look) -> i64 {
    (look.not_after - now()).whole_days()
}

fn moment(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

fn report(title: &str, look: &Look) -> String {
    let days = days_left(look);
    let left = match days {
        _ if look.not_after <= now() => paint(Colour::Red, "expired"),
        ..15 => paint(Colour::Yellow, &format!("{days} days left")),
        _ => paint(Colour::Green, &format!("{days} days left")),
    };
    let mut lines = vec![
        ("Subject", look.subject.clone()),
        ("Names", look.names.join(", ")),
        ("Issuer", look.issuer.clone()),
        ("Not before", moment(look.not_before)),
        ("Not after", format!("{} ({left})", moment(look.not_after))),
        ("Serial", look.serial.clone()),
        ("Key", look.key.clone()),
        ("Signature", look.signature.clone()),
        ("Key usage", look.key_usage.clone()),
        ("Extended usage", look.extended_key_usage.clone()),
        ("CA", if look.is_ca { "yes" } else { "no" }.to_owned()),
        ("SHA-256", look.sha256.clone()),
        ("SHA-1", look.sha1.clone()),
    ];
    lines.retain(|(_, text)| !text.is_empty());
    let width = 16;
    let body: Vec<String> = lines
        .iter()
        .map(|(name, text)| format!("  {:width$}{text}\n", format!("{name}:")))
        .collect();
    format!("{title}:\n{}", body.concat())
}

fn document(look: &Look) -> Value {
    json!({
        "subject": look.subject, "issuer": look.issuer, "names": look.names, "serialNumber": look.serial,
        "notBefore": moment(look.not_before), "notAfter": moment(look.not_after), "daysLeft": days_left(look),
        "key": look.key, "signature": look.signature, "isCA": look.is_ca,
        "sha256": look.sha256, "sha1": look.sha1,
    })
}
