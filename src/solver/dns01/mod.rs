//! DNS-01: a TXT record that a provider writes (RFC 8555, section 8.4).

mod answers;
pub(in crate::solver) mod cloudflare;
#[cfg(feature = "failpoints")]
pub(in crate::solver) mod fuzzing;
mod gather;
mod pace;
pub(in crate::solver) mod propagation;
mod provider;
mod setback;

use std::sync::Arc;

use async_trait::async_trait;

use self::propagation::Dns;
pub use self::provider::{DnsProvider, Ours};
use super::{Readiness, Solver};
use crate::domain::challenge::{Observation, Proof, Record};
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::{self, CnameStrategy, Kind, PropagationMode};
use crate::domain::name::comparable;

/// Proves by TXT records.
///
/// The extra delay and the timeout of `propagation` are not looked at here: whoever schedules the
/// steps waits.
pub struct Dns01 {
    /// Writes the record.
    pub provider: Arc<dyn DnsProvider>,
    /// Asks for the record.
    pub dns: Arc<Dns>,
    /// Whose solver it is: a `ClusterIssuer`'s proves names of other people.
    pub kind: Kind,
    /// Where a record may be written, and which servers have to see it.
    pub config: issuer::Dns01,
}

impl Dns01 {
    /// The name at which the record stands.
    async fn place(&self, proof: &Proof) -> Result<String, Failure> {
        match self.config.cname_strategy {
            CnameStrategy::None => Ok(proof.txt_name()),
            CnameStrategy::Follow => self.dns.canonical(&proof.txt_name()).await,
        }
    }
}

#[async_trait]
impl Solver for Dns01 {
    async fn present(&self, proof: &Proof) -> Result<Option<Record>, Failure> {
        let name = self.place(proof).await?;
        if !self.config.may_delegate(self.kind, &proof.txt_name(), &name) {
            let from = proof.txt_name();
            let why = if self.config.cname_zones.is_empty() {
                "and the ClusterIssuer's solver names no `cnameZones` to follow CNAMEs into"
            } else {
                "which is in none of the solver's `cnameZones`"
            };
            let detail = format!("{from} leads to {name}, {why}.");
            return Err(Failure::of(code::DNS_CNAME_OUTSIDE, detail));
        }
        // The name that was judged is written at: a CNAME that changes now leads nowhere else.
        self.provider.create(&name, &proof.txt_value(), proof.challenge).await.map(Some)
    }

    async fn is_ready(&self, proof: &Proof, record: Option<&Record>) -> Result<Readiness, Failure> {
        if self.config.propagation.mode == PropagationMode::None {
            return Ok(Readiness::Ready);
        }
        // CAs follow CNAMEs whatever the strategy, so the look does too.
        let name = match self.dns.canonical(&proof.txt_name()).await {
            Ok(name) => name,
            Err(failure) => return Ok(Readiness::unknown(failure.to_string())),
        };
        let seen =
            self.dns.look_for_txt(&name, &proof.txt_value(), self.config.propagation.mode).await;
        match (seen, record) {
            (Readiness::NotYet { mut observed }, Some(record))
                if comparable(&record.name) != name =>
            {
                let elsewhere = format!(
                    "the record stands at {}, but {} leads to {name}",
                    record.name,
                    proof.txt_name()
                );
                observed.insert(0, Observation::missing("", elsewhere));
                Ok(Readiness::NotYet { observed })
            }
            (seen, _) => Ok(seen),
        }
    }

    async fn clean_up(&self, proof: &Proof, record: Option<&Record>) -> Result<(), Failure> {
        if let Some(record) = record {
            return self.provider.delete(record).await;
        }
        let name = self.place(proof).await?;
        if !self.config.may_delegate(self.kind, &proof.txt_name(), &name) {
            return Ok(());
        }
        self.provider.delete_by_value(&name, &proof.txt_value()).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::domain::id::ChallengeId;
    use crate::outbound::{Allow, Guard};

    /// A provider that writes down what is asked of it.
    #[derive(Default)]
    struct Scripted(Mutex<Vec<String>>);

    impl Scripted {
        fn note(&self, call: String) {
            self.0.lock().unwrap().push(call);
        }
    }

    #[async_trait]
    impl DnsProvider for Scripted {
        async fn create(
            &self,
            name: &str,
            value: &str,
            _challenge: ChallengeId,
        ) -> Result<Record, Failure> {
            self.note(format!("create {name} {value}"));
            let (zone, id) = ("zone".to_owned(), "1".to_owned());
            Ok(Record { name: name.to_owned(), value: value.to_owned(), zone, id })
        }

        async fn delete(&self, record: &Record) -> Result<(), Failure> {
            self.note(format!("delete {} {}", record.zone, record.id));
            Ok(())
        }

        async fn delete_by_value(&self, name: &str, value: &str) -> Result<(), Failure> {
            self.note(format!("delete {name} {value}"));
            Ok(())
        }

        async fn zones(&self) -> Result<Vec<String>, Failure> {
            Ok(Vec::new())
        }

        async fn ours(&self, _zone: &str) -> Result<Vec<Ours>, Failure> {
            Ok(Vec::new())
        }
    }

    #[tokio::test]
    async fn a_proof_is_taken_away_by_its_record_or_without_one_by_name_and_value() {
        let provider = Arc::new(Scripted::default());
        let guard = Guard::asking(&["127.0.0.1:0".parse().unwrap()], Allow::default()).unwrap();
        let solver = Dns01 {
            provider: Arc::clone(&provider) as Arc<dyn DnsProvider>,
            dns: Arc::new(Dns::new(&["127.0.0.1:0".parse().unwrap()], 9, guard).unwrap()),
            kind: Kind::ClusterIssuer,
            config: serde_json::from_str(r#"{"propagation": {"mode": "none"}}"#).unwrap(),
        };
        let proof = Proof {
            challenge: ChallengeId(uuid::Uuid::nil()),
            domain: "example.org".to_owned(),
            token: "t".to_owned(),
            key_authorization: "t.k".to_owned(),
        };

        let record = solver.present(&proof).await.unwrap();
        assert_eq!(solver.is_ready(&proof, record.as_ref()).await.unwrap(), Readiness::Ready);
        solver.clean_up(&proof, record.as_ref()).await.unwrap();
        solver.clean_up(&proof, None).await.unwrap();

        let (name, value) = ("_acme-challenge.example.org", proof.txt_value());
        let expected = [
            format!("create {name} {value}"),
            "delete zone 1".to_owned(),
            format!("delete {name} {value}"),
        ];
        assert_eq!(*provider.0.lock().unwrap(), expected);
    }
}
