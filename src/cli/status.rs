//! `certwright status certificate`: cmctl's view of one certificate, and why it waits.

use clap::Subcommand;
use serde_json::Value;

use super::events;
use super::issue::trouble;
use super::output::{print, text};
use super::remote::{Session, Within};
use crate::client::{Ask, ClientError};
use crate::manifest::kind::Kind;
use crate::pki;

#[derive(Debug, Subcommand)]
pub(super) enum Status {
    /// One certificate, with its issuer, request, order and challenges, and what it waits for
    #[command(
        visible_alias = "cert",
        after_help = "Examples:
  certwright status certificate www
  certwright status certificate www -n team"
    )]
    Certificate {
        /// Its name
        name: String,
        #[command(flatten)]
        place: Within,
    },
}

impl Status {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let Self::Certificate { name, place } = self;
        let namespace = session.within(&place);
        let certificate = session.find(Kind::Certificate, Some(&namespace), &name).await?;
        print(&report(session, &certificate).await?)
    }
}

async fn report(session: &Session, certificate: &Value) -> anyhow::Result<String> {
    let id = text(certificate, "/id");
    let mut out = format!(
        "Name: {}\nNamespace: {}\nCreated at: {}\n",
        text(certificate, "/name"),
        text(certificate, "/namespace"),
        text(certificate, "/createdAt"),
    );
    out.push_str(&conditions(certificate, ""));
    out.push_str("DNS Names:\n");
    for name in certificate.get("dnsNames").and_then(Value::as_array).into_iter().flatten() {
        out.extend([format!("- {}\n", name.as_str().unwrap_or_default())]);
    }
    let own = events::of(session, Kind::Certificate, certificate).await?;
    out.push_str(&events::section(&own, ""));
    out.push_str(&issuer(session, certificate).await?);
    out.push_str(&served(session, &id).await?);
    for (title, place) in
        [("Not Before", "notBefore"), ("Not After", "notAfter"), ("Renewal Time", "renewalTime")]
    {
        let moment = text(certificate, &format!("/status/{place}"));
        let moment = if moment.is_empty() { "<none>" } else { &moment };
        out.extend([format!("{title}: {moment}\n")]);
    }
    out.push_str(&attempt(session, &id).await?);
    let next = text(certificate, "/status/nextAttemptAt");
    if !next.is_empty() {
        out.extend([format!("Next Attempt: {next}\n")]);
    }
    out.push_str(&explanation(session, &id).await?);
    Ok(out)
}

fn conditions(resource: &Value, indent: &str) -> String {
    let all = resource.pointer("/status/conditions").or_else(|| resource.get("conditions"));
    let mut out = format!("{indent}Conditions:\n");
    for one in all.and_then(Value::as_array).into_iter().flatten() {
        out.extend([format!(
            "{indent}  {}: {}, Reason: {}, Message: {}\n",
            text(one, "/type"),
            text(one, "/status"),
            text(one, "/reason"),
            text(one, "/message"),
        )]);
    }
    out
}

async fn issuer(session: &Session, certificate: &Value) -> anyhow::Result<String> {
    let (name, word) = (text(certificate, "/issuerRef/name"), text(certificate, "/issuerRef/kind"));
    let kind = if word == "ClusterIssuer" { Kind::ClusterIssuer } else { Kind::Issuer };
    let namespace = text(certificate, "/namespace");
    let found = session.list(kind, Some(&namespace), &[("name", &name)]).await?;
    let Some(found) = found.first() else {
        return Ok(format!("Issuer:\n  Name: {name}\n  Kind: {word}\n  It does not exist.\n"));
    };
    let events = events::of(session, kind, found).await?;
    Ok(format!(
        "Issuer:\n  Name: {name}\n  Kind: {word}\n{}{}",
        conditions(found, "  "),
        events::section(&events, "  ")
    ))
}

/// The part that cmctl reads from the Secret.
async fn served(session: &Session, id: &str) -> anyhow::Result<String> {
    let path = format!("/certificates/{id}/cert.pem");
    let pem = match session.client.bytes(Ask::get(&path)).await {
        Ok(pem) => pem,
        Err(ClientError::Refused(problem)) if problem.status == 404 => {
            return Ok("Issued Certificate: <none>\n".to_owned());
        }
        Err(error) => return Err(error.into()),
    };
    let ders = pki::certificates(&String::from_utf8_lossy(&pem))?;
    let look = pki::look(ders.first().map(Vec::as_slice).unwrap_or_default())?;
    Ok(format!(
        "Issued Certificate:\n  Issuer Country: {}\n  Issuer Organisation: {}\n  Issuer Common Name: {}\n  \
         Key Usage: {}\n  Extended Key Usages: {}\n  Public Key Algorithm: {}\n  Signature Algorithm: {}\n  \
         Subject Key ID: {}\n  Authority Key ID: {}\n  Serial Number: {}\n",
        look.issuer_country,
        look.issuer_organisation,
        look.issuer_common_name,
        look.key_usage,
        look.extended_key_usage,
        look.key,
        look.signature,
        look.subject_key_id,
        look.authority_key_id,
        look.serial,
    ))
}

/// The newest request, with its order and challenges.
async fn attempt(session: &Session, id: &str) -> anyhow::Result<String> {
    let requests = session.list(Kind::Request, None, &[("certificate", id)]).await?;
    let Some(request) = requests.last() else {
        return Ok("CertificateRequest: <none>\n".to_owned());
    };
    let events = events::of(session, Kind::Request, request).await?;
    let mut out = format!(
        "CertificateRequest:\n  Name: {}\n  Namespace: {}\n{}{}",
        text(request, "/name"),
        text(request, "/namespace"),
        conditions(request, "  "),
        events::section(&events, "  ")
    );
    let path = text(request, "/order");
    if path.is_empty() {
        return Ok(out);
    }
    let order = session.client.get(&path, &[]).await?;
    let reason = trouble(order.get("lastError"));
    out.extend([format!(
        "Order:\n  Name: {}\n  State: {}, Reason: {reason}\n  URL: {}\n",
        text(&order, "/name"),
        text(&order, "/state"),
        text(&order, "/url"),
    )]);
    let events = events::of(session, Kind::Order, &order).await?;
    out.push_str(&events::section(&events, "  "));
    let challenges = order.get("challenges").and_then(Value::as_array);
    for (place, one) in challenges.into_iter().flatten().enumerate() {
        if place == 0 {
            out.push_str("Challenges:\n");
        }
        out.extend([format!(
            "- Name: {}, Type: {}, Domain: {}, State: {}, Reason: {}, Processing: {}, Presented: {}\n",
            text(one, "/name"),
            text(one, "/type").to_uppercase(),
            text(one, "/dnsName"),
            text(one, "/state"),
            text(one, "/reason"),
            text(one, "/state") == "processing",
            text(one, "/presented"),
        )]);
    }
    Ok(out)
}

/// The server's explanation of its state.
async fn explanation(session: &Session, id: &str) -> anyhow::Result<String> {
    let path = format!("/certificates/{id}/explain");
    let ask = Ask { headers: &[("accept", "text/plain")], ..Ask::get(&path) };
    let explained = match session.client.bytes(ask).await {
        Ok(explained) => String::from_utf8_lossy(&explained).into_owned(),
        Err(ClientError::Refused(problem)) if problem.status == 404 => return Ok(String::new()),
        Err(error) => return Err(error.into()),
    };
    let mut out = "Explanation:\n".to_owned();
    for line in super::words::own(&explained).lines() {
        out.extend([format!("  {line}\n")]);
    }
    Ok(out)
}
