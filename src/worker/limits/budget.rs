//! Budgets of an account: the cost of a new order, and whether the CA's limits still allow it.

use time::OffsetDateTime;

use crate::domain::certificate::{Certificate, State, Trigger};
use crate::domain::challenge;
use crate::domain::failure::{Class, Failure, code};
use crate::domain::issuer::Issuer;
use crate::domain::limits::{Limit, Limits, LimitsSpec, Precedence};
use crate::domain::order::{Order, Outcome};
use crate::domain::throttle::{Asker, Scope as Counted};
use crate::storage::rate_limits::{Claim, Cost, Reserved};
use crate::storage::{Db, Scope, StorageError, Tx, certificates, rate_limits};

/// Takes the order's cost from the budgets. A failure says which limit is used up, and until when.
pub(super) async fn reserve(
    db: &Db,
    issuer: &Issuer,
    order: &Order,
    now: OffsetDateTime,
) -> Result<Option<Failure>, StorageError> {
    let limits = limits(issuer);
    if limits == Limits::default() {
        return Ok(None);
    }
    let mut tx = db.begin();
    let found = certificates::find(&mut tx, order.certificate, &Scope::Everything).await?;
    let certificate = found.map(|(certificate, _)| certificate);
    let precedence = precedence(order, certificate.as_ref(), now);
    if precedence == Precedence::Exempt {
        return Ok(None);
    }
    let asker = order.asker(issuer);
    let claim = claim(&limits, asker, precedence);
    let reserved = rate_limits::reserve(&mut tx, order.id, &claim, now).await?;
    tx.commit().await?;
    Ok(match reserved {
        Reserved::Granted => None,
        Reserved::Wait { until, key } => Some(spent(&limits, asker, &key).not_before(Some(until))),
    })
}

/// Whether the CA does not count this order.
pub(super) async fn is_exempt(
    db: &Db,
    order: &Order,
    now: OffsetDateTime,
) -> Result<bool, StorageError> {
    if order.replaces.is_none() {
        return Ok(false);
    }
    let mut read = db.read().await?;
    let found = certificates::find(&mut read, order.certificate, &Scope::Everything).await?;
    let certificate = found.map(|(certificate, _)| certificate);
    Ok(precedence(order, certificate.as_ref(), now) == Precedence::Exempt)
}

/// An order that was told to wait for something else gives up its place in the queue.
pub(super) async fn leave_queue(
    db: &Db,
    issuer: &Issuer,
    order: &Order,
) -> Result<(), StorageError> {
    if limits(issuer) != Limits::default() {
        let mut tx = db.begin();
        rate_limits::leave(&mut tx, order.id).await?;
        tx.commit().await?;
    }
    Ok(())
}

/// Counts the failed validations, in the transaction that ends the order.
pub(crate) async fn count_failures(
    tx: &mut Tx,
    issuer: &Issuer,
    order: &Order,
    outcome: &Outcome,
    now: OffsetDateTime,
) -> Result<(), StorageError> {
    let Outcome::Failed(Failure { class: Class::Validation, .. }) = outcome else {
        return Ok(());
    };
    let limits = limits(issuer);
    let asker = order.asker(issuer);
    let failed = order.challenges.iter().filter(|one| one.state == challenge::State::Invalid);
    for one in failed {
        let counted = Counted::Name(one.domain.clone());
        if let Some(cost) = cost(limits.failed_validations_per_name.as_ref(), asker, &counted) {
            rate_limits::spend(tx, &cost, now).await?;
        }
    }
    Ok(())
}

/// The limits that hold for an issuer's account.
fn limits(issuer: &Issuer) -> Limits {
    LimitsSpec::of(issuer.acme.limits.as_ref(), &issuer.acme.server)
}

/// The precedence of an order. One that tells the CA which certificate it replaces (ARI), while the
/// CA suggests to replace it, is not counted by the CA, and so not here.
fn precedence(order: &Order, certificate: Option<&Certificate>, now: OffsetDateTime) -> Precedence {
    if let (Some(replaced), Some(certificate)) = (&order.replaces, certificate)
        && certificate.is_to_be_replaced(replaced, now)
    {
        return Precedence::Exempt;
    }
    let renewing = |certificate: &&Certificate| {
        matches!(certificate.state, State::Ordering(Trigger::Renewing | Trigger::ManuallyTriggered))
    };
    let served = certificate.filter(renewing).and_then(|certificate| certificate.current.as_ref());
    served.map_or(Precedence::New(order.created_at), |served| Precedence::Renewal(served.not_after))
}

fn claim(limits: &Limits, asker: Asker<'_>, precedence: Precedence) -> Claim {
    let renewal = matches!(precedence, Precedence::Renewal(_));
    let mut order = cost(limits.new_orders.as_ref(), asker, &Counted::Account);
    if let Some(cost) = order.as_mut().filter(|_| !renewal) {
        cost.rate = cost.rate.without_reserve();
    }
    let domains = asker.domains().into_iter().filter(|_| !renewal).map(Counted::RegisteredDomain);
    let per_domain = limits.certificates_per_domain.as_ref();
    let mut certificates: Vec<_> =
        domains.filter_map(|domain| cost(per_domain, asker, &domain)).collect();
    certificates.extend(cost(
        limits.certificates_per_exact_set.as_ref(),
        asker,
        &Counted::ExactSet,
    ));
    let names = asker.bases().into_iter().map(Counted::Name);
    let per_name = limits.failed_validations_per_name.as_ref();
    Claim {
        room: names.filter_map(|name| cost(per_name, asker, &name)).collect(),
        order,
        certificates,
        priority: precedence.rank(),
    }
}

fn cost(limit: Option<&Limit>, asker: Asker<'_>, counted: &Counted) -> Option<Cost> {
    let rate = limit?.rate()?;
    Some(Cost { key: asker.key(counted), pool: asker.pool(counted), rate })
}

/// Describes the limit that an order waits for.
fn spent(limits: &Limits, asker: Asker<'_>, key: &str) -> Failure {
    let counted = asker.scopes().into_iter().find(|scope| asker.key(scope) == key);
    let (limit, what) = match &counted {
        Some(Counted::RegisteredDomain(name)) => {
            (&limits.certificates_per_domain, format!("certificates for names below {name}"))
        }
        Some(Counted::ExactSet) => {
            (&limits.certificates_per_exact_set, "certificates for exactly these names".to_owned())
        }
        Some(Counted::Name(name)) => {
            (&limits.failed_validations_per_name, format!("failed validations of {name}"))
        }
        _ => (&limits.new_orders, "new orders of the account".to_owned()),
    };
    let limit = limit.as_ref().map_or_else(String::new, |it| format!("{} in {}", it.count, it.per));
    let failure = Failure::of(
        code::ACME_BUDGET_SPENT,
        format!(
            "The issuer's limit of {what} ({limit}) is used up, or held back for renewals; the CA was not asked."
        ),
    );
    Failure { scope: counted, ..failure }
}
