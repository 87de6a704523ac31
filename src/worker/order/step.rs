//! Takes one step of an order in the outside world; whatever goes wrong there is an answer too.

use tokio::time::error::Elapsed;

use super::authorizations::{read_authorizations, why_invalid};
use super::count;
use super::download::download;
use super::session::{Session, seen};
use super::solving::solve;
use crate::ca::{self, Meter};
use crate::domain::backoff::Jitter;
use crate::domain::caa;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::order::{Answer, Conditions, Order, Status, Step};
use crate::pki;
use crate::worker::context::STEP_TIMEOUT;
use crate::worker::error::{Tried, Trouble, WorkerError};

/// Does what a step says.
pub(super) async fn take(
    session: &mut Session<'_>,
    step: Step,
    order: &Order,
) -> Result<(Answer, Conditions), WorkerError> {
    // The last moments at which a policy that was withdrawn keeps the CA from issuing.
    if matches!(step, Step::Create | Step::Finalize)
        && let Some(failure) = session.withheld(order).await?
    {
        return Ok((Answer::Failed(failure), unasked(order)));
    }
    // Trouble of ours with that is met again by the step itself.
    if step == Step::Create
        && let Ok(Some(failure)) = session.refused_by_caa(order).await
    {
        return Ok((Answer::Failed(failure), unasked(order)));
    }
    let meter = Meter::new(order.names.len(), order.course.requests.clone());
    let attempt = Box::pin(meter.scope(attempt(session, &meter, step.clone(), order)));
    let tried = tokio::time::timeout(STEP_TIMEOUT, attempt).await;
    let mut answer = understand(session, tried, order).await?;
    count::failures(&answer);
    if let Answer::Failed(failure) | Answer::Ended(failure) = &mut answer {
        say_what_allows(session, failure, order);
    }
    let limits = &session.ctx.limits;
    if let Some(issuer) = session.issuer.clone().filter(|_| asks_the_ca(&step)) {
        session.admission.note(limits, &step, &answer, &issuer, order);
    }
    let conditions = Conditions {
        jitter: Jitter::random(),
        likely_done: session.admission.likely_done(limits, &step, order),
        requests: Some(meter.requests()),
        bogus: session.bogus.take(),
    };
    Ok((answer, conditions))
}

/// The conditions of an answer for which nobody was asked.
fn unasked(order: &Order) -> Conditions {
    let requests = Some(order.course.requests.clone());
    Conditions { requests, ..Jitter::random().into() }
}

async fn understand(
    session: &mut Session<'_>,
    tried: Result<Tried<Answer>, Elapsed>,
    order: &Order,
) -> Result<Answer, WorkerError> {
    let trouble = match tried {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(trouble)) => trouble,
        Err(_) => {
            session.handle = None;
            return Ok(Answer::Failed(timed_out()));
        }
    };
    let is_outside = matches!(trouble, Trouble::Failed(_));
    let mut failure = trouble.into_failure()?;
    if is_outside {
        // Whatever the handle knew may be wrong now.
        session.handle = None;
        if failure.is_refusal() && session.key_is_changing(order).await? {
            // The CA did not know us by the key that it was asked with.
            failure.class = Class::Transient;
        }
        tracing::debug!(order = %order.id, code = failure.code, %failure, "a step did not work");
    }
    Ok(Answer::Failed(failure))
}

async fn attempt(
    session: &mut Session<'_>,
    meter: &Meter,
    step: Step,
    order: &Order,
) -> Tried<Answer> {
    if matches!(step, Step::Create | Step::ReadAuthorizations) {
        session.expected.get_or_insert_with(|| session.ctx.solvers.upcoming().expect());
    }
    if asks_the_ca(&step) {
        let issuer = session.issuer(order).await?;
        let limits = &session.ctx.limits;
        meter.at_the_cost_of(limits.refused_requests(&issuer, order));
        session.admission.admit(limits, &step, &issuer, order).await?;
    }
    match step {
        Step::Create => create(session, order).await,
        Step::ReadAuthorizations => read_authorizations(session, order).await,
        Step::Solve(actions) => solve(session, actions, order).await,
        Step::Accept => {
            let urls: Vec<_> = order.challenges.iter().map(|known| known.url.clone()).collect();
            session.handle_for_challenges(order).await?.accept(&urls).await?;
            failpoint!("after_accept");
            Ok(Answer::Accepted)
        }
        Step::Poll => poll(session, order).await,
        Step::Inspect => inspect(session, order).await,
        Step::Finalize => finalize(session, order).await,
        Step::Download => download(session, order).await,
    }
}

async fn create(session: &mut Session<'_>, order: &Order) -> Tried<Answer> {
    let account = session.account(order).await?;
    // The directory has come with the account, if it was not known before.
    if !session.is_preflighted
        && let Some(failure) = session.refused_by_caa(order).await?
    {
        return Err(failure.into());
    }
    let (profile, replaces) = (order.profile.as_deref(), order.replaces.as_deref());
    let asked = account.new_order_replacing(&order.names, profile, replaces, order.not_after).await;
    let handle = match asked {
        Err(failure) if replaces.is_some() && may_be_the_replacement(&failure, order.tries) => {
            return Ok(Answer::NotReplacing(failure));
        }
        asked => asked?,
    };
    failpoint!("after_new_order");
    let handle = unused(session, handle, order).await?;
    let answer = Answer::Created(handle.url().to_owned(), seen(handle.state()));
    // What could not be read is read again, by its URL.
    session.handle = Some(handle).filter(ca::Order::is_read);
    Ok(answer)
}

/// The order, unless it is one of before whose certificate is no use to us: some CAs answer a new
/// order with the one that they issued for the same names last. Another would be the same again.
async fn unused(
    session: &mut Session<'_>,
    mut placed: ca::Order,
    order: &Order,
) -> Tried<ca::Order> {
    if placed.state().status != ca::OrderStatus::Valid {
        return Ok(placed);
    }
    let csr = session.csr(order).await?;
    let Some(download) = placed.certificate().await? else { return Ok(placed) };
    match pki::check_chain(&download.chain_pem, &csr, session.ctx.clock.now()) {
        Ok(_) => Ok(placed),
        Err(problem) => Err(Failure::of(
            code::ACME_ORDER_REUSED,
            format!("Its certificate is not the one that is wanted: {problem}."),
        )
        .into()),
    }
}

async fn poll(session: &mut Session<'_>, order: &Order) -> Tried<Answer> {
    let (handle, fresh) = session.handle(order).await?;
    if !fresh {
        handle.refresh().await?;
    }
    let seen = seen(handle.state());
    if seen.status == Status::Invalid {
        return Ok(Answer::Ended(why_invalid(handle, order).await?));
    }
    Ok(Answer::Polled(seen))
}

/// A look at the order, and at what keeps the CA from coming to an end with it.
async fn inspect(session: &mut Session<'_>, order: &Order) -> Tried<Answer> {
    let seen = match poll(session, order).await? {
        Answer::Polled(seen) if seen.status == Status::Pending => seen,
        answer => return Ok(answer),
    };
    let authorizations = match session.handle(order).await?.0.settled_authorizations().await {
        Ok(authorizations) => authorizations,
        Err(failure) => {
            tracing::info!(order = %order.id, %failure, "the authorizations could not be read");
            Vec::new()
        }
    };
    let is_over = |one: &&ca::Authorization| {
        !matches!(one.status, ca::AuthorizationStatus::Pending | ca::AuthorizationStatus::Valid)
    };
    if let Some(over) = authorizations.iter().find(is_over) {
        return Ok(Answer::Ended(over.unusable()));
    }
    let challenges = authorizations.into_iter().flat_map(|one| one.challenges);
    let said = challenges.filter_map(|offer| Some((offer.url, offer.error?)));
    Ok(Answer::Inspected(seen, said.collect()))
}

async fn finalize(session: &mut Session<'_>, order: &Order) -> Tried<Answer> {
    let csr = session.csr(order).await?;
    let (handle, _) = session.handle(order).await?;
    handle.finalize(&csr).await?;
    failpoint!("after_finalize");
    let mut seen = seen(handle.state());
    match seen.status {
        Status::Invalid => return Ok(Answer::Ended(why_invalid(handle, order).await?)),
        // The CSR has arrived, whatever a lagging replica says.
        Status::Ready | Status::Pending => seen.status = Status::Processing,
        Status::Processing | Status::Valid => {}
    }
    Ok(Answer::Polled(seen))
}

/// Adds the CAA records that would allow the CA, where one is missing.
fn say_what_allows(session: &Session<'_>, failure: &mut Failure, order: &Order) {
    if let Some(account) = &session.account
        && failure.is(code::ACME_CAA)
    {
        let records = caa::allowing(failure, &order.names, account.caa_identities(), account.url());
        failure.detail = format!("{} {records}", failure.detail);
    }
}

/// A step that was cut off.
pub(super) fn timed_out() -> Failure {
    Failure::timed_out("A step took too long", STEP_TIMEOUT)
}

/// Whether another order might fare better that does not say what it replaces: CAs answer to that
/// with all kinds of errors. Who was not heard, or is asked to wait, has learnt nothing about it; nor has who meets a
/// front end's 5xx. That the CA itself fails inside may be about it if it does so again and again.
fn may_be_the_replacement(failure: &Failure, tries: u32) -> bool {
    const TOO_OFTEN: u32 = 3;
    let answered = match failure.http_status {
        Some(500..) => failure.is(code::ACME_SERVER_INTERNAL) && tries >= TOO_OFTEN,
        Some(_) => true,
        None => failure.is(code::ACME_UNREADABLE_ANSWER),
    };
    answered && !matches!(failure.class, Class::Throttle | Class::Consistency)
}

/// Whether a step asks the CA, and not only the DNS.
fn asks_the_ca(step: &Step) -> bool {
    !matches!(step, Step::Solve(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_says_nothing_of_what_an_order_replaces() {
        let refused = |code, status| Failure::of(code, "").with_status(status);
        for (failure, tries, expected) in [
            (refused(code::ACME_MALFORMED, 400), 0, true),
            (refused(code::ACME_UNAUTHORIZED, 403), 0, true),
            (refused(code::ACME_CONFLICT, 409), 0, true),
            (Failure::of(code::ACME_UNREADABLE_ANSWER, ""), 0, true),
            (refused(code::ACME_UNAVAILABLE, 503), 0, false),
            (refused(code::ACME_UNAVAILABLE, 502), 99, false),
            (refused(code::ACME_SERVER_INTERNAL, 500), 0, false),
            (refused(code::ACME_SERVER_INTERNAL, 500), 3, true),
            (refused(code::ACME_RATE_LIMITED, 429), 99, false),
            (refused(code::ACME_NOT_FOUND_YET, 404), 0, false),
            (Failure::of(code::ACME_UNREACHABLE, ""), 99, false),
        ] {
            assert_eq!(may_be_the_replacement(&failure, tries), expected, "{failure:?}, {tries}");
        }
    }
}
