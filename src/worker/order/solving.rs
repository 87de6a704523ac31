//! Runs the actions of an order's challenges side by side, each by its solver and credential.

use futures_util::future::{BoxFuture, join_all};
use time::{Duration, OffsetDateTime};

use super::authorizations::no_solver;
use super::session::{ConfiguredSolver, Session};
use crate::domain::backoff::Jitter;
use crate::domain::challenge::{self, Action, Challenge, Proof, ProofTimeouts};
use crate::domain::duration;
use crate::domain::id::ChallengeId;
use crate::domain::issuer::{self, DnsProvider};
use crate::domain::order::{Answer, Order};
use crate::solver::{self, Readiness, Solver};
use crate::worker::context::Context;
use crate::worker::credentials::dns_credential;
use crate::worker::error::{Tried, Trouble};
use crate::worker::limits::{Look, Work};

/// The actions that an order's challenges want, ready to be run.
#[derive(Default)]
pub(super) struct Actions {
    jobs: Vec<BoxFuture<'static, ActionResult>>,
    done: Vec<ActionResult>,
}

/// The result of one challenge's action.
pub(super) struct ActionResult {
    id: ChallengeId,
    timeouts: ProofTimeouts,
    called: Option<String>,
    /// Where it was a look that something can be learned from.
    look: Option<(Work, Look)>,
    answer: challenge::Answer,
}

impl Actions {
    /// Adds an action whose answer is known already.
    pub(super) fn done(&mut self, id: ChallengeId, answer: challenge::Answer) {
        let timeouts =
            ProofTimeouts { propagation: PROPAGATION, delay: Duration::ZERO, likely: None };
        self.done.push(ActionResult { id, timeouts, called: None, look: None, answer });
    }

    /// Runs all actions side by side.
    pub(super) async fn run(self) -> Vec<ActionResult> {
        let mut results = self.done;
        results.extend(join_all(self.jobs).await);
        results
    }
}

/// A DNS-01 proof that nobody sees after this long has failed, unless its solver says otherwise.
const PROPAGATION: Duration = Duration::minutes(5);

/// Runs actions side by side: their DNS writes go out together.
pub(super) async fn solve(
    session: &mut Session<'_>,
    actions: Vec<(ChallengeId, Action)>,
    order: &Order,
) -> Tried<Answer> {
    let results = prepare(session, actions, order).await?.run().await;
    Ok(answer(session.ctx, results, order))
}

/// Prepares the actions of an order's challenges.
pub(super) async fn prepare(
    session: &mut Session<'_>,
    actions: Vec<(ChallengeId, Action)>,
    order: &Order,
) -> Tried<Actions> {
    let mut prepared = Actions::default();
    session.expected = None;
    for (id, action) in actions {
        let Some(known) = order.challenges.iter().find(|known| known.id == id) else {
            continue;
        };
        let proof = known.proof();
        match solver(session, order, known, action).await {
            Ok(ConfiguredSolver { solver, timeouts, credential }) => {
                let now = session.ctx.clock.now();
                let look = propagation(action, known, credential.as_deref(), timeouts, now);
                let called = credential.filter(|_| action != Action::Check);
                let breakers = &session.ctx.limits.breakers;
                if let Some(called) = &called
                    && let Err(failure) = breakers.admit(called, order.id, now)
                {
                    prepared.done(id, challenge::Answer::Failed(failure));
                    continue;
                }
                let record = known.record.clone();
                prepared.jobs.push(Box::pin(async move {
                    let answer = act(&*solver, action, &proof, record.as_ref()).await;
                    ActionResult { id, timeouts, called, look, answer }
                }));
            }
            Err(Trouble::Failed(failure)) => {
                prepared.done(id, challenge::Answer::Failed(failure));
            }
            Err(broken) => return Err(broken),
        }
    }
    Ok(prepared)
}

/// The answer to the order machine, once note is taken of what it says about providers.
pub(super) fn answer(ctx: &Context, results: Vec<ActionResult>, order: &Order) -> Answer {
    let answers =
        results.into_iter().map(|ActionResult { id, mut timeouts, called, look, answer }| {
            if let Some(called) = called {
                note_provider(ctx, &called, &answer, order);
            }
            if let Some((work, look)) = look {
                timeouts.likely = learn(ctx, &work, look, &answer);
            }
            (id, timeouts, answer)
        });
    Answer::Solved(answers.collect())
}

/// The solver that was chosen for a challenge, as the issuer configures it now.
async fn solver(
    session: &mut Session<'_>,
    order: &Order,
    known: &Challenge,
    action: Action,
) -> Tried<ConfiguredSolver> {
    if let Some(solver) = session.solvers.get(&(known.solver, known.kind)) {
        return Ok(solver.clone());
    }
    let ctx = session.ctx;
    let issuer = session.issuer(order).await?;
    let configured = usize::try_from(known.solver)
        .ok()
        .and_then(|place| issuer.acme.solvers.get(place))
        .filter(|solver| solver.kind() == Some(known.kind))
        // The issuer may have changed since. What was written is taken away all the same.
        .filter(|solver| action == Action::CleanUp || solver.serves(&order.namespace));
    let Some(configured) = configured else {
        let name = (&*known.domain, known.wildcard);
        return Err(no_solver(&issuer, order, name, &[known.kind]).into());
    };
    let provider = configured.dns01.as_ref().and_then(issuer::Dns01::provider);
    let secret = match provider {
        Some(provider) => Some(dns_credential(ctx, &issuer, provider).await?),
        None => None,
    };
    let namespace = issuer.secret_namespace(&ctx.settings.cluster_namespace);
    let solver = ConfiguredSolver {
        solver: ctx.solvers.solver(issuer.kind, configured, secret.as_ref())?,
        timeouts: timeouts(configured),
        credential: provider.map(|provider| credential(namespace, provider)),
    };
    session.solvers.insert((known.solver, known.kind), solver.clone());
    Ok(solver)
}

/// Names a credential, and where it is used.
fn credential(namespace: &str, provider: DnsProvider<'_>) -> String {
    let (issuer::SecretKeySelector { name, key }, _) = provider.secret_ref();
    let key = key.as_deref().unwrap_or_default();
    format!("{namespace}/{name}/{key} at {}", provider.endpoint())
}

/// Takes note of whether a DNS provider has answered.
fn note_provider(ctx: &Context, called: &str, answer: &challenge::Answer, order: &Order) {
    let breakers = &ctx.limits.breakers;
    match answer {
        // A name server that is silent is the name's trouble, not the credential's; and a refusal, of
        // whatever it is, was an answer.
        challenge::Answer::Failed(failure) if solver::is_provider_silent(failure) => {
            breakers.failed(called, order.id, failure, ctx.clock.now(), Jitter::random());
        }
        // A budget of ours, or the DNS: nothing was heard of the provider.
        challenge::Answer::Failed(failure) if failure.http_status.is_none() => {}
        _ => breakers.answered(called),
    }
}

/// A look for a record. The first one is taken at once: only what it did not see has to be learned.
fn propagation(
    action: Action,
    known: &Challenge,
    credential: Option<&str>,
    timeouts: ProofTimeouts,
    at: OffsetDateTime,
) -> Option<(Work, Look)> {
    let (credential, record) = credential.zip(known.record.as_ref())?;
    let work = Work::Propagation { credential: credential.to_owned(), zone: record.zone.clone() };
    let began = known.shown_at(timeouts);
    let look = Look { at_what: known.id.0, began, at, is_first: false };
    (action == Action::Check).then_some((work, look))
}

/// When a record that was not seen is likely to be, counted from when it was written.
fn learn(ctx: &Context, work: &Work, look: Look, answer: &challenge::Answer) -> Option<Duration> {
    let learned = &ctx.limits.learned_waits;
    match answer {
        challenge::Answer::Seen => {
            learned.looked(work, look, true);
            None
        }
        challenge::Answer::NotSeen(_) => {
            learned.looked(work, look, false);
            Some(learned.likely(work, ctx.clock.now() - look.began))
        }
        _ => None,
    }
}

async fn act(
    solver: &dyn Solver,
    action: Action,
    proof: &Proof,
    record: Option<&challenge::Record>,
) -> challenge::Answer {
    let done = match action {
        Action::Present => {
            let presented = solver.present(proof).await;
            failpoint!("after_present");
            presented.map(challenge::Answer::Presented)
        }
        Action::Check => {
            failpoint!("before_check");
            solver.is_ready(proof, record).await.map(|readiness| match readiness {
                Readiness::Ready => challenge::Answer::Seen,
                Readiness::NotYet { observed } => challenge::Answer::NotSeen(observed),
            })
        }
        Action::CleanUp => {
            let cleaned = solver.clean_up(proof, record).await;
            failpoint!("after_clean_up");
            cleaned.map(|()| challenge::Answer::CleanedUp)
        }
    };
    done.unwrap_or_else(challenge::Answer::Failed)
}

fn timeouts(solver: &issuer::Solver) -> ProofTimeouts {
    let propagation = solver.dns01.as_ref().map(|dns01| &dns01.propagation);
    let read = |text: Option<&String>| text.and_then(|text| duration::parse(text).ok());
    ProofTimeouts {
        propagation: read(propagation.map(|given| &given.timeout)).unwrap_or(PROPAGATION),
        delay: read(propagation.map(|given| &given.delay)).unwrap_or(Duration::ZERO),
        likely: None,
    }
}
