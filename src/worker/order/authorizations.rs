//! Reads an order's authorizations, and chooses a challenge and a solver for each.
//!
//! A CA's answer is input: every part that is used is checked, the rest may be odd.

use super::session::Session;
use crate::ca;
use crate::ca::{AuthorizationStatus, ChallengeStatus, Offered};
use crate::domain::challenge;
use crate::domain::challenge::{Challenge, Kind};
use crate::domain::failure::{Class, Failure, code};
use crate::domain::id::ChallengeId;
use crate::domain::issuer::Issuer;
use crate::domain::name;
use crate::domain::order::{Answer, ORDER_DEADLINE, Order};
use crate::domain::selection::pick_solver;
use crate::worker::error::Tried;

pub(super) async fn read_authorizations(session: &mut Session<'_>, order: &Order) -> Tried<Answer> {
    let account = session.account(order).await?;
    let issuer = session.issuer(order).await?;
    let handle = session.handle(order).await?.0;
    if handle.state().status == ca::OrderStatus::Invalid {
        return Ok(Answer::Ended(why_invalid(handle, order).await?));
    }
    let authorizations = handle.authorizations().await?;
    failpoint!("after_authorizations");
    let labels = session.labels(order).await?;
    let now = session.ctx.clock.now();
    let mut challenges = Vec::new();
    for authorization in authorizations {
        let wildcard = is_wildcard(&authorization, order)?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            _ => return Ok(Answer::Ended(authorization.unusable())),
        }
        let offered: Vec<_> = authorization.challenges.iter().filter_map(usable).collect();
        let domain = &authorization.domain;
        let (solvers, namespace) = (&issuer.acme.solvers, &order.namespace);
        let picked = pick_solver(solvers, domain, wildcard, namespace, &labels, &offered);
        let found = picked.and_then(|(place, _, wanted)| {
            Some((place, wanted, best(&authorization.challenges, wanted)?))
        });
        let Some((solver, kind, offer)) = found else {
            return match hopeless(&authorization) {
                Some(failure) => Ok(Answer::Ended(failure)),
                None => Err(no_solver(&issuer, order, (domain, wildcard), &offered).into()),
            };
        };
        challenges.push(Challenge {
            id: ChallengeId::generate(now),
            authorization_url: authorization.url.clone(),
            url: offer.url.clone(),
            domain: domain.clone(),
            wildcard,
            kind,
            solver,
            token: offer.token.clone(),
            key_authorization: account.key_authorization(&offer.token),
            state: challenge::State::Pending,
            record: None,
            clean: false,
            tries: 0,
            reason: None,
            observations: Vec::new(),
            next_action_at: Some(now),
            deadline: order.deadline.min(now + ORDER_DEADLINE),
        });
    }
    Ok(Answer::Authorizations(challenges))
}

/// Whether an authorization is for a wildcard, by the CA's word or by the order: some CAs leave the mark
/// out. A name that was not ordered is an error: it must not be proved.
fn is_wildcard(authorization: &ca::Authorization, order: &Order) -> Result<bool, Failure> {
    let ordered: Vec<_> = order.names.iter().map(|name| name::comparable(name)).collect();
    let domain = &authorization.domain;
    let as_it_is = ordered.contains(domain);
    if !as_it_is && !ordered.iter().any(|name| name.strip_prefix("*.") == Some(domain)) {
        return Err(Failure::of(code::ACME_FOREIGN_AUTHORIZATION, format!("It is \"{domain}\".")));
    }
    Ok(authorization.wildcard || !as_it_is)
}

fn kind(offered: &Offered) -> Option<Kind> {
    match offered.kind {
        ca::ChallengeKind::Http01 => Some(Kind::Http01),
        ca::ChallengeKind::Dns01 => Some(Kind::Dns01),
        ca::ChallengeKind::Other(_) => None,
    }
}

/// The kind of a challenge that can still be met.
fn usable(offered: &Offered) -> Option<Kind> {
    kind(offered).filter(|_| offered.status != ChallengeStatus::Invalid)
}

/// Of several challenges of one kind the one that waits for us, else one that the CA is at already.
fn best(offered: &[Offered], wanted: Kind) -> Option<&Offered> {
    let fitting = offered.iter().filter(|offered| usable(offered) == Some(wanted));
    fitting.min_by_key(|offered| match offered.status {
        ChallengeStatus::Pending => 0,
        ChallengeStatus::Processing => 1,
        ChallengeStatus::Valid => 2,
        ChallengeStatus::Invalid => 3,
    })
}

/// The failure where no challenge can be met by any solver.
fn hopeless(authorization: &ca::Authorization) -> Option<Failure> {
    if let Some(failed) = authorization
        .challenges
        .iter()
        .find(|it| kind(it).is_some() && it.status == ChallengeStatus::Invalid)
    {
        return Some(failed.error.clone().unwrap_or_else(|| {
            Failure::of(
                code::ACME_VALIDATION_FAILED,
                format!("A challenge for {} has failed already.", authorization.domain),
            )
        }));
    }
    let any_unusable = !authorization.unusable.is_empty();
    any_unusable.then(|| {
        Failure::of(
            code::ACME_UNUSABLE_CHALLENGE,
            format!("{}: {}.", authorization.domain, authorization.unusable.join("; ")),
        )
    })
}

/// The CA's error for an invalid order. Its challenges say what the CA saw; those that were met for the
/// order come first.
pub(super) async fn why_invalid(handle: &ca::Order, order: &Order) -> Result<Failure, Failure> {
    let order_error = handle.state().error.clone();
    let authorizations = match (handle.settled_authorizations().await, &order_error) {
        (Ok(authorizations), _) => authorizations,
        // What the CA has forgotten, or says in an odd way, does not hide what it says of the order.
        (Err(failure), Some(_)) if failure.class != Class::Throttle => Vec::new(),
        (Err(failure), _) => return Err(failure),
    };
    let is_ours = |offer: &Offered| order.challenges.iter().any(|known| known.url == offer.url);
    let offers: Vec<_> =
        authorizations.into_iter().flat_map(|authorization| authorization.challenges).collect();
    let (ours, others): (Vec<_>, Vec<_>) = offers.into_iter().partition(is_ours);
    let of_challenges = ours.into_iter().chain(others).find_map(|offer| offer.error);
    Ok(of_challenges
        .or(order_error)
        .unwrap_or_else(|| Failure::of(code::ACME_ORDER_INVALID, "It did not say why.")))
}

pub(super) fn no_solver(
    issuer: &Issuer,
    order: &Order,
    (domain, wildcard): (&str, bool),
    offered: &[Kind],
) -> Failure {
    let name = if wildcard { format!("*.{domain}") } else { domain.to_owned() };
    let offered: Vec<_> = offered.iter().map(|kind| kind.as_str()).collect();
    Failure::of(
        code::NO_SOLVER,
        format!(
            "{} \"{}\" has no solver for {name} in the namespace {} whose challenge the CA offers ({}).",
            issuer.kind.as_str(),
            issuer.name,
            order.namespace,
            offered.join(", ")
        ),
    )
}
