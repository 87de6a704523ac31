//! How much a DNS provider is asked, whatever it answers: counted where it arrives, over simulated time.

use std::sync::Arc;

use certwright::clock::{Clock as _, ManualClock};
use certwright::domain::challenge::{Proof, Record};
use certwright::domain::failure::{Class, Failure};
use certwright::domain::id::ChallengeId;
use certwright::domain::issuer::{self, DnsProvider};
use certwright::outbound::{Allow, Guard};
use certwright::secret::Secret;
use certwright::solver::{Solver, SolverSettings, Solvers};
use futures_util::future::join_all;
use proptest::prelude::*;
use serde_json::json;
use time::Duration;
use time::macros::datetime;

use crate::issuance::{assert_ready, clean};
use crate::support::cloudflare::Cloudflare;
use crate::support::site::{Site, on_each_site};

/// What Cloudflare counts within five minutes, for each token.
const LIMIT: u32 = 1_200;

/// A double, and solvers whose clock moves when told to.
pub(crate) struct World {
    pub(crate) cloudflare: Cloudflare,
    pub(crate) clock: Arc<ManualClock>,
    solvers: Solvers,
}

impl World {
    pub(crate) async fn with_zones(zones: &[&str]) -> Self {
        let cloudflare = Cloudflare::start(zones).await;
        let clock = Arc::new(ManualClock::at(datetime!(2026-11-27 12:00 UTC)));
        let loopback = Allow::parse(["127.0.0.0/8"]).unwrap();
        let solvers = Solvers::new(SolverSettings {
            clock: clock.clone(),
            installation: "tests".to_owned(),
            nameservers: vec![cloudflare.dns_addr()],
            authority_port: cloudflare.dns_addr().port(),
            self_check_port: 80,
            guard: Guard::asking(&[cloudflare.dns_addr()], loopback).unwrap(),
        });
        Self { cloudflare, clock, solvers: solvers.unwrap() }
    }

    pub(crate) fn access(&self) -> issuer::Cloudflare {
        issuer::Cloudflare {
            api_token_secret_ref: issuer::SecretKeySelector { name: "token".into(), key: None },
            base_url: Some(self.cloudflare.base_url()),
            zone_id: None,
            email: None,
        }
    }

    pub(crate) fn dns01(&self) -> Arc<dyn Solver> {
        self.dns01_by(self.access())
    }

    pub(crate) fn dns01_by(&self, access: issuer::Cloudflare) -> Arc<dyn Solver> {
        let dns01 = issuer::Dns01 { cloudflare: Some(access), ..issuer::Dns01::default() };
        let config = issuer::Solver { selector: None, http01: None, dns01: Some(dns01) };
        self.solvers.solver(issuer::Kind::ClusterIssuer, &config, Some(&self.token())).unwrap()
    }

    pub(crate) fn token(&self) -> Secret<String> {
        Secret::new(self.cloudflare.token().to_owned())
    }

    pub(crate) async fn ours(&self, zone: &str) -> Result<usize, Failure> {
        let provider = self.solvers.dns_provider(
            issuer::Kind::ClusterIssuer,
            DnsProvider::Cloudflare(&self.access()),
            &self.token(),
        )?;
        provider.ours(&self.cloudflare.zone_id(zone)).await.map(|ours| ours.len())
    }

    fn calls(&self) -> u32 {
        self.cloudflare.calls().total()
    }
}

pub(crate) fn proof(domain: &str) -> Proof {
    Proof {
        challenge: ChallengeId::generate(datetime!(2026-11-27 12:00 UTC)),
        domain: domain.to_owned(),
        token: "token".to_owned(),
        key_authorization: format!("{domain}.thumbprint"),
    }
}

fn proofs(zone: &str, count: usize) -> Vec<Proof> {
    (0..count).map(|n| proof(&format!("host{n}.{zone}"))).collect()
}

async fn present_all(solver: &Arc<dyn Solver>, proofs: &[Proof]) -> Vec<Result<Record, Failure>> {
    let presented = join_all(proofs.iter().map(|proof| solver.present(proof))).await;
    presented.into_iter().map(|one| one.map(|record| record.expect("a record"))).collect()
}

fn failed(presented: &[Result<Record, Failure>]) -> Vec<&Failure> {
    presented.iter().filter_map(|one| one.as_ref().err()).collect()
}

mod one_token {
    use super::*;

    /// Whatever way a call takes: clients by every spelling of the URL, with and without a zone, showing,
    /// taking away, looking for what was left.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn has_one_budget_whichever_issuer_zone_or_path_spends_it() {
        let zones: Vec<String> = (0..10).map(|n| format!("zone{n}.test")).collect();
        let names: Vec<&str> = zones.iter().map(String::as_str).collect();
        let world = World::with_zones(&names).await;
        let slash = issuer::Cloudflare {
            base_url: Some(format!("{}/", world.cloudflare.base_url())),
            ..world.access()
        };
        let mut solvers = vec![world.dns01(), world.dns01_by(slash)];
        for zone in &zones {
            let zone_id = Some(world.cloudflare.zone_id(zone));
            solvers.push(world.dns01_by(issuer::Cloudflare { zone_id, ..world.access() }));
        }

        // Until nobody sends anything any more, however often they try again, and at once.
        let spend = async || {
            let mut before = u32::MAX;
            while before != world.calls() {
                before = world.calls();
                let looks = solvers.iter().zip(names.iter().cycle()).flat_map(|(solver, zone)| {
                    (0..8).map(move |n| async move {
                        let wanted = proof(&format!("host{n}.{zone}"));
                        solver.clean_up(&wanted, None).await.is_ok()
                    })
                });
                join_all(looks).await;
                join_all(names.iter().map(|zone| world.ours(zone))).await;
            }
        };
        spend().await;
        let at_once = world.calls();
        assert!((450..=600).contains(&at_once), "{at_once}");

        let mut within = at_once;
        for minute in 1..=5 {
            world.clock.advance(Duration::minutes(1));
            spend().await;
            let calls = world.calls() - within;
            assert!((100..=130).contains(&calls), "minute {minute}: {calls}");
            within = world.calls();
        }
        assert!(within <= LIMIT, "{within} within five minutes");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn that_was_told_to_wait_waits_in_every_client() {
        let world = World::with_zones(&["example.test"]).await;
        let zone_id = Some(world.cloudflare.zone_id("example.test"));
        let other = world.dns01_by(issuer::Cloudflare { zone_id, ..world.access() });
        world.cloudflare.limit_next(1, "120");

        let told = world.dns01().present(&proof("a.example.test")).await.unwrap_err();
        let calls = world.calls();
        let also = other.present(&proof("b.example.test")).await.unwrap_err();

        assert_eq!(
            (told.class, also.class, also.retry_at),
            (Class::Throttle, Class::Throttle, told.retry_at)
        );
        assert_eq!(world.calls(), calls);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..ProptestConfig::default() })]

    /// Refused in every way and tried again at once by whoever was refused.
    #[test]
    fn no_answers_make_a_token_call_more_than_its_limit(
        answers in prop::collection::vec(
            (
                prop::sample::select(vec![200_u16, 400, 401, 403, 404, 409, 429, 500, 503]),
                prop::sample::select(vec![1_u32, 971, 1004, 6003, 7003, 9109, 10000, 10429, 81044, 81045, 81057, 81058, 424_242]),
            ),
            0..400,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let world = World::with_zones(&["one.test", "two.test"]).await;
            let zone_id = Some(world.cloudflare.zone_id("two.test"));
            let solvers = [
                world.dns01(),
                world.dns01_by(issuer::Cloudflare { zone_id, ..world.access() }),
            ];
            world.cloudflare.refuse_next(answers);
            let mut calls = Vec::new();
            for _ in 0..10 {
                let before = world.calls();
                let wanted = || {
                    let zones = solvers.iter().zip(["one.test", "two.test"]);
                    zones.flat_map(|(solver, zone)| {
                        proofs(zone, 40).into_iter().map(move |proof| (solver, proof))
                    })
                };
                let shown = wanted().map(async |(solver, proof)| {
                    let record = solver.present(&proof).await.ok().flatten();
                    solver.clean_up(&proof, record.as_ref()).await.is_ok()
                });
                join_all(shown).await;
                for _ in 0..6 {
                    let sought = wanted().map(async |(solver, proof)| {
                        solver.clean_up(&proof, None).await.is_ok()
                    });
                    join_all(sought).await;
                }
                calls.push(world.calls() - before);
                world.clock.advance(Duration::minutes(1));
            }
            for five in calls.windows(5) {
                let calls: u32 = five.iter().sum();
                assert!(calls <= LIMIT, "{calls} calls within five minutes: {five:?}");
            }
        });
    }
}

mod a_zone_without_room {
    use super::*;

    const ROOM: usize = 20;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn takes_what_fits_and_has_the_rest_wait_for_room() {
        let world = World::with_zones(&["example.test"]).await;
        world.cloudflare.set_room("example.test", ROOM);
        let (solver, proofs) = (world.dns01(), proofs("example.test", 60));

        let presented = present_all(&solver, &proofs).await;

        let refused = failed(&presented);
        assert_eq!(refused.len(), 40);
        for failure in &refused {
            let told = (failure.class, failure.code.as_str());
            assert_eq!(told, (Class::Throttle, "cloudflare_zone_full"), "{failure}");
            let wait = failure.retry_at.unwrap() - world.clock.now();
            assert!(wait <= Duration::seconds(5), "soon again: {wait}");
        }
        assert_eq!(world.cloudflare.records("example.test").len(), ROOM);
        assert!(world.calls() <= 30, "{:?}", world.cloudflare.calls());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_asked_once_for_all_and_ever_more_seldom() {
        let world = World::with_zones(&["example.test"]).await;
        world.cloudflare.set_room("example.test", 0);
        let (solver, proofs) = (world.dns01(), proofs("example.test", 40));
        let mut calls = Vec::new();
        for _ in 0..60 {
            let before = world.calls();
            assert_eq!(failed(&present_all(&solver, &proofs).await).len(), 40);
            calls.push(world.calls() - before);
            world.clock.advance(Duration::seconds(10));
        }

        let asked = calls.iter().filter(|calls| **calls > 0).count();
        assert!((4..=9).contains(&asked), "{calls:?}");
        assert!(calls.iter().all(|calls| *calls <= 12), "siblings burn no calls: {calls:?}");
        let late = calls[40..].iter().filter(|calls| **calls > 0).count();
        assert!(late <= 1, "ever more seldom: {calls:?}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_asked_again_as_soon_as_proofs_were_taken_away() {
        let world = World::with_zones(&["example.test"]).await;
        world.cloudflare.set_room("example.test", ROOM);
        let (solver, proofs) = (world.dns01(), proofs("example.test", 40));
        let presented = present_all(&solver, &proofs).await;
        assert_eq!(failed(&presented).len(), 20);

        let shown = proofs
            .iter()
            .zip(&presented)
            .filter_map(|(proof, one)| Some((proof, one.as_ref().ok()?)));
        let cleaned = shown.map(|(proof, record)| solver.clean_up(proof, Some(record)));
        assert!(join_all(cleaned).await.iter().all(Result::is_ok));
        let waiting: Vec<Proof> = proofs
            .iter()
            .zip(&presented)
            .filter(|(_, one)| one.is_err())
            .map(|(proof, _)| proof.clone())
            .collect();

        assert!(present_all(&solver, &waiting).await.iter().all(Result::is_ok));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_records_that_are_gone_none_is_taken_for_another_and_left() {
    let world = World::with_zones(&["example.test"]).await;
    let (solver, proofs) = (world.dns01(), proofs("example.test", 120));
    let presented = present_all(&solver, &proofs).await;
    let records: Vec<Record> = presented.into_iter().map(Result::unwrap).collect();
    for record in records.iter().step_by(2) {
        world.cloudflare.remove_record("example.test", &record.id);
    }
    let mut left: Vec<_> = proofs.iter().zip(&records).collect();
    for _ in 0..60 {
        let before = world.calls();
        let tried = left.iter().map(|(proof, record)| solver.clean_up(proof, Some(record)));
        let tried = join_all(tried).await;
        assert!(world.calls() - before <= 30, "{}", world.calls() - before);
        let mut tried = tried.into_iter();
        left.retain(|_| tried.next().unwrap().is_err());
        world.clock.advance(Duration::minutes(1));
    }

    assert!(left.is_empty(), "{} could not be taken away", left.len());
    assert!(world.cloudflare.records("example.test").is_empty());
}

mod a_refusal_that_nobody_knows {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn is_tried_again_and_costs_a_few_calls_for_all_of_a_zone() {
        let world = World::with_zones(&["example.test", "other.test"]).await;
        world.cloudflare.refuse_records(Some((400, 424_242)));
        let (solver, proofs) = (world.dns01(), proofs("example.test", 200));
        let mut calls = Vec::new();
        for _ in 0..60 {
            let before = world.calls();
            let presented = present_all(&solver, &proofs).await;
            for failure in failed(&presented) {
                let told = (failure.class, failure.code.as_str());
                assert_eq!(told, (Class::Transient, "cloudflare_refused"), "{failure}");
            }
            assert_eq!(failed(&presented).len(), 200);
            calls.push(world.calls() - before);
            world.clock.advance(Duration::seconds(10));
        }
        assert!(calls.iter().all(|calls| *calls <= 26), "{calls:?}");
        assert!(calls.iter().sum::<u32>() <= 160, "ever more seldom: {calls:?}");

        world.cloudflare.refuse_records(None);
        assert!(
            solver.present(&proof("host.other.test")).await.is_ok(),
            "another zone waits for nothing"
        );
        world.clock.advance(Duration::minutes(5));
        assert!(present_all(&solver, &proofs).await.iter().all(Result::is_ok));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_zones_is_heard_once_for_all_who_wait() {
        let world = World::with_zones(&["example.test"]).await;
        let (solver, proofs) = (world.dns01(), proofs("example.test", 100));
        for (status, code) in [(400, 424_242), (409, 1), (403, 424_242)] {
            world.cloudflare.refuse_next([(status, code)]);
            let before = world.calls();
            for proof in &proofs {
                let failure = solver.present(proof).await.unwrap_err();
                assert_eq!(failure.class, Class::Transient, "{failure}");
            }
            assert_eq!(world.calls() - before, 1, "{status}");
            world.clock.advance(Duration::minutes(1));
        }
        assert!(solver.present(&proofs[0]).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_one_record_holds_up_nobody_else() {
        let world = World::with_zones(&["example.test"]).await;
        let solver = world.dns01();
        assert!(solver.present(&proof("first.example.test")).await.is_ok());
        world.cloudflare.refuse_next([(400, 424_242)]);

        assert!(solver.present(&proof("bad.example.test")).await.is_err());
        assert!(solver.present(&proof("good.example.test")).await.is_ok());
    }
}

on_each_site! {
    async fn more_certificates_than_a_zone_has_room_for_are_all_issued(site: Site) {
        site.cloudflare.set_room("example.com", 4);
        let names: Vec<_> = (0..10).map(|n| format!("room{n}.example.com")).collect();

        let issued = join_all(names.iter().map(|name| async {
            site.ask_for("dns", &[name], &json!({}), 280).await.expect_status(202)
        }))
        .await;

        for one in &issued {
            assert_ready(one);
            assert_eq!(one["status"]["failedIssuanceAttempts"], 0);
        }
        site.until("/orders?limit=500", |found| found["items"].as_array().unwrap().iter().all(clean)).await;
        assert!(site.cloudflare.records("example.com").is_empty());
    }
}
