//! `certwright import`: imports certificates of cert-manager or certbot, so that nothing is issued anew.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::apply::{Stream, entries, report};
use super::exit::Complaint;
use super::output::{note, now};
use super::remote::{Session, Within};
use crate::pki;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright import --issuer le /etc/letsencrypt/live                all of certbot's
  certwright import --issuer le --cert tls.crt --key tls.key --name www
  kubectl get secret,certificate -n web -o yaml | certwright import -f -

A certificate becomes revision 1 of a Certificate of this name, is ready at once, and is renewed when
its real lifetime says so. From Kubernetes, a Secret of the type kubernetes.io/tls goes to the
Certificate whose secretName it is. A Secret that an Issuer in the stream names as privateKeySecretRef
becomes the key of its ACME account, if it is ECDSA P-256; RSA keys, which cert-manager makes, cannot
be used here, and the service makes an account of its own then. Needs certificates:import.")]
pub(super) struct Import {
    /// Folders with fullchain.pem and privkey.pem, or folders of such folders
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Manifests: Secrets with their Certificates
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", conflicts_with_all = ["folders", "cert"])]
    files: Vec<PathBuf>,
    /// A certificate with its chain, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// What it is called [default: its folder, or its first DNS name]
    #[arg(long, value_name = "NAME", requires = "cert")]
    name: Option<String>,
    /// Who renews them
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// What the issuer is
    #[arg(long, value_name = "KIND", default_value = "ClusterIssuer", value_parser = ["Issuer", "ClusterIssuer"])]
    kind: String,
    /// Where they go
    #[command(flatten)]
    place: Within,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
}

impl Import {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.within(&self.place);
        let stream = if self.files.is_empty() { self.pairs()? } else { Stream::read(&self.files)? };
        let results = stream.send(session, "/import", &namespace, self.dry_run).await?;
        report(&results, false)
    }

    /// Manifests of certificates in PEM files.
    fn pairs(&self) -> anyhow::Result<Stream> {
        let Some(issuer) = &self.issuer else {
            return Err(Complaint::usage("say who renews them: --issuer NAME"));
        };
        let mut documents = Vec::new();
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            documents.extend(pair(cert, key, self.name.as_deref(), issuer, &self.kind)?);
        }
        for folder in &self.folders {
            for place in places(folder)? {
                let name = place.file_name().and_then(|name| name.to_str()).map(str::to_lowercase);
                let (cert, key) = (place.join("fullchain.pem"), place.join("privkey.pem"));
                match pair(&cert, &key, name.as_deref(), issuer, &self.kind) {
                    Ok(both) => documents.extend(both),
                    // An expired certificate must not prevent the import of the others.
                    Err(error) => note(&format!("left out: {error:#}")),
                }
            }
        }
        if documents.is_empty() {
            bail!(
                "there is nothing to import: give folders with fullchain.pem and privkey.pem, --cert and --key, or -f"
            );
        }
        let text: Vec<String> = documents.iter().map(Value::to_string).collect();
        Ok(Stream::of("import", &text.join("\n---\n")))
    }
}

/// Folders that hold a pair: the folder itself, or those in it.
fn places(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let holds = |folder: &Path| folder.join("fullchain.pem").exists();
    if holds(folder) {
        return Ok(vec![folder.to_owned()]);
    }
    let mut places = entries(folder)?;
    places.retain(|place| holds(place));
    if places.is_empty() {
        bail!("no folder in {} holds a fullchain.pem", folder.display());
    }
    Ok(places)
}

/// A Secret with the pair, and the Certificate that it is for.
fn pair(
    cert: &Path,
    key: &Path,
    name: Option<&str>,
    issuer: &str,
    kind: &str,
) -> anyhow::Result<[Value; 2]> {
    let read = |path: &Path| {
        let text = fs::read_to_string(path);
        text.map(Zeroizing::new).with_context(|| format!("{} cannot be read", path.display()))
    };
    let (chain, private) = (read(cert)?, read(key)?);
    // Parsed here as well, for the names and the kind of key.
    let adopted = pki::adopt(&chain, &private, now())
        .with_context(|| format!("{} cannot be imported", cert.display()))?;
    let first = adopted.names.first().map(String::as_str).unwrap_or_default();
    let name = name.map_or_else(|| first.replacen("*.", "wildcard.", 1), str::to_owned);
    let look = pki::look(
        pki::certificates(&adopted.chain)?.first().map(Vec::as_slice).unwrap_or_default(),
    )?;
    let (algorithm, size) = match look.key.split_once(' ') {
        Some(("RSA", size)) => ("RSA", size.parse::<u32>().ok()),
        _ => ("ECDSA", look.key.rsplit_once('-').and_then(|(_, size)| size.parse().ok())),
    };
    let secret_name = format!("{name}-tls");
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": secret_name},
        "data": {"tls.crt": STANDARD.encode(adopted.chain.as_bytes()), "tls.key": STANDARD.encode(private.as_bytes())},
    });
    let certificate = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": name},
        "spec": {
            "secretName": secret_name, "dnsNames": adopted.names,
            "issuerRef": {"name": issuer, "kind": kind},
            "privateKey": {"algorithm": algorithm, "size": size},
        },
    });
    Ok([secret, certificate])
}
