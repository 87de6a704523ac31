//! What storage knows of limits and flows, on both databases.

use certwright::domain::challenge::{self, Challenge};
use certwright::domain::failure::{Failure, code};
use certwright::domain::id::{CertificateId, ChallengeId, IssuerId};
use certwright::domain::limits::{Limit, Precedence};
use certwright::domain::order::{End, Order, State};
use certwright::domain::throttle::{Asker, Scope as Held, Throttle};
use certwright::storage::fair;
use certwright::storage::fair::{Flow, OLDEST};
use certwright::storage::lease::{LEASE, Machine};
use certwright::storage::rate_limits;
use certwright::storage::rate_limits::{Claim, Cost, Reserved};
use certwright::storage::{
    Page, Scope, StorageError, Tx, certificates, challenges, orders, throttles,
};
use sqlx::{Connection as _, SqliteConnection};
use time::{Duration, OffsetDateTime};

use super::rows::{NOW, certificate, issuer, order};
use crate::support::databases::{on_both_databases, open, sqlite_url};

on_both_databases! {
    async fn a_throttle_holds_until_its_end_and_never_shorter(db: Db) {
        let mut tx = db.begin();
        let later = NOW + Duration::minutes(5);
        let keys = ["account a".to_owned(), "endpoint e".to_owned()];

        throttles::hold(&mut tx, "account a", &Held::Account, later, &failure("first"), NOW).await.unwrap();
        let sooner = NOW + Duration::minutes(1);
        throttles::hold(&mut tx, "account a", &Held::Account, sooner, &failure("second"), NOW).await.unwrap();

        let held = throttles::held(&mut tx, &keys, NOW).await.unwrap();
        assert_eq!(held, Some((later, failure("first"))));
        assert_eq!(throttles::held(&mut tx, &keys[1..], NOW).await.unwrap(), None);
        assert_eq!(throttles::held(&mut tx, &keys, later).await.unwrap(), None, "it is over");
    }

    async fn what_is_over_is_swept_without_being_looked_for(db: Db) {
        let mut tx = db.begin();
        let (soon, later) = (NOW + Duration::minutes(1), NOW + Duration::hours(2));
        throttles::hold(&mut tx, "a", &Held::Account, soon, &failure("a"), NOW).await.unwrap();
        assert!(rate_limits::spend(&mut tx, &cost("set a", 5), NOW).await.unwrap());
        let order = insert_order(&mut tx, IssuerId::generate(NOW), "a", NOW).await;

        throttles::hold(&mut tx, "b", &Held::Account, later + LEASE, &failure("b"), later).await.unwrap();
        rate_limits::reserve(&mut tx, order.id, &claim(2), later).await.unwrap();

        let keys = ["a".to_owned()];
        assert_eq!(throttles::held(&mut tx, &keys, NOW).await.unwrap(), None);
        assert_eq!(rate_limits::fullest(&mut tx, "set a").await.unwrap(), None);
        assert!(rate_limits::fullest(&mut tx, "account a").await.unwrap().is_some(), "and nothing else");
    }

    async fn a_changed_issuer_wakes_the_orders_that_wait_for_its_budget(db: Db) {
        let mut tx = db.begin();
        let issuer = IssuerId::generate(NOW);
        let order = insert_order(&mut tx, issuer, "a", NOW + Duration::hours(30)).await;

        orders::retake_steps(&mut tx, issuer, NOW).await.unwrap();

        let (found, _) = orders::find(&mut tx, order.id, &Scope::Everything).await.unwrap().unwrap();
        assert_eq!(found.next_action_at, Some(NOW));
    }

    async fn a_throttle_is_found_until_it_ends_or_is_lifted(db: Db) {
        let mut tx = db.begin();
        let until = NOW + Duration::hours(26);
        throttles::hold(&mut tx, "account a", &Held::Account, until, &failure("a"), NOW).await.unwrap();
        throttles::hold(&mut tx, "account b", &Held::Account, until, &failure("b"), NOW).await.unwrap();
        let page = Page::first(10);
        assert_eq!(throttles::list(&mut tx, page, until).await.unwrap().rows, []);

        let listed = throttles::list(&mut tx, page, NOW).await.unwrap().rows;
        let [a, _] = &listed[..] else { panic!("{listed:?}") };
        assert_eq!((a.key.as_str(), a.until, &a.why), ("account a", until, &failure("a")));
        assert_eq!(throttles::find(&mut tx, a.id, NOW).await.unwrap().as_ref(), Some(a));
        assert_eq!(throttles::find(&mut tx, a.id, until).await.unwrap(), None);

        throttles::lift(&mut tx, a.id).await.unwrap();
        assert_eq!(throttles::find(&mut tx, a.id, NOW).await.unwrap(), None);
        assert_eq!(throttles::list(&mut tx, page, NOW).await.unwrap().rows, listed[1..]);
    }

    async fn an_askers_throttles_are_those_of_its_ca_and_account_the_longest_first(db: Db) {
        let mut tx = db.begin();
        let asker = |account| Asker { server: "https://ca.example/directory", account, names: &[] };
        let here = asker("https://ca.example/acct/1");
        for (key, hours) in [
            ("endpoint ca.example:443", 1),
            ("endpoint ca.example:4430", 9),
            ("account https://ca.example/acct/1", 2),
            ("account https://ca.example/acct/12", 9),
            ("domain ca.example:443 example.com", 26),
            ("domain ca.example.org:443 example.com", 9),
            ("set ca.example:443 x", 4),
            ("name https://ca.example/acct/1 www.example.com", 5),
            ("name https://ca.example/acct/12 www.example.com", 9),
        ] {
            let until = NOW + Duration::hours(hours);
            throttles::hold(&mut tx, key, &Held::Account, until, &failure("no"), NOW).await.unwrap();
        }

        let found = throttles::of(&mut tx, &here.pools(), 9, NOW).await.unwrap();
        let hours = |found: &[Throttle]| found.iter().map(|one| (one.until - NOW).whole_hours()).collect::<Vec<_>>();
        assert_eq!(hours(&found), [26, 5, 4, 2, 1]);
        assert!(found.iter().all(|one| one.concerns(here)), "{found:?}");
        assert_eq!(throttles::of(&mut tx, &here.pools(), 2, NOW).await.unwrap(), found[..2]);
        let none = throttles::of(&mut tx, &asker("").pools(), 9, NOW + Duration::hours(3)).await.unwrap();
        assert_eq!(hours(&none), [26, 4], "without an account those of the CA, while they last");
    }

    async fn of_an_issuers_orders_those_that_wait_for_the_ca_are_woken(db: Db) {
        let mut tx = db.begin();
        let (issuer, later) = (IssuerId::generate(NOW), NOW + Duration::hours(26));
        let waiting = insert_order(&mut tx, issuer, "a", later).await;
        let elsewhere = insert_order(&mut tx, IssuerId::generate(NOW), "a", later).await;

        orders::wake_new(&mut tx, issuer, NOW).await.unwrap();

        for (order, expected) in [(waiting, NOW), (elsewhere, later)] {
            let found = orders::find(&mut tx, order.id, &Scope::Everything).await.unwrap();
            assert_eq!(found.unwrap().0.next_action_at, Some(expected));
        }
    }

    async fn the_longest_of_several_throttles_counts(db: Db) {
        let mut tx = db.begin();
        for (key, minutes) in [("a", 1), ("b", 3), ("c", 2)] {
            let until = NOW + Duration::minutes(minutes);
            throttles::hold(&mut tx, key, &Held::ExactSet, until, &failure(key), NOW).await.unwrap();
        }
        let keys = ["a", "b", "c"].map(str::to_owned);

        let held = throttles::held(&mut tx, &keys, NOW).await.unwrap();

        assert_eq!(held, Some((NOW + Duration::minutes(3), failure("b"))));
    }

    async fn a_budget_is_not_spent_twice_however_many_want_it(db: Db) {
        let tasks: Vec<_> = (0..40).map(|_| {
            let db = db.clone();
            tokio::spawn(async move {
                let mut tx = db.begin();
                let order = insert_order(&mut tx, IssuerId::generate(NOW), "a", NOW).await;
                tx.commit().await.unwrap();
                let claim = Claim { certificates: vec![cost("domain a", 10), cost("set a", 25)], ..claim(0) };
                let mut tx = db.begin();
                let reserved = rate_limits::reserve(&mut tx, order.id, &claim, NOW).await.unwrap();
                tx.commit().await.unwrap();
                reserved == Reserved::Granted
            })
        }).collect();
        let mut granted = 0;
        for task in tasks {
            granted += usize::from(task.await.unwrap());
        }

        assert_eq!(granted, 10);
        let mut tx = db.begin();
        let spent = async |tx: &mut Tx, pool| rate_limits::fullest(tx, pool).await.unwrap().unwrap() - NOW;
        assert_eq!(spent(&mut tx, "domain a").await, Duration::hours(10));
        assert_eq!(spent(&mut tx, "set a").await, Duration::hours(10), "who is refused takes nothing");
    }

    async fn what_was_reserved_is_not_taken_again_for_the_same_order(db: Db) {
        let mut tx = db.begin();
        let order = insert_order(&mut tx, IssuerId::generate(NOW), "a", NOW).await;

        for _ in 0..3 {
            let reserved = rate_limits::reserve(&mut tx, order.id, &claim(2), NOW).await.unwrap();
            assert_eq!(reserved, Reserved::Granted);
        }

        assert_eq!(rate_limits::fullest(&mut tx, "account a").await.unwrap(), Some(NOW + Duration::hours(1)));
    }

    async fn a_spent_budget_says_when_there_is_more(db: Db) {
        let mut tx = db.begin();
        let orders = insert_orders(&mut tx, 4).await;
        for order in &orders[..2] {
            rate_limits::reserve(&mut tx, order.id, &claim(2), NOW).await.unwrap();
        }

        let wait = rate_limits::reserve(&mut tx, orders[2].id, &claim(2), NOW).await.unwrap();
        let hour = NOW + Duration::hours(1);
        assert_eq!(wait, Reserved::Wait { until: hour, key: "account a".into() });
        let granted = rate_limits::reserve(&mut tx, orders[2].id, &claim(2), hour).await.unwrap();
        assert_eq!(granted, Reserved::Granted);
    }

    async fn a_fifth_is_left_for_renewals(db: Db) {
        let mut tx = db.begin();
        let orders = insert_orders(&mut tx, 12).await;
        let mut new = claim(10);
        new.order = new.order.map(|cost| Cost { rate: cost.rate.without_reserve(), ..cost });
        let renewal = Claim { priority: Precedence::Renewal(NOW).rank(), ..claim(10) };

        let mut granted = Vec::new();
        for order in &orders[..9] {
            granted.push(rate_limits::reserve(&mut tx, order.id, &new, NOW).await.unwrap() == Reserved::Granted);
        }
        for order in &orders[9..] {
            granted.push(rate_limits::reserve(&mut tx, order.id, &renewal, NOW).await.unwrap() == Reserved::Granted);
        }

        assert_eq!(granted, [[true; 8].as_slice(), &[false], &[true; 2], &[false]].concat());
    }

    async fn who_waits_goes_by_the_nearest_end_and_new_ones_last(db: Db) {
        let mut tx = db.begin();
        let orders = insert_orders(&mut tx, 5).await;
        let as_ = |precedence: Precedence| Claim { priority: precedence.rank(), ..claim(1) };
        let waiting = [
            as_(Precedence::New(NOW)),
            as_(Precedence::Renewal(NOW + Duration::days(9))),
            as_(Precedence::Renewal(NOW + Duration::days(2))),
        ];
        rate_limits::reserve(&mut tx, orders[4].id, &claim(1), NOW).await.unwrap();
        let mut untils = Vec::new();
        for (order, claim) in orders.iter().zip(&waiting) {
            untils.push(until(&rate_limits::reserve(&mut tx, order.id, claim, NOW).await.unwrap()));
        }

        let hours = |hours| NOW + Duration::hours(hours);
        assert_eq!(untils, [hours(1), hours(1), hours(1)], "each first among those that it knew");
        let mut went = Vec::new();
        for hour in 1..=3 {
            // Whoever comes back first, the next in line is served.
            for (place, (order, claim)) in orders.iter().zip(&waiting).enumerate() {
                if went.contains(&place) { continue }
                match rate_limits::reserve(&mut tx, order.id, claim, hours(hour)).await.unwrap() {
                    Reserved::Granted => went.push(place),
                    Reserved::Wait { until, .. } => assert!(until > hours(hour), "it rests meanwhile"),
                }
            }
        }
        assert_eq!(went, [2, 1, 0]);
    }

    async fn who_leaves_the_queue_holds_nobody_up(db: Db) {
        let mut tx = db.begin();
        let orders = insert_orders(&mut tx, 3).await;
        rate_limits::reserve(&mut tx, orders[0].id, &claim(1), NOW).await.unwrap();
        let first = Claim { priority: 1, ..claim(1) };
        rate_limits::reserve(&mut tx, orders[1].id, &first, NOW).await.unwrap();
        let second = Claim { priority: 2, ..claim(1) };
        let later = NOW + Duration::hours(1);
        assert!(matches!(rate_limits::reserve(&mut tx, orders[2].id, &second, later).await.unwrap(), Reserved::Wait { .. }));

        rate_limits::leave(&mut tx, orders[1].id).await.unwrap();

        assert_eq!(rate_limits::reserve(&mut tx, orders[2].id, &second, later).await.unwrap(), Reserved::Granted);
    }

    async fn an_order_that_ends_gives_back_what_it_did_not_use(db: Db) {
        use challenge::State::{Errored, Valid};
        let url = Some("https://ca.example/1".to_owned());
        for (url, end, proofs, orders_used, certificates_used) in [
            (None, End::Errored, vec![], 0, 0),
            (url.clone(), End::Invalid, vec![Valid, Errored], 1, 0),
            (url.clone(), End::Errored, vec![Valid], 1, 1),
            (url, End::Valid, vec![Valid], 1, 1),
        ] {
            let mut tx = db.begin();
            let mut order = insert_order(&mut tx, IssuerId::generate(NOW), "a", NOW).await;
            let claim = Claim { certificates: vec![cost("domain a", 10)], ..claim(10) };
            rate_limits::reserve(&mut tx, order.id, &claim, NOW).await.unwrap();
            order.challenges = proofs.into_iter().map(proof).collect();
            challenges::insert(&mut tx, order.id, &order.challenges).await.unwrap();
            order.state = State::Done { url, end };
            for _ in 0..2 {
                let (_, lease) = orders::find(&mut tx, order.id, &Scope::Everything).await.unwrap().unwrap();
                orders::save(&mut tx, &order, &order.challenges, &lease, None).await.unwrap();
            }

            let used = async |tx: &mut Tx, pool| {
                let spent = rate_limits::fullest(tx, pool).await.unwrap().unwrap_or(NOW);
                (spent - NOW).whole_hours()
            };
            let seen = (used(&mut tx, "account a").await, used(&mut tx, "domain a").await);
            assert_eq!(seen, (orders_used, certificates_used), "{:?}", order.state);
        }
    }

    async fn what_an_issuer_has_spent_is_read_by_its_account_and_limits(db: Db) {
        let mut tx = db.begin();
        let mut one = issuer();
        let limits = r#"{"newOrders": {"count": 10, "per": "10h"}}"#;
        one.acme.limits = Some(serde_json::from_str(limits).unwrap());
        let asker = Asker { server: &one.acme.server, account: "", names: &[] };
        let pool = asker.pool(&Held::Account);
        for spent in [0, 3] {
            for _ in 0..spent {
                assert!(rate_limits::spend(&mut tx, &cost(&pool, 10), NOW).await.unwrap());
            }

            let found = rate_limits::spent(&mut tx, &one, NOW).await.unwrap();

            let [(name, limit, until)] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!((*name, limit.count), ("newOrders", 10));
            assert_eq!(*until, NOW + Duration::hours(spent));
        }
    }

    async fn failures_use_up_the_room_of_a_name(db: Db) {
        let mut tx = db.begin();
        let order = insert_order(&mut tx, IssuerId::generate(NOW), "a", NOW).await;
        let claim = Claim { room: vec![cost("name a", 2)], ..claim(9) };
        for _ in 0..2 {
            assert!(rate_limits::spend(&mut tx, &claim.room[0], NOW).await.unwrap());
        }
        assert!(!rate_limits::spend(&mut tx, &claim.room[0], NOW).await.unwrap(), "no more than there is");

        let wait = rate_limits::reserve(&mut tx, order.id, &claim, NOW).await.unwrap();

        assert_eq!(wait, Reserved::Wait { until: NOW + Duration::hours(1), key: "name a".into() });
        assert_eq!(rate_limits::fullest(&mut tx, "account a").await.unwrap(), None, "nothing else was taken");
    }

    async fn lanes_tell_whose_work_is_due(db: Db) {
        let (one, other) = (IssuerId::generate(NOW), IssuerId::generate(NOW));
        let mut tx = db.begin();
        for (issuer, namespace, seconds) in [(one, "a", 2), (one, "a", 1), (one, "b", 3), (other, "a", 60)] {
            insert_order(&mut tx, issuer, namespace, NOW + Duration::seconds(seconds)).await;
        }

        let soon = NOW + Duration::seconds(10);
        let due = fair::oldest(&mut tx, Machine::Order, soon).await.unwrap();
        let at = |seconds| NOW + Duration::seconds(seconds);
        assert_eq!(due.flows, [(flow(one, "a"), at(1)), (flow(one, "b"), at(3))]);
        assert!(!due.more);
        let every = fair::every(&mut tx, Machine::Order).await.unwrap();
        assert_eq!(every.flows[2], (flow(other, "a"), at(60)));
        assert!(fair::every(&mut tx, Machine::Certificate).await.unwrap().flows.is_empty());
    }

    async fn a_crowded_lane_does_not_hide_the_one_behind_it(db: Db) {
        let (crowded, behind) = (IssuerId::generate(NOW), IssuerId::generate(NOW));
        let mut tx = db.begin();
        for _ in 0..OLDEST {
            insert_order(&mut tx, crowded, "a", NOW).await;
        }
        let last = insert_order(&mut tx, behind, "b", NOW + Duration::seconds(1)).await;

        let now = NOW + Duration::seconds(1);
        let oldest = fair::oldest(&mut tx, Machine::Order, now).await.unwrap();
        assert_eq!((oldest.flows.len(), oldest.more), (1, true));
        let every = fair::every(&mut tx, Machine::Order).await.unwrap();
        assert_eq!(every.flows.len(), 2);
        let claimed = fair::claim(&mut tx, &flow(behind, "b"), "test", now, 5).await.unwrap();
        assert_eq!(claimed.iter().map(|one| one.lease.id).collect::<Vec<_>>(), [last.id.0]);
        assert_eq!(claimed[0].certificate, None);
    }

    async fn a_claim_in_a_lane_is_a_lease_like_any_other(db: Db) {
        let mut tx = db.begin();
        for name in ["one", "two"] {
            certificates::insert(&mut tx, &certificate(name)).await.unwrap();
        }
        let flow = Flow { machine: Machine::Certificate, issuer: None, namespace: "default".into() };

        let first = fair::claim(&mut tx, &flow, "test", NOW, 1).await.unwrap();
        let rest = fair::claim(&mut tx, &flow, "test", NOW, 5).await.unwrap();
        assert_eq!((first.len(), rest.len()), (1, 1));
        let named = [&first[0], &rest[0]].map(|one| one.certificate.as_ref().unwrap().name.as_str());
        assert_eq!(named, ["one", "two"]);
        assert!(fair::claim(&mut tx, &flow, "test", NOW, 5).await.unwrap().is_empty());
        // On PostgreSQL the database's clock says when a lease has run out.
        if db.dialect() == "sqlite" {
            let again = fair::claim(&mut tx, &flow, "test", NOW + LEASE, 5).await.unwrap();
            assert_eq!(again.len(), 2, "its worker died");
            let (found, _) = certificates::find(&mut tx, CertificateId(first[0].lease.id), &Scope::Everything)
                .await.unwrap().unwrap();
            certificates::save(&mut tx, &found.wake(NOW), &first[0].lease, None).await.unwrap();
            let fenced = tx.commit().await;
            assert!(matches!(fenced, Err(StorageError::LeaseLost(_))), "the dead worker is fenced");
        }
    }
}

/// Its own step says that it cannot be read; those that are claimed with it go on.
#[tokio::test]
async fn a_row_that_cannot_be_read_is_claimed_like_its_neighbours() {
    let (_folder, url) = sqlite_url();
    let db = open(&url).await;
    let mut tx = db.begin();
    for name in ["one", "two"] {
        certificates::insert(&mut tx, &certificate(name)).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut raw = SqliteConnection::connect(&url).await.unwrap();
    let damage = "UPDATE certificates SET spec = '{}' WHERE name = 'one'";
    sqlx::query(damage).execute(&mut raw).await.unwrap();
    let flow = Flow { machine: Machine::Certificate, issuer: None, namespace: "default".into() };

    let claimed = fair::claim(&mut db.begin(), &flow, "test", NOW, 5).await.unwrap();

    let names = claimed.iter().map(|one| one.certificate.as_ref().map(|it| it.name.as_str()));
    assert_eq!(names.collect::<Vec<_>>(), [None, Some("two")]);
}

/// `count` new orders of the account at once, and one more every hour.
fn claim(count: u32) -> Claim {
    let order = (count > 0).then(|| cost("account a", count));
    let priority = Precedence::New(NOW).rank();
    Claim { room: vec![], order, certificates: vec![], priority }
}

fn cost(key: &str, count: u32) -> Cost {
    let rate = Limit { count, per: format!("{count}h") }.rate().unwrap();
    Cost { key: key.into(), pool: key.into(), rate }
}

fn until(reserved: &Reserved) -> OffsetDateTime {
    match reserved {
        Reserved::Wait { until, .. } => *until,
        Reserved::Granted => panic!("it had to wait"),
    }
}

async fn insert_orders(tx: &mut Tx, count: usize) -> Vec<Order> {
    let mut orders = Vec::with_capacity(count);
    for _ in 0..count {
        orders.push(insert_order(tx, IssuerId::generate(NOW), "a", NOW).await);
    }
    orders
}

fn proof(state: challenge::State) -> Challenge {
    let id = ChallengeId::generate(NOW);
    let next_action_at = None;
    let like = order(CertificateId::generate(NOW)).challenges.remove(0);
    Challenge { id, kind: challenge::Kind::Dns01, state, next_action_at, ..like }
}

fn failure(words: &str) -> Failure {
    Failure::of(code::ACME_RATE_LIMITED, words)
}

fn flow(issuer: IssuerId, namespace: &str) -> Flow {
    Flow { machine: Machine::Order, issuer: Some(issuer), namespace: namespace.into() }
}

async fn insert_order(
    tx: &mut Tx,
    issuer: IssuerId,
    namespace: &str,
    due: OffsetDateTime,
) -> Order {
    let order = Order {
        issuer,
        namespace: namespace.into(),
        challenges: Vec::new(),
        next_action_at: Some(due),
        ..order(CertificateId::generate(NOW))
    };
    orders::insert(tx, &order, None).await.unwrap();
    order
}
