//! DNS-01: where a record is written, and who sees it.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use certwright::domain::challenge::in_words;
use certwright::domain::failure::Class;
use certwright::domain::issuer::{CnameStrategy, Dns01, Kind, PropagationMode};
use certwright::solver::{Readiness, Solver};

use super::solvers::{World, ZONE, observed, present, proof};

#[tokio::test]
async fn a_followed_cname_leads_into_another_zone() {
    let world = World::with_zones(&[ZONE, "acme.test"]).await;
    world.cloudflare.set_cname("_acme-challenge.app.example.org", "app.example.org.acme.test");
    let solver = within_acme_test(&world);
    let proof = proof("app.example.org", "t");

    let record = present(&solver, &proof).await;

    assert_eq!(record.name, "app.example.org.acme.test");
    assert_eq!(world.values("acme.test"), [proof.txt_value()]);
    assert_eq!(solver.is_ready(&proof, Some(&record)).await.unwrap(), Readiness::Ready);

    solver.clean_up(&proof, None).await.unwrap();
    assert_eq!(world.values("acme.test"), Vec::<String>::new());
}

#[tokio::test]
async fn a_cname_that_is_not_followed_is_pointed_out() {
    let world = World::with_zones(&[ZONE, "acme.test"]).await;
    world.cloudflare.set_cname("_acme-challenge.app.example.org", "app.acme.test");
    let solver = world.dns01();
    let proof = proof("app.example.org", "t");
    let record = present(&solver, &proof).await;

    let seen = solver.is_ready(&proof, Some(&record)).await.unwrap();

    let Readiness::NotYet { observed } = seen else { panic!("no CA would find it") };
    let observed = in_words(&observed);
    assert!(observed.contains("leads to app.acme.test"), "{observed}");
}

#[tokio::test]
async fn without_zones_for_delegation_cnames_are_followed_for_whoever_owns_the_credential() {
    let world = World::with_zones(&[ZONE, "acme.test"]).await;
    world.cloudflare.set_cname("_acme-challenge.app.example.org", "app.acme.test");
    let follow = |dns01: &mut Dns01| dns01.cname_strategy = CnameStrategy::Follow;
    let proof = proof("app.example.org", "t");

    let failure = world.dns01_with(follow).present(&proof).await.unwrap_err();

    assert_eq!(failure.code.as_str(), "dns_cname_outside");
    assert!(failure.detail.contains("names no `cnameZones`"), "{failure}");
    assert_eq!(world.values("acme.test"), Vec::<String>::new());
    let record = present(&world.dns01_of(Kind::Issuer, follow), &proof).await;
    assert_eq!(record.name, "app.acme.test");
}

/// Follows CNAMEs into `acme.test` only.
fn within_acme_test(world: &World) -> Arc<dyn Solver> {
    world.dns01_with(|dns01| {
        dns01.cname_strategy = CnameStrategy::Follow;
        dns01.cname_zones = vec!["acme.test".to_owned()];
    })
}

#[tokio::test]
async fn a_cname_that_ends_outside_the_zones_for_delegation_is_refused_before_anything_is_written()
{
    const ZONES: [&str; 4] = [ZONE, "acme.test", "badacme.test", "elsewhere.test"];
    let world = World::with_zones(&ZONES).await;
    let solver = within_acme_test(&world);
    world.cloudflare.set_cname("x.acme.test", "x.elsewhere.test");
    for target in
        ["victim.example.org", "a.badacme.test", "acme.test.elsewhere.test", "x.acme.test"]
    {
        world.cloudflare.set_cname("_acme-challenge.app.example.org", target);
        let proof = proof("app.example.org", "t");

        let failure = solver.present(&proof).await.unwrap_err();

        assert_eq!((failure.class, failure.code.as_str()), (Class::Blocked, "dns_cname_outside"));
        assert!(failure.detail.contains(" leads to "), "{failure}");
        solver.clean_up(&proof, None).await.unwrap();
    }
    assert_eq!(world.cloudflare.calls().total(), 0, "the provider was asked for nothing");
}

#[tokio::test]
async fn a_cname_is_judged_by_its_end_and_before_each_write() {
    let world = World::with_zones(&[ZONE, "acme.test", "elsewhere.test"]).await;
    let solver = within_acme_test(&world);
    let plain = present(&solver, &proof("www.example.org", "u")).await;
    assert_eq!(plain.name, "_acme-challenge.www.example.org", "no CNAME leads away");
    world.cloudflare.set_cname("_acme-challenge.app.example.org", "x.elsewhere.test");
    world.cloudflare.set_cname("x.elsewhere.test", "app.acme.test");
    let proof = proof("app.example.org", "t");

    let record = present(&solver, &proof).await;

    assert_eq!(record.name, "app.acme.test");
    world.cloudflare.set_cname("x.elsewhere.test", "y.elsewhere.test");
    let failure = solver.present(&proof).await.unwrap_err();
    assert_eq!(failure.code.as_str(), "dns_cname_outside");
    assert_eq!(world.values("elsewhere.test"), Vec::<String>::new());
    solver.clean_up(&proof, Some(&record)).await.unwrap();
    assert_eq!(world.values("acme.test"), Vec::<String>::new(), "what stands is taken away");
}

#[tokio::test]
async fn a_cname_loop_is_refused() {
    let world = World::with_zones(&[ZONE]).await;
    world.cloudflare.set_cname("_acme-challenge.app.example.org", "b.example.org");
    world.cloudflare.set_cname("b.example.org", "_acme-challenge.app.example.org");
    let solver = world.dns01_with(|dns01| dns01.cname_strategy = CnameStrategy::Follow);

    let failure = solver.present(&proof("app.example.org", "t")).await.unwrap_err();

    assert_eq!((failure.class, failure.code.as_str()), (Class::Blocked, "dns_cname_loop"));
}

#[tokio::test]
async fn the_authoritative_servers_are_asked_and_say_what_they_lack() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proof = proof("app.example.org", "t");

    let nothing = observed(&solver, &proof).await;
    assert_eq!(
        nothing, "ns.example.org has no TXT record at _acme-challenge.app.example.org",
        "an address inside is not shown"
    );

    world.cloudflare.seed_txt(ZONE, &proof.txt_name(), "other", None);
    let others = observed(&solver, &proof).await;
    assert!(others.contains("has other values (1)"), "{others}");

    present(&solver, &proof).await;
    assert_eq!(solver.is_ready(&proof, None).await.unwrap(), Readiness::Ready);
}

#[tokio::test]
async fn a_record_that_takes_its_time_is_not_there_yet() {
    let world = World::with_zones(&[ZONE]).await;
    world.cloudflare.hide_records();
    let solver = world.dns01();
    let proof = proof("app.example.org", "t");
    present(&solver, &proof).await;

    assert!(observed(&solver, &proof).await.contains("has no TXT record"));
}

#[tokio::test]
async fn an_answer_too_long_for_udp_is_asked_for_by_tcp() {
    let world = World::with_zones(&[ZONE]).await;
    let solver = world.dns01();
    let proof = proof("app.example.org", "t");
    for n in 0..60 {
        let value = format!("{n:0>60}");
        world.cloudflare.seed_txt(ZONE, &proof.txt_name(), &value, None);
    }

    assert!(observed(&solver, &proof).await.contains("other values (60)"));
    present(&solver, &proof).await;

    assert_eq!(solver.is_ready(&proof, None).await.unwrap(), Readiness::Ready);
}

#[tokio::test]
async fn a_server_that_does_not_answer_counts_as_not_yet() {
    let world = World::with_zones(&[ZONE]).await;
    // Nobody listens at this address of the loopback network.
    let silent = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    world.cloudflare.add_nameserver(ZONE, "ns2.example.org", silent);
    let solver = world.dns01();
    let proof = proof("app.example.org", "t");
    present(&solver, &proof).await;

    let observed = observed(&solver, &proof).await;

    assert!(observed.starts_with("ns2.example.org cannot be asked"), "{observed}");
}

#[tokio::test]
async fn resolvers_can_be_asked_instead_or_nobody() {
    let world = World::with_zones(&[ZONE]).await;
    let proof = proof("app.example.org", "t");
    let given = world.cloudflare.dns_addr().to_string();

    let recursive = world.dns01_with(|dns01| {
        dns01.propagation.mode = PropagationMode::Recursive;
        dns01.nameservers = vec![given];
    });
    let trusting = world.dns01_with(|dns01| dns01.propagation.mode = PropagationMode::None);

    assert!(observed(&recursive, &proof).await.starts_with("resolver has no TXT record"));
    assert_eq!(trusting.is_ready(&proof, None).await.unwrap(), Readiness::Ready);
    present(&recursive, &proof).await;
    assert_eq!(recursive.is_ready(&proof, None).await.unwrap(), Readiness::Ready);
}
