//! How a DNS provider's answers are read: names in every form, odd members, and whose words are shown.

use certwright::domain::failure::Class;
use certwright::solver::{Readiness, Solver};
use std::sync::Arc;

use crate::limits::provider_load::{World, proof};
use crate::support::cloudflare::Names;

/// `bücher.test`, as certificates have it.
const ZONE: &str = "xn--bcher-kva.test";

/// Shown, seen, taken away by id and, as after a crash, by value; and found as left behind.
async fn works_throughout(world: &World, solver: &Arc<dyn Solver>, zone: &str) {
    let (one, other) = (proof(&format!("shop.{zone}")), proof(zone));
    let record = solver.present(&one).await.unwrap().unwrap();
    solver.present(&other).await.unwrap();
    assert_eq!(record.name, format!("_acme-challenge.shop.{zone}"));
    assert_eq!(solver.is_ready(&one, Some(&record)).await.unwrap(), Readiness::Ready);
    assert_eq!(world.ours(zone).await.unwrap(), 2);

    let again = solver.present(&one).await.unwrap().unwrap();
    assert_eq!(again, record, "what is there already is adopted");
    solver.clean_up(&one, Some(&record)).await.unwrap();
    solver.clean_up(&other, None).await.unwrap();
    assert!(world.cloudflare.records(zone).is_empty());
}

#[tokio::test]
async fn zones_and_records_are_found_however_names_are_written() {
    for names in [Names::Plain, Names::International, Names::Upper, Names::Absolute] {
        let world = World::with_zones(&[ZONE, "other.test"]).await;
        world.cloudflare.write_names(names);

        works_throughout(&world, &world.dns01(), ZONE).await;
    }
}

#[tokio::test]
async fn zones_of_a_large_account_are_found_however_names_are_written() {
    for names in [Names::Plain, Names::International, Names::Upper, Names::Absolute] {
        let world = World::with_zones(&[ZONE]).await;
        for n in 0..520 {
            world.cloudflare.add_zone(&format!("zone{n}.test"));
        }
        world.cloudflare.write_names(names);

        works_throughout(&world, &world.dns01(), ZONE).await;
    }
}

#[tokio::test]
async fn odd_members_that_nobody_needs_stop_nothing() {
    let world = World::with_zones(&["example.test", "other.test"]).await;
    world.cloudflare.answer_oddly();

    works_throughout(&world, &world.dns01(), "example.test").await;

    let failure = world.dns01().present(&proof("a.nowhere.test")).await.unwrap_err();
    assert_eq!(failure.code, "cloudflare_zone_not_found");
    world.cloudflare.forbid_edits("example.test");
    let failure = world.dns01().present(&proof("a.example.test")).await.unwrap_err();
    assert_eq!(failure.code, "cloudflare_permission_denied", "{failure}");
}

#[tokio::test]
async fn whoever_answers_at_another_base_url_is_not_quoted() {
    for (status, code) in [
        (400, 6003),
        (400, 81045),
        (400, 424_242),
        (401, 1),
        (403, 10000),
        (403, 424_242),
        (404, 7003),
        (404, 424_242),
        (429, 10429),
        (500, 1),
        (503, 1),
    ] {
        let world = World::with_zones(&["example.test"]).await;
        world.cloudflare.refuse_next([(status, code)]);

        let failure = world.dns01().present(&proof("a.example.test")).await.unwrap_err();

        let all = format!("{failure:?}");
        assert!(!all.contains("canary-of-the-provider") && !all.contains("424242"), "{all}");
        assert!(failure.detail.contains(&status.to_string()), "{failure}");
        let known = matches!((status, code), (401, _) | (_, 6003 | 10000 | 7003));
        assert_eq!(failure.class == Class::Blocked, known, "{failure}");
    }
}
