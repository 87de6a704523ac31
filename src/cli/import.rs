//! `certwright import`: imports certificates that others obtained, so that nothing is issued anew.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use super::apply::{left_out, report};
use super::exit::{Complaint, is_missing};
use super::output::{Colour, note, paint, print};
use super::pairs::{self, Files, Pair};
use super::remote::{Session, Within};
use super::stream::{How, Stream};
use crate::manifest::kind::Kind;

/// Bytes of manifests that are sent at once, short of the server's limit by more than one pair.
const MOST_AT_ONCE: usize = 512 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright import --issuer le /etc/letsencrypt/live                all of certbot's
  certwright import --issuer le ~/.acme.sh                           all of acme.sh's
  certwright import --issuer le ~/.lego/certificates                 all of lego's
  certwright import --issuer le ~/.local/share/caddy/certificates    all of Caddy's
  certwright import --issuer le --cert tls.crt --key tls.key --name www
  kubectl get secret,certificate -n web -o yaml | certwright import -f -

A certificate becomes revision 1 of a Certificate of this name, is ready at once, and is renewed when
its real lifetime says so. From Kubernetes, a Secret of the type kubernetes.io/tls goes to the
Certificate whose secretName it is. A Secret that an Issuer in the stream names as privateKeySecretRef
becomes the key of its ACME account, if it is ECDSA P-256; RSA keys, which cert-manager makes, cannot
be used here, and the service makes an account of its own then.

What can be imported is imported; the rest is named with the reason, and the exit status is 1. What was
imported before is unchanged, also when the service has renewed it since. Needs certificates:import.")]
pub(super) struct Import {
    /// Folders of certbot, acme.sh, lego or Caddy, or of folders with tls.crt and tls.key
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
    /// With -f: all or nothing
    #[arg(long, requires = "files")]
    strict: bool,
}

impl Import {
    pub(super) async fn run(self, session: &Session) -> anyhow::Result<()> {
        let namespace = session.within(&self.place);
        let left_out = if self.files.is_empty() {
            self.pairs(session, &namespace).await?
        } else {
            let stream = Stream::read(&self.files)?;
            self.send(session, &namespace, &stream).await?
        };
        match left_out {
            0 => Ok(()),
            1 => bail!("1 thing was left out; the rest was imported"),
            several => bail!("{several} things were left out; the rest was imported"),
        }
    }

    /// Sends manifests; returns how many of them were left out.
    async fn send(
        &self,
        session: &Session,
        namespace: &str,
        stream: &Stream,
    ) -> anyhow::Result<usize> {
        let how = How { dry_run: self.dry_run, strict: self.strict };
        let results = stream.send(session, "/import", namespace, how).await?;
        report(&results, false)?;
        Ok(left_out(&results, stream, false))
    }

    /// Imports certificates in PEM files; returns how many of them were left out.
    async fn pairs(&self, session: &Session, namespace: &str) -> anyhow::Result<usize> {
        let Some(issuer) = &self.issuer else {
            return Err(Complaint::usage("say who renews them: --issuer NAME"));
        };
        let mut all = Vec::new();
        if let (Some(cert), Some(key)) = (self.cert.clone(), self.key.clone()) {
            all.push(Files { name: self.name.clone(), cert, key });
        }
        for folder in &self.folders {
            all.extend(pairs::find(folder)?);
        }
        if all.is_empty() {
            let problem = "say what: a folder, --cert and --key, or -f FILE";
            return Err(Complaint::usage(problem));
        }
        let (mut stream, mut left_out) = (Stream::default(), 0);
        let mut known = BTreeSet::new();
        for files in &all {
            let pair = match Pair::read(files, (&self.kind, issuer)) {
                Ok(pair) => self.is_new(session, namespace, &pair, &mut known).await,
                Err(error) => Err(error),
            };
            match pair {
                Ok(Some(manifests)) => {
                    stream.push_made(&files.cert.display().to_string(), &manifests);
                }
                Ok(None) => {}
                // It must not prevent the import of the others.
                Err(error) => {
                    left_out += 1;
                    note(&format!("{} left out: {error:#}", paint(Colour::Red, "error:")));
                }
            }
            if stream.len() > MOST_AT_ONCE {
                left_out += self.send(session, namespace, &std::mem::take(&mut stream)).await?;
            }
        }
        if stream.len() > 0 {
            left_out += self.send(session, namespace, &stream).await?;
        }
        Ok(left_out)
    }

    /// The manifests of a pair, unless the service has a certificate of this name for the same names. That one is not
    /// touched: it may have been changed and renewed since it was imported.
    async fn is_new(
        &self,
        session: &Session,
        namespace: &str,
        pair: &Pair,
        known: &mut BTreeSet<String>,
    ) -> anyhow::Result<Option<String>> {
        let name = &pair.name;
        if !known.insert(name.clone()) {
            bail!("another one of these is called `{name}`; import it by itself, with --name");
        }
        let found = match session.find(Kind::Certificate, Some(namespace), name).await {
            Err(error) if is_missing(&error) => None,
            found => Some(found?),
        };
        let Some(found) = found.filter(|found| found["status"]["revision"] != 0) else {
            return Ok(Some(pair.manifests()));
        };
        let names =
            ["dnsNames", "ipAddresses"].into_iter().filter_map(|field| found[field].as_array());
        let names: BTreeSet<&str> = names.flatten().filter_map(Value::as_str).collect();
        if !names.iter().copied().eq(pair.names.iter().map(String::as_str)) {
            let names = names.into_iter().collect::<Vec<_>>().join(", ");
            bail!(
                "there is a certificate `{name}` for {names} already; import this one with --name"
            );
        }
        print(&format!("{}/{name} unchanged\n", Kind::Certificate.full()))?;
        Ok(None)
    }
}
