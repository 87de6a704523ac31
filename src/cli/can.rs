//! `certwright can`: asks the policies whether a certificate would be allowed, and by which rule.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::output::{print, text};
use super::remote::{Session, Within};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright can api.payments.example.com --issuer letsencrypt -n payments
  certwright can '*.payments.example.com' payments.example.com --issuer letsencrypt -n payments
  certwright can 192.0.2.7 --issuer internal --kind Issuer --key-algorithm RSA --key-size 3072

All NAMEs are meant for one certificate. The exit status is 0 if one policy allows it, and 1 if none does. A key
that is bound to no namespace may create it all the same.")]
pub(super) struct Can {
    /// DNS names and IP addresses
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Who would issue it
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// What the issuer is
    #[arg(long, value_name = "KIND", default_value = "ClusterIssuer", value_parser = ["Issuer", "ClusterIssuer"])]
    kind: String,
    /// The key's algorithm
    #[arg(long, value_name = "ALGORITHM", default_value = "ECDSA", value_parser = ["ECDSA", "RSA"])]
    key_algorithm: String,
    /// The key's size in bits [default: 256 for ECDSA, 2048 for RSA]
    #[arg(long, value_name = "BITS")]
    key_size: Option<u32>,
    #[command(flatten)]
    place: Within,
}

impl Can {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.within(&self.place);
        let (addresses, names): (Vec<_>, Vec<_>) =
            self.names.iter().partition(|name| name.parse::<std::net::IpAddr>().is_ok());
        let question = json!({
            "namespace": namespace, "dnsNames": names, "ipAddresses": addresses,
            "issuerRef": {"name": self.issuer, "kind": self.kind},
            "privateKey": {"algorithm": self.key_algorithm, "size": self.key_size},
        });
        let answer = session.client.post("/policies/evaluate", &question).await?;
        let is_allowed = answer["allowed"] == true;
        let lines =
            answer["names"].as_array().into_iter().flatten().map(|name| line(name, is_allowed));
        print(&lines.collect::<String>())?;
        if !is_allowed {
            bail!("no policy allows the namespace `{namespace}` this certificate");
        }
        Ok(())
    }
}

/// A line about one name.
fn line(name: &Value, is_allowed: bool) -> String {
    let (shown, policy, reason) =
        (text(name, "/name"), text(name, "/policy"), text(name, "/reason"));
    if is_allowed {
        format!("yes  {shown} is allowed by the policy `{policy}`\n")
    } else {
        format!("no   {shown} {reason}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_a_line_with_the_rule_or_the_reason() {
        let allowed = json!({"name": "a.test", "allowed": true, "policy": "team", "reason": null});
        let refused =
            json!({"name": "b.test", "allowed": false, "policy": null, "reason": "is not allowed"});

        assert_eq!(line(&allowed, true), "yes  a.test is allowed by the policy `team`\n");
        assert_eq!(line(&refused, false), "no   b.test is not allowed\n");
    }
}
