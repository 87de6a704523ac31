//! A policy that changes has many certificates judged anew: page by page, and none is forgotten.

use certwright::domain::certificate::{Certificate, State};
use certwright::domain::id::CertificateId;
use certwright::domain::issuer::Kind;
use certwright::domain::policy::AdmittedBy;
use certwright::storage::certificates;
use serde_json::{Value, json};
use time::Duration;

use super::{allow, path, policy};
use crate::support::fixtures;
use crate::support::world::{World, on_every_database};

/// More than two pages.
const MANY: usize = 450;
const PAGE: usize = 200;

on_every_database! {
    async fn many_certificates_are_judged_anew_in_pages(world: World) {
        let team = allow(&world, "team", "default", &["**.example.com"]).await;
        let worker = world.worker();
        while worker.work_due().await.unwrap() > 0 {}
        db_insert_paused(&world).await;
        assert_eq!(world.delete(&path(&team)).await.status, 204);

        let mut counts = Vec::new();
        for _ in 0..4 {
            worker.work_due().await.unwrap();
            counts.push(withheld(&world).await);
        }

        assert_eq!(counts, [PAGE, 2 * PAGE, MANY, MANY]);
        assert_eq!(worker.work_due().await.unwrap(), 0, "it is over");
    }

    async fn a_policy_that_changes_meanwhile_has_the_review_begin_anew(world: World) {
        let team = allow(&world, "team", "default", &["**.example.com"]).await;
        let worker = world.worker();
        while worker.work_due().await.unwrap() > 0 {}
        db_insert_paused(&world).await;
        assert_eq!(world.put(&path(&team), policy("team", "default", &["other.test"])).await.status, 200);
        worker.work_due().await.unwrap();
        assert_eq!(withheld(&world).await, PAGE);

        assert_eq!(world.put(&path(&team), policy("team", "default", &["**.example.com"])).await.status, 200);
        while worker.work_due().await.unwrap() > 0 {}

        assert_eq!(withheld(&world).await, 0);
    }

    async fn a_policy_for_every_namespace_reaches_all_of_them_and_one_for_others_none(world: World) {
        let worker = world.worker();
        let everywhere = allow(&world, "all", "*", &["**.example.com"]).await;
        let elsewhere = allow(&world, "elsewhere", "elsewhere", &["other.test"]).await;
        while worker.work_due().await.unwrap() > 0 {}
        db_insert_paused(&world).await;
        assert_eq!(world.delete(&path(&elsewhere)).await.status, 204);
        while worker.work_due().await.unwrap() > 0 {}
        assert_eq!(withheld(&world).await, 0);

        assert_eq!(world.delete(&path(&everywhere)).await.status, 204);
        while worker.work_due().await.unwrap() > 0 {}
        assert_eq!(withheld(&world).await, MANY);
        let told = world.get("/audit?action=certificates.block&limit=500").await.json();
        let told = told["items"].as_array().unwrap();
        assert_eq!(told.len(), MANY, "each leaves an entry, once");
        assert_eq!((&told[0]["principal"]["kind"], &told[0]["outcome"]), (&json!("service"), &json!("refused")));
        assert!(told[0]["reason"].as_str().unwrap().contains("`team`"), "{}", told[0]);
    }
}

/// Certificates that the policy `team` admitted, and that pause: a review has something to do with each.
async fn db_insert_paused(world: &World) {
    let now = world.now();
    let mut tx = world.db.begin();
    for number in 0..MANY {
        let mut paused = Certificate {
            id: CertificateId::generate(now),
            name: format!("n{number}"),
            admitted_by: AdmittedBy::Policy("team".into()),
            state: State::Backoff,
            failed_attempts: 1,
            next_action_at: now + Duration::days(1),
            ..fixtures::certificate(now)
        };
        paused.spec.issuer_ref.kind = Kind::ClusterIssuer;
        certificates::insert(&mut tx, &paused).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// How many are blocked because no policy allows them.
async fn withheld(world: &World) -> usize {
    let is_withheld = |one: &&Value| one["status"]["lastError"]["code"] == "name_not_allowed";
    world.certificates().await.iter().filter(is_withheld).count()
}
