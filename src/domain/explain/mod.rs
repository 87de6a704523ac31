//! Explanations: what a certificate is doing or waiting for, why, and what comes next.
//!
//! Pure: everything is said from what is stored. Where a cause is known by its code, its words stand
//! in `causes`; where it is not, its class says what will happen.

mod causes;
mod limited;
#[cfg(test)]
pub(super) mod tests;
mod text;

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::domain::certificate::{self, Certificate, Phase, State};
use crate::domain::challenge::{self, Challenge, Observation};
use crate::domain::failure::{Class, Failure};
use crate::domain::issuer::{self, Issuer};
use crate::domain::order::{self, Order, Stage};
use causes::{Cause, Context, cause_or_class, dnssec_before, looked_at};
use text::text;

/// What a certificate is doing, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Doing {
    /// An attempt begins any moment.
    Starting,
    /// Its issuer is not there, or not ready.
    WaitingForIssuer,
    /// Somebody has to approve its request.
    WaitingForApproval,
    /// The CA is being asked for an order.
    Ordering,
    /// What has to be proved is being read.
    ReadingAuthorizations,
    /// Proofs are being shown.
    Presenting,
    /// Proofs were shown, and are looked for until everybody sees them.
    WaitingForProofs,
    /// The CA was told, and is looking.
    Validating,
    /// The CSR is being sent, or the CA is signing.
    Finalizing,
    /// The certificate is being fetched.
    Downloading,
    /// The last attempt failed; the next one comes by itself.
    BackingOff,
    /// The last attempt failed, and waits for a person.
    Blocked,
    /// It is there.
    WaitingForRenewal,
    /// What was issued is being revoked, and it is deleted then.
    Deleting,
}

/// One server's answer to the question for a name's proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SightingView)]
pub struct Sighting {
    /// The name under proof.
    #[schema(example = "app.example.com")]
    pub dns_name: String,
    #[serde(flatten)]
    pub observation: Observation,
}

/// The next step that the service takes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = NextView)]
pub struct Next {
    /// In plain words.
    pub what: String,
    /// Its time; in the past while the step is under way.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
}

/// An explanation of a certificate's state: the reason, the next step, and what a person can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// One or two sentences for a person.
    #[schema(
        example = "The proofs are shown; it waits until everybody who is asked sees those for app.example.com."
    )]
    pub summary: String,
    /// The one word that sums the certificate up.
    pub phase: Phase,
    /// The state in one word.
    pub doing: Doing,
    /// Start of this state.
    #[serde(with = "time::serde::rfc3339")]
    pub since: OffsetDateTime,
    /// The last error in the other side's words; `null` if there is none.
    pub why: Option<Failure>,
    /// The servers that were asked for the proofs, and their answers.
    pub observations: Vec<Sighting>,
    /// The next step that the service takes by itself.
    pub next: Option<Next>,
    /// Actions that a person can take; empty if all that can be done is to wait.
    pub actions: Vec<String>,
    /// The current or last order.
    #[schema(example = "/orders/019ab000-0000-7000-8000-000000000000")]
    pub order: Option<String>,
    /// The deadline of the current order.
    #[serde(with = "time::serde::rfc3339::option")]
    pub deadline: Option<OffsetDateTime>,
}

impl Explanation {
    fn then(&mut self, what: impl Into<String>, at: OffsetDateTime) {
        self.next = Some(Next { what: what.into(), at });
    }
}

/// Explains a certificate at `now`. `order` is the one that it names.
pub fn explain(
    certificate: &Certificate,
    issuer: Option<&Issuer>,
    order: Option<&Order>,
    now: OffsetDateTime,
) -> Explanation {
    let mut it = Explanation {
        summary: String::new(),
        phase: certificate.phase(now),
        doing: Doing::Starting,
        since: certificate.state_since,
        why: certificate.last_error.clone(),
        observations: Vec::new(),
        next: None,
        actions: Vec::new(),
        order: certificate.order.map(|order| format!("/orders/{order}")),
        deadline: None,
    };
    match certificate.state {
        State::Idle if certificate.deleting_since.is_some() => deleting(&mut it, certificate),
        State::Idle => idle(&mut it, certificate),
        State::Triggered(_) => {
            "A new attempt begins at once.".clone_into(&mut it.summary);
            it.then(
                "A key and a CSR are made, and the CA is asked for an order.",
                certificate.next_action_at,
            );
        }
        State::AwaitingIssuer(_) => awaiting_issuer(&mut it, certificate, issuer),
        State::AwaitingApproval(_) => awaiting_approval(&mut it, certificate),
        State::Ordering(_) => match order.filter(|order| !order.is_over()) {
            Some(order) => ordering(&mut it, certificate, order, now),
            None => "The order has just ended.".clone_into(&mut it.summary),
        },
        State::Backoff | State::Blocked => failed(&mut it, certificate, issuer, order),
    }
    if let Some(issued) = &certificate.current
        && certificate.state != State::Idle
    {
        let until = if issued.not_after > now { "is served until" } else { "has expired on" };
        let words = format!(" Revision {} {until} {}.", issued.revision, text(issued.not_after));
        it.summary.push_str(&words);
    }
    if let Some(revoked) = certificate.revocation.as_ref().filter(|_| certificate.is_revoked()) {
        let words = format!(" Revision {} is revoked.", revoked.revision);
        it.summary.push_str(&words);
    }
    it
}

fn deleting(it: &mut Explanation, certificate: &Certificate) {
    it.doing = Doing::Deleting;
    it.why = certificate.revocation.as_ref().and_then(|known| known.last_error.clone());
    it.summary = match &it.why {
        None => "The CA is being told to revoke what was issued; the certificate is deleted then."
            .into(),
        Some(failure) => format!(
            "The CA has not revoked what was issued yet; the certificate is deleted when it has: {failure}"
        ),
    };
    it.then(
        "It is deleted, whether or not the CA has revoked what was issued.",
        certificate.next_action_at,
    );
    it.actions = vec![format!(
        "To have it deleted at once: DELETE /certificates/{} without `revoke`. The revocation goes on.",
        certificate.id
    )];
}

fn idle(it: &mut Explanation, certificate: &Certificate) {
    it.doing = Doing::WaitingForRenewal;
    it.why = None;
    let Some(issued) = &certificate.current else { return };
    it.summary = format!(
        "The certificate is there (revision {}) and valid until {}. Nothing needs to be done.",
        issued.revision,
        text(issued.not_after)
    );
    let remark =
        certificate::renewal_remark(&certificate.spec, issued.not_before, issued.not_after);
    if let Some(remark) = remark {
        let words = format!(" {remark}.");
        it.summary.push_str(&words);
    }
    it.then("It is renewed.", issued.renewal_time);
}

fn awaiting_issuer(it: &mut Explanation, certificate: &Certificate, issuer: Option<&Issuer>) {
    it.doing = Doing::WaitingForIssuer;
    let reference = &certificate.spec.issuer_ref;
    let named = format!("{} \"{}\"", reference.kind.as_str(), reference.name);
    let Some(issuer) = issuer else {
        it.summary = format!("It waits for its issuer: there is no {named}.");
        it.actions = vec![format!(
            "Create the {named}, or change the certificate's issuerRef. This goes on by itself then."
        )];
        it.then("It is looked for again.", certificate.next_action_at);
        return;
    };
    let at = issuer.next_action_at.unwrap_or(certificate.next_action_at);
    match &issuer.last_error {
        Some(failure) => {
            let (issuer, certificate) = (Some(issuer), Some(certificate));
            let cause =
                cause_or_class(failure, &Context { issuer, certificate, ..Context::default() });
            it.summary = format!("It waits for {named}, which has no account: {}", cause.summary);
            it.actions = cause.actions;
            it.why = Some(failure.clone());
            it.then("The registration is tried again.", at);
        }
        None if issuer.state == issuer::State::Ready => {
            it.summary = format!("{named} has become ready; the attempt begins at once.");
            it.why = None;
            it.then("The CA is asked for an order.", certificate.next_action_at);
        }
        None => {
            it.summary = format!("It waits for {named}, whose account is being registered.");
            it.why = None;
            it.then("The account is registered.", at);
        }
    }
}

fn awaiting_approval(it: &mut Explanation, certificate: &Certificate) {
    it.doing = Doing::WaitingForApproval;
    let named = certificate.request_name();
    let by: Vec<String> = certificate.askers().map(ToString::to_string).collect();
    let asked = format!(" {} asked for it, and cannot.", by.join(" and "));
    let asked = if by.is_empty() { "" } else { &asked };
    it.summary = format!(
        "It waits until somebody with the permission `requests:approve` approves the request {named}; no order is placed before.{asked}"
    );
    if let Some(request) = certificate.request {
        it.actions = vec![
            format!("To let it go on: POST /requests/{request}/approve with a `reason`."),
            format!("To refuse it: POST /requests/{request}/deny with a `reason`."),
        ];
    }
    it.deadline = Some(certificate.next_action_at);
    it.then("The request is denied if nobody has decided.", certificate.next_action_at);
}

fn failed(
    it: &mut Explanation,
    certificate: &Certificate,
    issuer: Option<&Issuer>,
    order: Option<&Order>,
) {
    let context = Context { issuer, order, certificate: Some(certificate), ..Context::default() };
    let cause = match &certificate.last_error {
        Some(failure) => cause_or_class(failure, &context),
        None => Cause::new("The last attempt failed."),
    };
    it.observations = sightings(order);
    it.actions = cause.actions;
    it.actions.extend(order.and_then(dnssec_before));
    let at = certificate.next_action_at;
    if certificate.state == State::Blocked {
        it.doing = Doing::Blocked;
        it.summary = format!("It waits for a person. {}", cause.summary);
        it.then(looked_at(certificate.last_error.as_ref()), at);
    } else {
        it.doing = Doing::BackingOff;
        let times = match certificate.failed_attempts {
            0 | 1 => "The last attempt failed.".to_owned(),
            n => format!("The last {n} attempts failed."),
        };
        it.summary = format!("{times} {}", cause.summary);
        it.then("The next attempt begins.", at);
    }
    it.actions.push(format!(
        "To try at once, after the cause is mended: POST /certificates/{}/renew.",
        certificate.id
    ));
}

fn ordering(it: &mut Explanation, certificate: &Certificate, order: &Order, now: OffsetDateTime) {
    it.since = order.handed_out_at;
    it.deadline = Some(order.deadline);
    it.why.clone_from(&order.last_error);
    it.observations = sightings(Some(order));
    let (doing, words) = step(order);
    it.doing = doing;
    let (under_way, certificate) = (Some(order), Some(certificate));
    let context = Context { order: under_way, certificate, on_its_way: true, ..Context::default() };
    let cause = match &order.last_error {
        Some(failure) => Some(cause_or_class(failure, &context)),
        None if order.predecessors > 0 && order.state == order::State::New => Some(Cause::new(
            "The CA lost the order before this one; a fresh one is asked for, with the same key and CSR.",
        )),
        None => unseen(order),
    };
    it.summary = words;
    if let Some(cause) = cause {
        it.summary = format!("{} {}", it.summary, cause.summary);
        it.actions = cause.actions;
    }
    it.actions.extend(dnssec_before(order));
    if let Some(at) = order.next_action_at {
        let what = match (&order.last_error, at > now) {
            (Some(failure), true)
                if failure.retry_at.is_some_and(|until| at < until && order.deadline <= until) =>
            {
                "The order is looked at once more, before it is given up."
            }
            (Some(failure), true) if failure.class == Class::Throttle => {
                "The other side has asked for a pause; the same step is taken again when it is over."
            }
            (Some(_), true) => "The same step is tried again.",
            (None, true) => "It looks again.",
            (_, false) => "A worker is at it now.",
        };
        it.then(what, at);
    }
}

/// Describes the stage of an open order.
fn step(order: &Order) -> (Doing, String) {
    let names = order.names.join(", ");
    let stage = match &order.state {
        order::State::Open { stage, .. } => *stage,
        order::State::New | order::State::Done { .. } => {
            return (Doing::Ordering, format!("The CA is asked for an order for {names}."));
        }
    };
    match stage {
        Stage::Authorizing => (
            Doing::ReadingAuthorizations,
            "The CA has the order; what has to be proved is read.".into(),
        ),
        Stage::Presenting => {
            let shown = |known: &&Challenge| known.state == challenge::State::Pending;
            let pending: Vec<_> = order.challenges.iter().filter(shown).map(name_of).collect();
            if pending.is_empty() {
                let waiting =
                    order.challenges.iter().filter(|one| one.state == challenge::State::Presented);
                let waiting: Vec<_> = waiting.map(name_of).collect();
                let words = format!(
                    "The proofs are shown; it waits until everybody who is asked sees {}.",
                    if waiting.is_empty() {
                        "them".to_owned()
                    } else {
                        format!("those for {}", waiting.join(", "))
                    }
                );
                (Doing::WaitingForProofs, words)
            } else {
                (
                    Doing::Presenting,
                    format!("The proofs for {} are being shown.", pending.join(", ")),
                )
            }
        }
        Stage::Accepting => {
            (Doing::Validating, "Every proof can be seen; the CA is told to look.".into())
        }
        Stage::Validating => (Doing::Validating, "The CA is looking for the proofs.".into()),
        Stage::Finalizing => {
            (Doing::Finalizing, "Everything is proved; the CSR is sent to the CA.".into())
        }
        Stage::Processing => (Doing::Finalizing, "The CA has the CSR and is signing.".into()),
        Stage::Downloading => {
            (Doing::Downloading, "The CA has issued the certificate; it is fetched.".into())
        }
    }
}

/// Proofs that somebody who was asked does not see, though nothing has failed yet.
fn unseen(order: &Order) -> Option<Cause> {
    let waiting = order.challenges.iter().find(|one| one.observations.iter().any(|it| !it.seen))?;
    Some(causes::not_visible(waiting, &challenge::in_words(&waiting.observations)))
}

fn sightings(order: Option<&Order>) -> Vec<Sighting> {
    let challenges = order.map(|order| order.challenges.as_slice()).unwrap_or_default();
    let of = |one: &Challenge| {
        let dns_name = name_of(one);
        let observations = one.observations.iter().cloned();
        let seen = |observation| Sighting { dns_name: dns_name.clone(), observation };
        observations.map(seen).collect::<Vec<_>>()
    };
    challenges.iter().flat_map(of).collect()
}

fn name_of(challenge: &Challenge) -> String {
    if challenge.wildcard { format!("*.{}", challenge.domain) } else { challenge.domain.clone() }
}
