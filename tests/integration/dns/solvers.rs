//! The solvers over real HTTP and DNS, against the Cloudflare double.

use std::sync::Arc;

use certwright::clock::{Clock, SystemClock};
use certwright::domain::challenge::{Proof, Record, in_words};
use certwright::domain::failure::Class;
use certwright::domain::id::ChallengeId;
use certwright::domain::issuer::{self, Kind};
use certwright::outbound::{Allow, Guard};
use certwright::secret::Secret;
use certwright::solver::{Readiness, Solver, SolverSettings, Solvers};
use futures_util::future::{FutureExt as _, join_all};

use crate::support::cloudflare::Cloudflare;

pub(super) const ZONE: &str = "example.org";

/// A double, and the solvers that ask it.
pub(super) struct World {
    pub(super) cloudflare: Cloudflare,
    pub(super) solvers: Solvers,
}

impl World {
    pub(super) async fn with_zones(zones: &[&str]) -> Self {
        Self::with(zones, 80, Allow::parse(["127.0.0.0/8", "::1"]).unwrap()).await
    }

    pub(super) async fn with(zones: &[&str], self_check_port: u16, outbound_allow: Allow) -> Self {
        let cloudflare = Cloudflare::start(zones).await;
        let solvers = Solvers::new(SolverSettings {
            clock: Arc::new(SystemClock),
            installation: "tests".to_owned(),
            nameservers: vec![cloudflare.dns_addr()],
            authority_port: cloudflare.dns_addr().port(),
            self_check_port,
            guard: Guard::asking(&[cloudflare.dns_addr()], outbound_allow).unwrap(),
        })
        .unwrap();
        Self { cloudflare, solvers }
    }

    /// What an issuer with this Cloudflare account says.
    pub(super) fn config(&self) -> issuer::Solver {
        let cloudflare = issuer::Cloudflare {
            api_token_secret_ref: issuer::SecretKeySelector { name: "token".into(), key: None },
            base_url: Some(self.cloudflare.base_url()),
            zone_id: None,
            email: None,
        };
        let dns01 = issuer::Dns01 { cloudflare: Some(cloudflare), ..issuer::Dns01::default() };
        issuer::Solver { selector: None, http01: None, dns01: Some(dns01) }
    }

    pub(super) fn dns01(&self) -> Arc<dyn Solver> {
        self.dns01_with(|_| {})
    }

    pub(super) fn dns01_with(&self, change: impl FnOnce(&mut issuer::Dns01)) -> Arc<dyn Solver> {
        self.dns01_of(Kind::ClusterIssuer, change)
    }

    /// The solver of an issuer of this kind.
    pub(super) fn dns01_of(
        &self,
        kind: Kind,
        change: impl FnOnce(&mut issuer::Dns01),
    ) -> Arc<dyn Solver> {
        let mut config = self.config();
        change(config.dns01.as_mut().unwrap());
        let token = Secret::new(self.cloudflare.token().to_owned());
        self.solvers.solver(kind, &config, Some(&token)).unwrap()
    }

    pub(super) fn http01(&self) -> Arc<dyn Solver> {
        let http01 = Some(issuer::Http01::default());
        let config = issuer::Solver { selector: None, http01, dns01: None };
        self.solvers.solver(Kind::ClusterIssuer, &config, None).unwrap()
    }

    pub(super) fn values(&self, zone: &str) -> Vec<String> {
        let records = self.cloudflare.records(zone);
        records.iter().map(|record| record.content.trim_matches('"').to_owned()).collect()
    }
}

pub(super) fn proof(domain: &str, token: &str) -> Proof {
    Proof {
        challenge: ChallengeId::generate(SystemClock.now()),
        domain: domain.to_owned(),
        token: token.to_owned(),
        key_authorization: format!("{token}.thumbprint"),
    }
}

pub(super) async fn present(solver: &Arc<dyn Solver>, proof: &Proof) -> Record {
    solver.present(proof).await.unwrap().expect("DNS-01 writes a record")
}

pub(super) async fn observed(solver: &Arc<dyn Solver>, proof: &Proof) -> String {
    match solver.is_ready(proof, None).await.unwrap() {
        Readiness::Ready => panic!("nobody can have seen the proof"),
        Readiness::NotYet { observed } => in_words(&observed),
    }
}

#[tokio::test]
async fn apex_and_wildcard_stand_side_by_side() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let (apex, wildcard) = (proof(ZONE, "apex"), proof(ZONE, "wildcard"));

    let first = present(&solver, &apex).await;
    let second = present(&solver, &wildcard).await;

    assert_eq!(world.values(ZONE), [apex.txt_value(), wildcard.txt_value()]);
    assert_eq!(solver.is_ready(&apex, Some(&first)).await.unwrap(), Readiness::Ready);
    assert_eq!(solver.is_ready(&wildcard, Some(&second)).await.unwrap(), Readiness::Ready);

    solver.clean_up(&apex, Some(&first)).await.unwrap();
    assert_eq!(world.values(ZONE), [wildcard.txt_value()]);
}

#[tokio::test]
async fn a_record_says_whose_it_is_and_is_short_lived() {
    let world = World::with_zones(&[ZONE]).await;
    let proof = proof("app.example.org", "token");

    let record = present(&world.dns01(), &proof).await;

    let stored = &world.cloudflare.records(ZONE)[0];
    let comment = format!("certwright tests {}", proof.challenge);
    assert_eq!(stored.comment.as_deref(), Some(comment.as_str()));
    assert_eq!((stored.ttl, stored.name.as_str()), (60, "_acme-challenge.app.example.org"));
    assert_eq!((&record.id, &record.zone), (&stored.id, &world.cloudflare.zone_id(ZONE)));
    assert_eq!((record.name, record.value), (stored.name.clone(), proof.txt_value()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_certificates_at_once_cost_at_most_twenty_calls() {
    let world = World::with_zones(&[ZONE]).await;
    let proofs: Vec<Proof> =
        (0..100).map(|n| proof(&format!("host{n}.example.org"), &format!("token{n}"))).collect();

    // Each certificate asks for its own solver, as the worker does.
    let presented = proofs.iter().map(async |proof| present(&world.dns01(), proof).await);
    let records: Vec<Record> = join_all(presented).await;
    assert_eq!(world.cloudflare.records(ZONE).len(), 100);
    let cleaned = proofs.iter().zip(&records).map(async |(proof, record)| {
        world.dns01().clean_up(proof, Some(record)).await.unwrap();
    });
    join_all(cleaned).await;

    let calls = world.cloudflare.calls();
    assert_eq!(world.values(ZONE), Vec::<String>::new());
    assert_eq!(calls.zones, 1, "{calls:?}");
    assert!(calls.total() <= 20, "{calls:?}");
}

#[tokio::test]
async fn more_than_a_batch_holds_goes_in_several_calls() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proofs: Vec<Proof> =
        (0..450).map(|n| proof(&format!("host{n}.example.org"), &n.to_string())).collect();

    let records = join_all(proofs.iter().map(|proof| present(&solver, proof))).await;

    for (proof, record) in proofs.iter().zip(&records) {
        assert_eq!(record.name, proof.txt_name(), "everybody gets the answer to its own wish");
        assert_eq!(record.value, proof.txt_value());
    }
    let stored = world.cloudflare.records(ZONE);
    assert!(records.iter().all(|record| {
        stored.iter().any(|stored| (&stored.id, &stored.name) == (&record.id, &record.name))
    }));
    assert_eq!(world.cloudflare.calls().batch, 3);
}

#[tokio::test]
async fn an_identical_record_is_adopted() {
    let world = World::with_zones(&[ZONE]).await;
    let proof = proof("app.example.org", "token");
    let before = world.cloudflare.seed_txt(ZONE, &proof.txt_name(), &proof.txt_value(), None);

    let record = present(&world.dns01(), &proof).await;

    assert_eq!(record.id, before);
    assert_eq!(world.cloudflare.records(ZONE).len(), 1);
}

#[tokio::test]
async fn a_refused_batch_gives_each_record_its_own_answer() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proofs: Vec<Proof> =
        (0..8).map(|n| proof(&format!("host{n}.example.org"), &n.to_string())).collect();
    let twin = &proofs[3];
    let id = world.cloudflare.seed_txt(ZONE, &twin.txt_name(), &twin.txt_value(), None);

    let records = join_all(proofs.iter().map(|proof| present(&solver, proof))).await;

    assert_eq!(records[3].id, id, "the one that was there is adopted");
    assert_eq!(world.cloudflare.records(ZONE).len(), 8);
    assert!(world.cloudflare.calls().create >= 1, "single calls found out which one it was");
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_nobody_elses_answer_along() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    // The zone is known, so that the next wish goes to its writer at once.
    present(&solver, &proof("first.example.org", "first")).await;
    let (gone, stays) = (proof("gone.example.org", "gone"), proof("stays.example.org", "stays"));

    let hasty = solver.present(&gone).now_or_never();
    let record = present(&solver, &stays).await;

    assert!(hasty.is_none(), "it did not wait");
    assert_eq!(record.value, stays.txt_value());
    assert!(!world.values(ZONE).contains(&gone.txt_value()), "nobody would remember this record");
}

#[tokio::test]
async fn a_forgotten_record_is_found_by_value_and_foreign_ones_stay() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proof = proof("app.example.org", "token");
    let name = proof.txt_name();
    world.cloudflare.seed_txt(ZONE, &name, "something else", Some("certwright tests x"));
    world.cloudflare.seed_txt(ZONE, "other.example.org", &proof.txt_value(), None);
    present(&solver, &proof).await;

    solver.clean_up(&proof, None).await.unwrap();

    assert_eq!(world.values(ZONE), ["something else".to_owned(), proof.txt_value()]);
    assert_eq!(world.cloudflare.records(ZONE)[1].name, "other.example.org");
}

#[tokio::test]
async fn what_another_installation_wrote_is_not_deleted_by_value() {
    let world = World::with_zones(&[ZONE]).await;
    let proof = proof("app.example.org", "token");
    for comment in [None, Some("by hand"), Some("certwright tests2 x"), Some("certwright tests")] {
        let name = proof.txt_name();
        world.cloudflare.seed_txt(ZONE, &name, &proof.txt_value(), comment);
    }

    world.dns01().clean_up(&proof, None).await.unwrap();

    assert_eq!(world.cloudflare.records(ZONE).len(), 4);
}

#[tokio::test]
async fn a_record_that_is_gone_already_is_cleaned_up() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proofs: Vec<Proof> =
        (0..3).map(|n| proof(&format!("host{n}.example.org"), &n.to_string())).collect();
    let records = join_all(proofs.iter().map(|proof| present(&solver, proof))).await;
    world.cloudflare.remove_record(ZONE, &records[1].id);

    let cleaned = proofs.iter().zip(&records);
    let cleaned = cleaned.map(|(proof, record)| solver.clean_up(proof, Some(record)));
    let outcomes = join_all(cleaned).await;

    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    assert_eq!(world.values(ZONE), Vec::<String>::new());
}

#[tokio::test]
async fn a_wrong_token_is_named_and_not_shown() {
    let world = World::with_zones(&[ZONE]).await;
    let wrong = world.cloudflare.token().replace("0123", "9999");
    let malformed = "too-short".to_owned();

    for token in [wrong, malformed] {
        let secret = Secret::new(token.clone());
        let solver =
            world.solvers.solver(Kind::ClusterIssuer, &world.config(), Some(&secret)).unwrap();
        let failure = solver.present(&proof("app.example.org", "token")).await.unwrap_err();

        assert_eq!(
            (failure.class, failure.code.as_str()),
            (Class::Blocked, "cloudflare_invalid_token")
        );
        assert!(failure.detail.contains("9109") || failure.detail.contains("6111"), "{failure}");
        assert!(!format!("{failure:?}").contains(&token), "{failure:?}");
    }
}

#[tokio::test]
async fn a_zone_that_is_not_there_is_named() {
    let world = World::with_zones(&[ZONE]).await;

    let failure = world.dns01().present(&proof("app.example.net", "t")).await.unwrap_err();

    assert_eq!(
        (failure.class, failure.code.as_str()),
        (Class::Blocked, "cloudflare_zone_not_found")
    );
    assert!(failure.title.contains("app.example.net"), "{failure}");
    assert!(failure.detail.contains("Add the zone"), "{failure}");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let world = World::with_zones(&[ZONE]).await;
    world.cloudflare.forbid_edits(ZONE);

    let failure = world.dns01().present(&proof("app.example.org", "t")).await.unwrap_err();
    assert_eq!(failure.code, "cloudflare_permission_denied");
    assert_eq!(failure.http_status, Some(403));
    assert!(failure.detail.contains("code 10000"), "{failure}");
    assert!(failure.detail.contains("DNS:Edit"), "{failure}");

    let world = World::with_zones(&[ZONE]).await;
    world.cloudflare.forbid_zone_listing();
    let failure = world.dns01().present(&proof("app.example.org", "t")).await.unwrap_err();
    assert_eq!(failure.code, "cloudflare_permission_denied");
    assert!(failure.detail.contains("Zone:Read"), "{failure}");
}

#[tokio::test]
async fn a_given_zone_id_spares_look_up_and_permission() {
    let world = World::with_zones(&[ZONE]).await;
    world.cloudflare.forbid_zone_listing();
    let id = world.cloudflare.zone_id(ZONE);
    let solver = world.dns01_with(|dns01| dns01.cloudflare.as_mut().unwrap().zone_id = Some(id));

    present(&solver, &proof("app.example.org", "t")).await;

    assert_eq!(world.cloudflare.calls().zones, 0);
    assert_eq!(world.cloudflare.records(ZONE).len(), 1);
}

#[tokio::test]
async fn a_rate_limit_says_when_to_come_back_and_nothing_is_asked_before() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    world.cloudflare.limit_next(1, "120");
    let before = SystemClock.now();

    let failure = solver.present(&proof("app.example.org", "t")).await.unwrap_err();
    let sibling = solver.present(&proof("sibling.example.org", "t")).await.unwrap_err();

    assert_eq!((failure.class, failure.http_status), (Class::Throttle, Some(429)));
    let at = failure.retry_at.expect("Cloudflare said when");
    let wait = |since: time::OffsetDateTime| (at - since).whole_seconds();
    assert!(wait(before) >= 119 && wait(SystemClock.now()) <= 121, "{at}");
    assert_eq!((sibling.class, sibling.retry_at), (Class::Throttle, failure.retry_at));
    assert_eq!(world.cloudflare.calls().total(), 1, "the sibling did not burn a call");
}

#[tokio::test]
async fn trouble_at_cloudflare_is_transient() {
    let world = World::with_zones(&[ZONE]).await;
    world.cloudflare.answer_html(1);
    let solver = world.dns01();
    let proof = proof("app.example.org", "t");

    let failure = solver.present(&proof).await.unwrap_err();
    assert_eq!((failure.class, failure.http_status), (Class::Transient, Some(502)));

    present(&solver, &proof).await;
}

#[tokio::test]
async fn a_lost_answer_and_a_repetition_leave_one_record() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proof = proof("app.example.org", "t");
    world.cloudflare.fail_after_writing(1);

    let failure = solver.present(&proof).await.unwrap_err();
    assert_eq!(failure.class, Class::Transient);
    let record = present(&solver, &proof).await;

    assert_eq!(world.cloudflare.records(ZONE).len(), 1);
    assert_eq!(world.cloudflare.records(ZONE)[0].id, record.id);
}

#[tokio::test]
async fn a_zone_that_was_made_anew_is_looked_up_once_more() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    present(&solver, &proof("old.example.org", "t")).await;
    world.cloudflare.recreate_zone(ZONE);
    world.cloudflare.forget_calls();

    let record = present(&solver, &proof("new.example.org", "t")).await;

    assert_eq!(record.zone, world.cloudflare.zone_id(ZONE));
    assert_eq!(world.cloudflare.calls().zones, 1);

    world.cloudflare.recreate_zone(ZONE);
    solver.clean_up(&proof("new.example.org", "t"), None).await.unwrap();
    assert_eq!(world.cloudflare.calls().zones, 2);
}

#[tokio::test]
async fn a_stale_zone_costs_one_look_up_for_everybody() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    present(&solver, &proof("old.example.org", "t")).await;
    world.cloudflare.recreate_zone(ZONE);
    world.cloudflare.forget_calls();
    let proofs: Vec<Proof> =
        (0..50).map(|n| proof(&format!("host{n}.example.org"), &n.to_string())).collect();

    join_all(proofs.iter().map(|proof| present(&solver, proof))).await;

    let calls = world.cloudflare.calls();
    assert_eq!(world.cloudflare.records(ZONE).len(), 50);
    assert!(calls.total() <= 6, "{calls:?}");
}

#[tokio::test]
async fn what_a_crash_forgot_is_adopted_in_a_few_calls() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proofs: Vec<Proof> =
        (0..150).map(|n| proof(&format!("host{n}.example.org"), &n.to_string())).collect();
    let before = join_all(proofs[..120].iter().map(|proof| present(&solver, proof))).await;
    world.cloudflare.forget_calls();

    let after = join_all(proofs.iter().map(|proof| present(&solver, proof))).await;

    assert_eq!(before, after[..120]);
    assert_eq!(world.cloudflare.records(ZONE).len(), 150);
    let calls = world.cloudflare.calls();
    // The first do not wait for the others.
    assert!(calls.total() <= 7, "a refused batch and two pages, twice; the rest: {calls:?}");
}

#[tokio::test]
async fn a_child_zone_beats_its_parent() {
    let world = World::with_zones(&[ZONE, "child.example.org"]).await;
    let solver = world.dns01();

    present(&solver, &proof("app.child.example.org", "t")).await;
    present(&solver, &proof("grandchild.example.org", "t")).await;

    assert_eq!(world.cloudflare.records("child.example.org").len(), 1);
    assert_eq!(world.cloudflare.records(ZONE).len(), 1);
}

#[tokio::test]
async fn an_account_of_many_zones_is_asked_by_name() {
    let world = World::with_zones(&[ZONE, "child.example.org"]).await;
    for n in 0..520 {
        world.cloudflare.add_zone(&format!("zone{n}.example.net"));
    }
    let solver = world.dns01();

    present(&solver, &proof("app.child.example.org", "t")).await;
    present(&solver, &proof("app.child.example.org", "u")).await;

    assert_eq!(world.cloudflare.records("child.example.org").len(), 2);
    let calls = world.cloudflare.calls();
    assert_eq!(calls.zones, 3, "one page, the host's name, the child's: {calls:?}");
}
