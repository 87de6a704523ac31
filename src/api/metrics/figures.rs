//! What the database knows, as gauges.

use time::OffsetDateTime;

use crate::api::AppState;
use crate::domain::issuer::{Issuer, State};
use crate::storage::figures::{self, Due, Ending, Held, InState};
use crate::storage::{Load, Page, Scope, StorageError, deliveries, issuers, rate_limits};
use crate::telemetry::metrics::Gauges;
use crate::telemetry::metrics::issuance;

/// Issuers with gauges of their own.
const ISSUERS: u32 = 100;

/// Figures of the whole database.
pub(super) struct Figures {
    certificates: Vec<InState>,
    trying_again: u64,
    expiring: Vec<(String, u64)>,
    /// The soonest first.
    ending: Vec<Ending>,
    /// How many of them are shown by name.
    named: usize,
    queues: Vec<Due>,
    throttles: Vec<Held>,
    webhooks: Vec<(String, u64)>,
    deliveries: u64,
    issuers: Vec<(Issuer, Vec<rate_limits::Spent>)>,
}

impl Figures {
    pub(super) async fn read(app: &AppState, named: u32) -> Result<Self, StorageError> {
        let now = app.now();
        let mut read = app.db.read().await?;
        let certificates = figures::certificates(&mut read, now).await?;
        let trying_again = figures::trying_again(&mut read, now).await?;
        let expiring = figures::expiring(&mut read).await?;
        let ending = figures::ending(&mut read, now, named.max(1)).await?;
        let queues = figures::queues(&mut read, now).await?;
        let throttles = figures::throttles(&mut read, now).await?;
        let webhooks = figures::webhooks(&mut read).await?;
        let deliveries = deliveries::open(&mut read).await?;
        let wanted = issuers::Wanted::default();
        let known =
            issuers::list(&mut read, &Scope::Everything, &wanted, Page::first(ISSUERS)).await?.rows;
        let mut issuers = Vec::with_capacity(known.len());
        for issuer in known {
            let spent = rate_limits::spent(&mut read, &issuer, now).await?;
            issuers.push((issuer, spent));
        }
        let named = named as usize;
        Ok(Self {
            certificates,
            trying_again,
            expiring,
            ending,
            named,
            queues,
            throttles,
            webhooks,
            deliveries,
            issuers,
        })
    }
}

/// The gauges of a scrape; without figures where the database did not answer.
pub(super) fn gauges(figures: Option<&Figures>, load: &Load, now: OffsetDateTime) -> Gauges {
    let gauges = Gauges::default();
    let up = if figures.is_some() { 1.0 } else { 0.0 };
    gauges.set_one("certwright_database_up", "Whether the database answered this scrape.", up);
    add_load(&gauges, load);
    let Some(figures) = figures else { return gauges };
    add_certificates(&gauges, figures, now);
    add_queues(&gauges, figures, now);
    add_limits(&gauges, figures, now);
    let issuers = figures.issuers.iter().map(|(issuer, _)| (issuer, issuer.state == State::Ready));
    let ready: Vec<_> =
        issuers.map(|(issuer, ready)| (name(issuer), f64::from(u8::from(ready)))).collect();
    for ((kind, name), _) in &ready {
        issuance::expect(kind, name);
    }
    gauges.set(
        "certwright_issuer_ready",
        "Whether the issuer's account is registered.",
        &["kind", "issuer"],
        ready.iter().map(|((kind, name), ready)| (vec![*kind, name.as_str()], *ready)),
    );
    let webhooks = figures.webhooks.iter();
    gauges.set(
        "certwright_webhooks",
        "Webhooks: well, not_answering, or disabled (client, gone, failing).",
        &["state"],
        webhooks.map(|(state, count)| (vec![state.as_str()], float(*count))),
    );
    gauges.set_one(
        "certwright_webhook_deliveries_open",
        "Deliveries that wait to be sent, counted up to 10000.",
        float(figures.deliveries),
    );
    gauges
}

/// The phases of the API, in the order of a certificate's life. A revoked one counts as what it waits for.
fn phases(certificates: &[InState]) -> [(&'static str, u64); 6] {
    let (mut issuing, mut ready, mut renewing) = (0, 0, 0);
    let (mut failed, mut blocked, mut expired) = (0, 0, 0);
    for InState { state, unissued, ended, served, .. } in certificates {
        match state.as_str() {
            "backoff" => failed += unissued + ended + served,
            "blocked" => blocked += unissued + ended + served,
            state => {
                issuing += unissued;
                expired += ended;
                *(if state == "idle" { &mut ready } else { &mut renewing }) += served;
            }
        }
    }
    [
        ("Issuing", issuing),
        ("Ready", ready),
        ("Renewing", renewing),
        ("Failed", failed),
        ("Blocked", blocked),
        ("Expired", expired),
    ]
}

/// Certificates that are served, and whose renewal waits after a failure, or for a person.
fn failing_renewals(certificates: &[InState]) -> u64 {
    let failing = |one: &&InState| matches!(one.state.as_str(), "backoff" | "blocked");
    certificates.iter().filter(failing).map(|one| one.served).sum()
}

fn add_certificates(gauges: &Gauges, figures: &Figures, now: OffsetDateTime) {
    gauges.set(
        "certwright_certificates",
        "Certificates by phase.",
        &["phase"],
        phases(&figures.certificates).map(|(phase, count)| (vec![phase], float(count))),
    );
    gauges.set_one(
        "certwright_certificates_renewal_failing",
        "Certificates that are served, and whose renewal has failed or is blocked.",
        float(failing_renewals(&figures.certificates) + figures.trying_again),
    );
    gauges.set(
        "certwright_certificates_expiring",
        "Certificates that are served and were not renewed in time, by what is left of their life (third, sixth, twentieth).",
        &["stage"],
        ["third", "sixth", "twentieth"].map(|stage| {
            let count = figures.expiring.iter().find(|known| known.0 == stage);
            (vec![stage], float(count.map_or(0, |known| known.1)))
        }),
    );
    let unissued = figures::unissued_since(&figures.certificates);
    gauges.set_one(
        "certwright_certificate_unissued_oldest_seconds",
        "How long ago the first certificate was asked for that was never issued and waits for no person; 0: none.",
        unissued.map_or(0.0, |since| (now - since).as_seconds_f64().max(0.0)),
    );
    gauges.set_one(
        "certwright_certificates_ended",
        "Certificates whose validity is over, whatever their phase.",
        float(figures.certificates.iter().map(|one| one.ended).sum()),
    );
    if let Some(soonest) = figures.ending.first() {
        gauges.set_one(
            "certwright_certificate_soonest_end_timestamp_seconds",
            "The next end of a served certificate.",
            timestamp(soonest.not_after),
        );
    }
    if figures.named > 0 {
        let named = figures.ending.iter().take(figures.named);
        gauges.set(
            "certwright_certificate_expiration_timestamp_seconds",
            "The ends of the certificates that end next, as many as `metrics.certificates` says.",
            &["namespace", "name"],
            named.map(|one| (vec![one.namespace.as_str(), &one.name], timestamp(one.not_after))),
        );
    }
}

fn add_queues(gauges: &Gauges, figures: &Figures, now: OffsetDateTime) {
    gauges.set(
        "certwright_queue_due",
        "Rows that are due and that nobody works on, counted up to 10000.",
        &["queue"],
        figures.queues.iter().map(|due| (vec![due.queue.as_str()], float(due.rows))),
    );
    let age = |due: &Due| due.since.map_or(0.0, |since| (now - since).as_seconds_f64().max(0.0));
    gauges.set(
        "certwright_queue_oldest_due_seconds",
        "How long the oldest of them has been due.",
        &["queue"],
        figures.queues.iter().map(|due| (vec![due.queue.as_str()], age(due))),
    );
}

fn add_limits(gauges: &Gauges, figures: &Figures, now: OffsetDateTime) {
    let throttles = figures.throttles.iter();
    gauges.set(
        "certwright_throttles",
        "What a CA asked not to be asked for now, by scope (endpoint, account, domain, set, name).",
        &["scope"],
        throttles.clone().map(|held| (vec![held.scope.as_str()], float(held.count))),
    );
    gauges.set(
        "certwright_throttle_longest_seconds",
        "How much longer the longest of them holds.",
        &["scope"],
        throttles.map(|held| (vec![held.scope.as_str()], (held.until - now).as_seconds_f64())),
    );
    let mut left = Vec::new();
    for (issuer, spent) in &figures.issuers {
        let (kind, issuer) = name(issuer);
        let of = |(limit, rate, until): &rate_limits::Spent| (*limit, rate.remaining(*until, now));
        left.extend(spent.iter().map(of).map(|(limit, left)| (kind, issuer.clone(), limit, left)));
    }
    gauges.set(
        "certwright_budget_remaining_ratio",
        "What is left of a limit that the issuer keeps to: 1 all, 0 nothing; of several domains, sets or names the fullest.",
        &["kind", "issuer", "limit"],
        left.iter().map(|(kind, issuer, limit, left)| (vec![*kind, issuer.as_str(), *limit], *left)),
    );
}

fn add_load(gauges: &Gauges, load: &Load) {
    for (name, help, value) in [
        (
            "certwright_database_connections_in_use",
            "Connections that are in use; on SQLite those for reading.",
            load.connections_used,
        ),
        (
            "certwright_database_connections_max",
            "Connections that may be in use.",
            load.connections_most,
        ),
    ] {
        gauges.set_one(name, help, float(value as u64));
    }
    let Some(disk) = load.disk else { return };
    for (name, help, value) in [
        ("certwright_database_size_bytes", "Size of SQLite's file.", disk.database),
        ("certwright_database_wal_size_bytes", "Size of SQLite's write-ahead log.", disk.wal),
        (
            "certwright_database_disk_free_bytes",
            "Space that is left on the disk of SQLite's file.",
            disk.free,
        ),
    ] {
        gauges.set_one(name, help, float(value));
    }
}

fn name(issuer: &Issuer) -> (&'static str, String) {
    let (kind, namespace, name) = (issuer.kind.as_str(), &*issuer.namespace, &*issuer.name);
    (kind, issuance::Issuer { kind, namespace, name }.label())
}

fn timestamp(at: OffsetDateTime) -> f64 {
    float(u64::try_from(at.unix_timestamp()).unwrap_or_default())
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are floats")]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_counts_in_one_phase() {
        let state = |state: &str, unissued, ended, served| InState {
            state: state.to_owned(),
            unissued,
            unissued_since: None,
            ended,
            served,
        };
        let certificates = [
            state("idle", 0, 1, 100),
            state("triggered", 2, 0, 3),
            state("ordering", 4, 1, 5),
            state("awaiting_issuer", 6, 0, 0),
            state("backoff", 7, 1, 8),
            state("blocked", 9, 0, 10),
        ];

        let phases = phases(&certificates);

        let expected = [
            ("Issuing", 12),
            ("Ready", 100),
            ("Renewing", 8),
            ("Failed", 16),
            ("Blocked", 19),
            ("Expired", 2),
        ];
        assert_eq!(phases, expected);
        assert_eq!(failing_renewals(&certificates), 18);
    }
}
