//! The certificates of the HTTPS listener: its own, those of the CAs of its clients, where they come from, and how newer
//! ones are noticed.
//!
//! Files are read again, and the database is asked again, every five seconds: neither tells when it has changed on all
//! systems and through all mounts, and both are cheap to look at.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::{CertificateSource, Https};
use crate::pki;
use crate::secret::{Sealer, Secret};
use crate::server::{Identity, Tls};
use crate::storage::requests::private_key_place;
use crate::storage::{Db, certificates, revisions};

mod client_cas;

use client_cas::ClientCaFile;

const PERIOD: Duration = Duration::from_secs(5);

/// Looks at the source of the certificate and at the CAs of clients, and has the listener use what is new.
pub struct ServerCertificate {
    source: Source,
    client_cas: Option<ClientCaFile>,
    tls: Tls,
    /// Why the last look found nothing to show.
    trouble: Option<String>,
}

enum Source {
    Files {
        chain: PathBuf,
        key: PathBuf,
        /// The bytes that are shown.
        shown: Pair,
    },
    Issued {
        place: Place,
        /// The revision that is shown.
        shown: Option<i64>,
    },
}

/// A chain and its key, PEM.
struct Pair {
    chain: Vec<u8>,
    key: Secret<Vec<u8>>,
}

/// Where a certificate of this service is stored.
struct Place {
    namespace: String,
    name: String,
    db: Db,
    sealer: Arc<Sealer>,
}

impl ServerCertificate {
    /// Reads the files, which must be there; a certificate of this service need not be: until then a self-signed one is
    /// shown.
    pub async fn open(https: &Https, db: &Db, sealer: &Arc<Sealer>) -> anyhow::Result<Self> {
        let mut this = Self::open_own(https, db, sealer).await?;
        if let Some(client_auth) = &https.client_auth {
            this.client_cas = Some(ClientCaFile::open(&client_auth.ca_file, &this.tls).await?);
        }
        Ok(this)
    }

    async fn open_own(https: &Https, db: &Db, sealer: &Arc<Sealer>) -> anyhow::Result<Self> {
        match &https.certificate {
            CertificateSource::Files { chain, key } => {
                let pair = Pair::read(chain, key).await?;
                let tls = Tls::new(pair.identity(chain)?)?;
                let (chain, key) = (chain.clone(), key.clone());
                let source = Source::Files { chain, key, shown: pair };
                Ok(Self { source, client_cas: None, tls, trouble: None })
            }
            CertificateSource::Issued { namespace, name } => {
                let place = Place {
                    namespace: namespace.clone(),
                    name: name.clone(),
                    db: db.clone(),
                    sealer: Arc::clone(sealer),
                };
                let tls = Tls::new(self_signed(https.listen.ip())?)?;
                let source = Source::Issued { place, shown: None };
                let mut this = Self { source, client_cas: None, tls, trouble: None };
                this.refresh().await;
                Ok(this)
            }
        }
    }

    /// What the listener shows.
    pub fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Looks again and again, until `stop`.
    pub async fn follow(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.refresh().await,
            }
        }
    }

    /// Looks once; what is new, or goes wrong in another way than before, is told in the log.
    pub async fn refresh(&mut self) {
        self.refresh_own().await;
        if let Some(client_cas) = &mut self.client_cas {
            client_cas.refresh(&self.tls).await;
        }
    }

    async fn refresh_own(&mut self) {
        match self.look().await {
            Ok(is_new) => {
                self.trouble = None;
                if is_new {
                    tracing::info!(source = %self.source, "the HTTPS listener shows another certificate");
                }
            }
            Err(error) => {
                let error = format!("{error:#}");
                if self.trouble.as_ref() != Some(&error) {
                    tracing::warn!(source = %self.source, error, "the HTTPS listener goes on with the certificate that it has");
                    self.trouble = Some(error);
                }
            }
        }
    }

    /// Whether there was another certificate, which is shown from now on.
    async fn look(&mut self) -> anyhow::Result<bool> {
        match &mut self.source {
            Source::Files { chain, key, shown } => {
                let pair = Pair::read(chain, key).await?;
                if pair.is_same_as(shown) {
                    return Ok(false);
                }
                self.tls.show(pair.identity(chain)?);
                *shown = pair;
            }
            Source::Issued { place, shown } => {
                let Some((revision, identity)) = place.newer_than(*shown).await? else {
                    return Ok(false);
                };
                self.tls.show(identity);
                *shown = Some(revision);
            }
        }
        Ok(true)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files { chain, .. } => write!(f, "{}", chain.display()),
            Self::Issued { place, .. } => {
                write!(f, "certificate {}/{}", place.namespace, place.name)
            }
        }
    }
}

impl Pair {
    async fn read(chain: &Path, key: &Path) -> anyhow::Result<Self> {
        Ok(Self { chain: read(chain).await?, key: Secret::new(read(key).await?) })
    }

    fn is_same_as(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key.expose() == other.key.expose()
    }

    fn identity(&self, path: &Path) -> anyhow::Result<Identity> {
        Identity::from_pem(&self.chain, self.key.expose())
            .with_context(|| path.display().to_string())
    }
}

impl Place {
    /// The current revision and what to show of it, unless it is shown already or there is none yet.
    async fn newer_than(&self, shown: Option<i64>) -> anyhow::Result<Option<(i64, Identity)>> {
        let mut read = self.db.read().await?;
        let found = certificates::find_by_name(&mut read, &self.namespace, &self.name).await?;
        let Some((certificate, _)) = found else {
            anyhow::bail!("there is no certificate {}/{}", self.namespace, self.name);
        };
        let current = certificate.current.map(|issued| issued.revision);
        let Some(number) = current.filter(|number| shown != Some(*number)) else { return Ok(None) };
        let revision = revisions::find(&mut read, certificate.id, number).await?;
        let key = revisions::private_key(&mut read, certificate.id, number).await?;
        let Some((revision, (key, request))) = revision.zip(key) else { return Ok(None) };
        let sealed = key.context("it was issued for a CSR: its key is not here")?;
        let place = private_key_place(&certificate.namespace, certificate.id, request);
        let der = self.sealer.open(&place, &sealed)?;
        let key = Secret::new(pki::to_pem("PRIVATE KEY", der.expose()));
        let identity = Identity::from_pem(revision.chain.as_bytes(), key.expose().as_bytes())?;
        Ok(Some((number, identity)))
    }
}

async fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    tokio::fs::read(path).await.with_context(|| format!("{} cannot be read", path.display()))
}

fn self_signed(listen: IpAddr) -> anyhow::Result<Identity> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    if !listen.is_unspecified() && !listen.is_loopback() {
        names.push(listen.to_string());
    }
    let (chain, key) = pki::self_signed(&names)?;
    Ok(Identity::from_pem(chain.as_bytes(), key.expose().as_bytes())?)
}
