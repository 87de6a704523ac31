//! What an order's challenges want done: by which solver, with which credential, and side by side.

use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};
use time::Duration;

use super::authorizations::no_solver;
use super::{Session, Tried, Trouble};
use crate::domain::challenge;
use crate::domain::challenge::{Action, Challenge, Patience, Proof};
use crate::domain::duration;
use crate::domain::id::ChallengeId;
use crate::domain::issuer;
use crate::domain::order::{Answer, Order};
use crate::solver::{Readiness, Solver};

/// The solver of a challenge.
#[derive(Clone)]
pub(in crate::worker) struct Chosen {
    solver: Arc<dyn Solver>,
    patience: Patience,
    /// What its provider is called with, by its place.
    credential: Option<String>,
}

/// What is to be done for an order's challenges, and what needs nothing to be done.
#[derive(Default)]
pub(in crate::worker) struct Solving {
    jobs: Vec<BoxFuture<'static, Solved>>,
    done: Vec<Solved>,
}

/// What came of one challenge's action.
pub(in crate::worker) struct Solved {
    id: ChallengeId,
    patience: Patience,
    called: Option<String>,
    answer: challenge::Answer,
}

impl Solving {
    /// This one's answer is known already.
    pub(in crate::worker) fn done(&mut self, id: ChallengeId, answer: challenge::Answer) {
        let patience = Patience { propagation: PROPAGATION, delay: Duration::ZERO };
        self.done.push(Solved { id, patience, called: None, answer });
    }

    /// Does it, side by side.
    pub(in crate::worker) async fn run(self) -> Vec<Solved> {
        let mut solved = self.done;
        solved.extend(join_all(self.jobs).await);
        solved
    }
}

/// A DNS-01 proof that nobody sees after this long has failed, unless its solver says otherwise.
const PROPAGATION: Duration = Duration::minutes(5);

impl Session<'_> {
    /// Works on challenges side by side: their DNS writes go out together.
    pub(in crate::worker) async fn solve(
        &mut self,
        actions: Vec<(ChallengeId, Action)>,
        order: &Order,
    ) -> Tried<Answer> {
        let solving = self.prepare(actions, order).await?;
        let solved = solving.run().await;
        Ok(self.understand_solved(solved, order))
    }

    /// What is to be done for an order's challenges.
    pub(in crate::worker) async fn prepare(
        &mut self,
        actions: Vec<(ChallengeId, Action)>,
        order: &Order,
    ) -> Tried<Solving> {
        let mut solving = Solving::default();
        self.expected = None;
        for (id, action) in actions {
            let Some(known) = order.challenges.iter().find(|known| known.id == id) else {
                continue;
            };
            let proof = known.proof();
            match self.solver(order, known).await {
                Ok(Chosen { solver, patience, credential }) => {
                    let called = credential.filter(|_| action != Action::Check);
                    if let Some(failure) = self.silent(called.as_deref(), order) {
                        solving.done(id, challenge::Answer::Failed(failure));
                        continue;
                    }
                    let record = known.record.clone();
                    solving.jobs.push(Box::pin(async move {
                        let answer = act(&*solver, action, &proof, record.as_ref()).await;
                        Solved { id, patience, called, answer }
                    }));
                }
                Err(Trouble::Failed(failure)) => {
                    solving.done(id, challenge::Answer::Failed(failure));
                }
                Err(broken) => return Err(broken),
            }
        }
        Ok(solving)
    }

    /// The order machine's answer, once note is taken of what it says about providers.
    pub(in crate::worker) fn understand_solved(
        &self,
        solved: Vec<Solved>,
        order: &Order,
    ) -> Answer {
        let answers = solved.into_iter().map(|Solved { id, patience, called, answer }| {
            self.note_provider(called.as_deref(), &answer, order);
            (id, patience, answer)
        });
        Answer::Solved(answers.collect())
    }

    /// The solver that was chosen for a challenge, as the issuer configures it now.
    async fn solver(&mut self, order: &Order, known: &Challenge) -> Tried<Chosen> {
        if let Some(chosen) = self.solvers.get(&(known.solver, known.kind)) {
            return Ok(chosen.clone());
        }
        let issuer = self.issuer(order).await?;
        let configured = usize::try_from(known.solver)
            .ok()
            .and_then(|place| issuer.acme.solvers.get(place))
            .filter(|solver| solver.kind() == Some(known.kind));
        let Some(configured) = configured else {
            let (domain, wildcard) = (&known.domain, known.wildcard);
            return Err(no_solver(&issuer, domain, wildcard, &[known.kind]).into());
        };
        let cloudflare = configured.dns01.as_ref().and_then(|dns01| dns01.cloudflare.as_ref());
        let token = match cloudflare {
            Some(cloudflare) => {
                Some(self.worker.credential(&issuer, &cloudflare.api_token_secret_ref).await?)
            }
            None => None,
        };
        let namespace = issuer.secret_namespace(&self.worker.settings.cluster_namespace);
        let chosen = Chosen {
            solver: self.worker.solvers.solver(issuer.kind, configured, token.as_ref())?,
            patience: patience(configured),
            credential: cloudflare.map(|cloudflare| credential(namespace, cloudflare)),
        };
        self.solvers.insert((known.solver, known.kind), chosen.clone());
        Ok(chosen)
    }
}

/// Names a credential, and where it is used.
fn credential(namespace: &str, cloudflare: &issuer::Cloudflare) -> String {
    let issuer::SecretKeySelector { name, key } = &cloudflare.api_token_secret_ref;
    let at = cloudflare.base_url.as_deref().unwrap_or("cloudflare");
    format!("{namespace}/{name}/{} at {at}", key.as_deref().unwrap_or_default())
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

fn patience(solver: &issuer::Solver) -> Patience {
    let propagation = solver.dns01.as_ref().map(|dns01| &dns01.propagation);
    let read = |text: Option<&String>| text.and_then(|text| duration::parse(text).ok());
    Patience {
        propagation: read(propagation.map(|given| &given.timeout)).unwrap_or(PROPAGATION),
        delay: read(propagation.map(|given| &given.delay)).unwrap_or(Duration::ZERO),
    }
}
