//! How many calls a token may still make.
//!
//! Cloudflare counts 1,200 calls in 5 minutes and, past that, refuses everything of that user for
//! the next 5 minutes, the dashboard included. We stop ourselves before that: whoever calls with a
//! token spends of the one budget that it has at a host, through whichever issuer, zone or client.
//! Each replica keeps a budget of its own.

use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use crate::outbound::{Rate, Rates};

/// 500 calls at once and 600 in the 5 minutes after them stay below 1,200 and leave something to other
/// users of the account.
const RATE: Rate = Rate { burst: 500, interval: Duration::milliseconds(500) };

/// Tokens that were called with lately; beyond, no other one is.
const MOST: usize = 10_000;

/// A token at a host. Only its digest: keys of a map are easily logged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Account {
    pub(super) host: String,
    pub(super) token_digest: Vec<u8>,
}

/// The budgets of all tokens. A cheap handle.
#[derive(Clone)]
pub(super) struct Budgets(Arc<Rates<Account>>);

impl Budgets {
    /// Nothing is spent yet.
    pub(super) fn new() -> Self {
        Self(Arc::new(Rates::new(RATE, MOST)))
    }

    pub(super) fn of(&self, account: Account) -> Budget {
        Budget { all: self.clone(), account }
    }
}

/// The calls that one token may make.
pub(super) struct Budget {
    all: Budgets,
    account: Account,
}

impl Budget {
    /// Spends one call, or says when to come back.
    pub(super) fn spend(&self, now: OffsetDateTime) -> Result<(), OffsetDateTime> {
        self.all.0.spend(&self.account, now)
    }

    /// Whether less is left than has been spent lately.
    pub(super) fn is_short(&self, now: OffsetDateTime) -> bool {
        self.all.0.is_short(&self.account, now)
    }

    /// Remembers that nothing more will be answered before `until`.
    pub(super) fn park(&self, until: OffsetDateTime, now: OffsetDateTime) {
        self.all.0.park(&self.account, until, now);
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-01-01 0:00 UTC);

    fn account(token: &str) -> Account {
        Account { host: "api.example".to_owned(), token_digest: token.as_bytes().to_vec() }
    }

    #[test]
    fn five_minutes_of_haste_through_many_clients_stay_below_the_limit() {
        let budgets = Budgets::new();
        let clients: Vec<Budget> = (0..3).map(|_| budgets.of(account("one"))).collect();

        let calls = (0..300_000)
            .filter(|ms| {
                let client = &clients[usize::try_from(ms % 3).unwrap()];
                client.spend(START + Duration::milliseconds(*ms)).is_ok()
            })
            .count();

        assert!((1000..1150).contains(&calls), "{calls}");
        assert!(budgets.of(account("other")).spend(START).is_ok());
    }

    #[test]
    fn what_one_client_is_told_holds_for_all_with_that_token() {
        let budgets = Budgets::new();
        budgets.of(account("one")).park(START + Duration::minutes(5), START);

        let later = budgets.of(account("one")).spend(START);
        assert_eq!(later, Err(START + Duration::minutes(5)));
    }
}
