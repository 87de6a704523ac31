//! Before the CA is asked: whether somebody who shares a limit was told to wait, and whose turn it is.

use time::{Duration, OffsetDateTime};

use super::breaker::is_silence;
use super::order_gate::Turn;
use crate::domain::challenge;
use crate::domain::failure::{Failure, code};
use crate::domain::issuer::Issuer;
use crate::domain::order::{Answer, Order, Stage, Status, Step};
use crate::domain::throttle::{Asker, Scope};
use crate::storage::{StorageError, Tx, throttles};
use crate::worker::Worker;
use crate::worker::order::session::{Session, Tried};

/// How long whoever shares a limit waits that names no time.
pub(in crate::worker) const UNNAMED: Duration = Duration::minutes(1);

/// An order that the CA has begun on goes on for so long before it looks again whether others were told to
/// wait: what it is told itself it hears anyhow.
const UNDISTURBED: Duration = Duration::seconds(1);

/// An order for which no turn came free looks again after this long.
const NEXT_TURN: Duration = Duration::seconds(2);

/// A limit that the CA has just named: what has to be stored with the step's result.
pub(in crate::worker) struct Hold {
    key: String,
    scope: Scope,
    until: OffsetDateTime,
    why: Failure,
}

/// What a session knows of its admission to the CA, from before the step until it is settled.
#[derive(Default)]
pub(in crate::worker) struct Admission {
    turn: Option<Turn>,
    hold: Option<Hold>,
    /// The step was not taken at all.
    parked: bool,
    /// When it was last asked whether anybody was told to wait.
    asked: Option<OffsetDateTime>,
    /// The CA's name among what is called.
    endpoint: Option<String>,
    /// Whether the CA has begun on something that it was not asked about yet.
    has_begun: bool,
}

impl Admission {
    /// What is stored in the transaction that settles the step.
    pub(in crate::worker) async fn store(
        &self,
        tx: &mut Tx,
        now: OffsetDateTime,
    ) -> Result<(), StorageError> {
        if let Some(Hold { key, scope, until, why }) = &self.hold {
            throttles::hold(tx, key, scope, *until, why, now).await?;
        }
        Ok(())
    }

    /// The step is settled: whoever waits for a turn finds what came of it.
    pub(in crate::worker) fn settled(&mut self) {
        let Self { asked, endpoint, has_begun, .. } = std::mem::take(self);
        *self = Self { asked, endpoint, has_begun, ..Self::default() };
    }

    /// The step is not taken, for this reason.
    pub(in crate::worker) fn park(&mut self, failure: Failure) -> Failure {
        self.parked = true;
        failure
    }
}

/// Whether a step asks the CA, and not only the DNS.
fn asks_the_ca(step: &Step) -> bool {
    !matches!(step, Step::Solve(_))
}

impl Session<'_> {
    /// Refuses a step that the CA would refuse, or for which it is not the time.
    pub(in crate::worker) async fn admit(&mut self, step: &Step, order: &Order) -> Tried<()> {
        if !asks_the_ca(step) {
            return Ok(());
        }
        let issuer = self.issuer(order).await?;
        let now = self.worker.clock.now();
        self.meter.at_the_cost_of(self.worker.local.limiters.of(&issuer, order, now));
        let asker = asker(&issuer, order);
        let is_new = matches!(step, Step::Create);
        if is_new {
            // Also where a changed issuer had it look again at once.
            if let Some(at) = order.course.may_order_at().filter(|at| *at > now) {
                return Err(self.admission.park(too_many(at)).into());
            }
            let Some(turn) = self.worker.local.paces.turn(asker.account).await else {
                let at = self.worker.clock.now() + NEXT_TURN;
                return Err(self.admission.park(no_turn(at)).into());
            };
            // From here on nobody else's refusal can be missed: it is stored before its turn ends.
            self.admission.turn = Some(turn);
        }
        let now = self.worker.clock.now();
        if is_new || self.admission.asked.is_none_or(|asked| now - asked >= UNDISTURBED) {
            let scopes = if is_new { asker.scopes() } else { vec![Scope::Endpoint] };
            let keys: Vec<_> = scopes.iter().map(|scope| asker.key(scope)).collect();
            if let Some(failure) = self.worker.held(&keys).await? {
                if is_new {
                    self.leave_queue(&issuer, order).await?;
                }
                return Err(self.admission.park(failure).into());
            }
            self.admission.asked = Some(now);
        }
        if is_new {
            self.reserve(&issuer, order).await?;
        }
        let endpoint = self.admission.endpoint.get_or_insert_with(|| asker.key(&Scope::Endpoint));
        let admitted = self.worker.local.breakers.admit(endpoint, order.id, now);
        admitted.map_err(|failure| self.admission.park(failure).into())
    }

    /// Takes note of what the CA's answer means for others.
    pub(in crate::worker) fn heed(&mut self, step: &Step, answer: &Answer, order: &Order) {
        if self.admission.parked || !asks_the_ca(step) {
            return;
        }
        // Known since it was admitted.
        let (Some(issuer), Some(endpoint)) = (self.known_issuer(), &self.admission.endpoint) else {
            return;
        };
        let asker = asker(&issuer, order);
        self.note_silence(endpoint, answer, order);
        if let (true, Step::Poll, Answer::Looked(seen), Some(stage)) =
            (self.admission.has_begun, step, answer, order.stage())
        {
            let is_done = !matches!(seen.status, Status::Pending | Status::Processing);
            self.worker.local.haste.looked(endpoint, stage, is_done);
        }
        self.admission.has_begun = matches!(
            (step, answer),
            (Step::Accept, Answer::Accepted) | (Step::Finalize, Answer::Looked(_))
        );
        let Answer::Failed(failure) = answer else {
            // There is nothing in the answer that somebody else would have to find stored.
            if let Some(turn) = self.admission.turn.take() {
                turn.went_well();
            }
            return;
        };
        let Some(scope) = failure.scope.clone() else { return };
        if let Some(turn) = &self.admission.turn {
            turn.was_refused();
        }
        let until = failure.retry_at.unwrap_or_else(|| self.worker.clock.now() + UNNAMED);
        let key = asker.key(&scope);
        self.admission.hold = Some(Hold { key, scope, until, why: failure.clone() });
    }
}

impl Session<'_> {
    /// When to look first whether the CA has done what it was just told, where that was sooner than usual
    /// lately.
    pub(in crate::worker) fn first_look(&self, step: &Step) -> Option<Duration> {
        let stage = match step {
            Step::Accept => Stage::Validating,
            Step::Finalize => Stage::Processing,
            _ => return None,
        };
        let pause = self.worker.local.haste.first_look(self.admission.endpoint.as_ref()?, stage)?;
        Duration::try_from(pause).ok()
    }

    /// Whether the CA has answered at all.
    fn note_silence(&self, called: &str, answer: &Answer, order: &Order) {
        let breakers = &self.worker.local.breakers;
        match answer {
            Answer::Failed(failure) if is_silence(failure) => {
                let now = self.worker.clock.now();
                breakers.failed(called, order.id, failure, now, crate::worker::jitter());
            }
            // Ours, before anything was sent.
            Answer::Failed(failure) if failure.http_status.is_none() => {}
            _ => breakers.answered(called),
        }
    }
}

impl Session<'_> {
    /// Why a DNS provider is not called now.
    pub(in crate::worker) fn silent(&self, called: Option<&str>, order: &Order) -> Option<Failure> {
        let breakers = &self.worker.local.breakers;
        breakers.admit(called?, order.id, self.worker.clock.now()).err()
    }

    /// Takes note of whether a DNS provider has answered.
    pub(in crate::worker) fn note_provider(
        &self,
        called: Option<&str>,
        answer: &challenge::Answer,
        order: &Order,
    ) {
        let Some(called) = called else { return };
        let breakers = &self.worker.local.breakers;
        match answer {
            // A name server that is silent is the name's trouble, not the credential's; and a refusal,
            // of whatever it is, was an answer.
            challenge::Answer::Failed(failure)
                if is_silence(failure) && failure.is(code::CLOUDFLARE_UNAVAILABLE) =>
            {
                let now = self.worker.clock.now();
                breakers.failed(called, order.id, failure, now, crate::worker::jitter());
            }
            // A budget of ours, or the DNS: nothing was heard of the provider.
            challenge::Answer::Failed(failure) if failure.http_status.is_none() => {}
            _ => breakers.answered(called),
        }
    }
}

impl Worker {
    /// The throttle that holds one of these buckets, told to somebody whom the CA did not tell.
    pub(in crate::worker) async fn held(
        &self,
        keys: &[String],
    ) -> Result<Option<Failure>, StorageError> {
        let mut tx = self.db.read().await?;
        let held = throttles::held(&mut tx, keys, self.clock.now()).await?;
        Ok(held.map(|(until, why)| told_to_others(why, until)))
    }
}

pub(in crate::worker) fn asker<'a>(issuer: &'a Issuer, order: &'a Order) -> Asker<'a> {
    let account = issuer.account.as_ref().map_or("", |account| &account.url);
    Asker { server: &issuer.acme.server, account, names: &order.names }
}

/// What a CA told one asker, for another who waits with it: how long and why, in our words. The CA's own
/// may speak of names, and pages, that are somebody else's.
fn told_to_others(why: Failure, until: OffsetDateTime) -> Failure {
    let whom = match why.scope {
        Some(Scope::Endpoint) | None => "everybody who asks it",
        Some(Scope::Account) => "the account",
        Some(Scope::RegisteredDomain(_)) => "all names below the registered domain",
        Some(Scope::ExactSet) => "these names together",
        Some(Scope::Name(_)) => "the name",
    };
    let detail = format!("It has said so to another order, and means {whom}.");
    Failure { detail, subproblems: Vec::new(), instance: None, retry_at: Some(until), ..why }
}

fn too_many(at: OffsetDateTime) -> Failure {
    Failure::of(code::ACME_ORDERS_UNANSWERED, "It may have made them all the same.")
        .not_before(Some(at))
}

fn no_turn(at: OffsetDateTime) -> Failure {
    Failure::of(code::ACME_NO_TURN, "The CA is slow to answer them, or has refused one lately.")
        .not_before(Some(at))
}
