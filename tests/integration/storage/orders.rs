//! Orders and challenges, on both databases.

use std::collections::HashSet;

use certwright::domain::challenge::{self, Record};
use certwright::domain::id::ChallengeId;
use certwright::domain::order::{self, End, Stage};
use certwright::storage::{Scope, challenges, cleanups, orders};
use time::Duration;

use super::rows::{NOW, all, failure, is_lost, order, page, under_way};
use crate::support::databases::on_both_databases;

on_both_databases! {
    async fn orders_and_challenges_read_back_as_saved(db: Db) {
        let mut tx = db.begin();
        let (_, order, _) = under_way(&mut tx).await;
        let (found, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, order);

        let mut next = order.clone();
        next.state = order::State::Open { url: "https://ca.example/1".into(), stage: Stage::Validating };
        next.last_error = Some(failure());
        next.expires = Some(NOW + Duration::days(7));
        next.challenges[0].state = challenge::State::Processing;
        next.challenges[0].observations =
            vec![challenge::Observation::missing("ns1.example.com 192.0.2.1", "has no record")];
        next.challenges[0].record = Some(Record {
            name: "n".into(), value: "v".into(), zone: "z".into(), id: "r".into(),
        });
        orders::save(&mut tx, &next, &order.challenges, &lease, None).await.unwrap();

        let (found, _) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        assert_eq!(found, next);
        let id = next.challenges[0].id;
        let (challenge, of) = challenges::find(&mut tx, id, &all()).await.unwrap().unwrap();
        assert_eq!((&challenge, of.id), (&next.challenges[0], order.id));
        assert_eq!((&*of.name, &*of.namespace), ("web-1-0badcafe", "default"));
    }

    async fn orders_and_challenges_are_filtered(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        for (wanted, count) in [
            (orders::Wanted { certificate: Some(certificate.id), ..Default::default() }, 1),
            (orders::Wanted { state: Some("pending".into()), ..Default::default() }, 1),
            (orders::Wanted { state: Some("ready".into()), ..Default::default() }, 0),
            (orders::Wanted { state: Some("valid".into()), ..Default::default() }, 0),
            (orders::Wanted { state: Some("errored".into()), ..Default::default() }, 0),
            (orders::Wanted { namespace: Some("other".into()), ..Default::default() }, 0),
        ] {
            let found = orders::list(&mut tx, &all(), &wanted, page()).await.unwrap().rows;
            assert_eq!(found.len(), count, "{wanted:?}");
        }
        let wanted = challenges::Wanted {
            namespace: Some("default".into()),
            order_name: Some(order.name.clone()),
            order: Some(order.id),
            state: Some(challenge::State::Pending),
        };
        let ours = Scope::Namespaces(vec!["default".into()]);
        assert_eq!(challenges::list(&mut tx, &ours, &wanted, page()).await.unwrap().rows.len(), 1);
        assert_eq!(orders::open_of_certificate(&mut tx, certificate.id).await.unwrap().len(), 1);
        assert_eq!(orders::any_open_of_issuer(&mut tx, order.issuer).await.unwrap(), Some(order.id));
    }

    async fn the_responder_answers_until_the_challenge_is_clean(db: Db) {
        let mut tx = db.begin();
        let (_, order, _) = under_way(&mut tx).await;
        let answer = challenges::key_authorization(&mut tx, "token-1").await.unwrap();
        assert_eq!(answer.as_deref(), Some("token-1.thumbprint"));
        assert_eq!(challenges::key_authorization(&mut tx, "token-2").await.unwrap(), None);

        let (_, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        let mut over = order.clone();
        over.state = order::State::Done { url: None, end: End::Errored };
        over.next_action_at = None;
        over.challenges[0].clean = true;
        orders::save(&mut tx, &over, &order.challenges, &lease, None).await.unwrap();

        assert_eq!(challenges::key_authorization(&mut tx, "token-1").await.unwrap(), None);
        assert_eq!(orders::any_open_of_issuer(&mut tx, order.issuer).await.unwrap(), None);
    }

    async fn a_proof_that_two_orders_need_is_known_to_be_shared(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let id = order.challenges[0].id;
        assert!(cleanups::shared(&mut tx, [id].into_iter()).await.unwrap().is_empty());

        let mut other = self::order(certificate.id);
        other.challenges[0].id = ChallengeId::generate(NOW);
        orders::insert(&mut tx, &other, None).await.unwrap();
        challenges::insert(&mut tx, other.id, &other.challenges).await.unwrap();

        let asked = [id, ChallengeId::generate(NOW)].into_iter();
        assert_eq!(cleanups::shared(&mut tx, asked).await.unwrap(), HashSet::from([id]));
    }

    async fn orders_that_are_over_are_claimed_together_to_be_cleaned_up_after(db: Db) {
        let mut tx = db.begin();
        let (certificate, first, _) = under_way(&mut tx).await;
        let mut all_orders = vec![first];
        for _ in 0..2 {
            let mut other = order(certificate.id);
            other.challenges[0].id = ChallengeId::generate(NOW);
            orders::insert(&mut tx, &other, None).await.unwrap();
            challenges::insert(&mut tx, other.id, &other.challenges).await.unwrap();
            all_orders.push(other);
        }
        for order in &all_orders[..2] {
            let (found, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
            let before = found.challenges.clone();
            orders::save(&mut tx, &found.cancel("test", NOW).order, &before, &lease, None).await.unwrap();
        }
        let due = cleanups::next_due(&mut tx).await.unwrap().unwrap();

        let mut claimed = cleanups::claim(&mut tx, "test", due, 1).await.unwrap();
        claimed.extend(cleanups::claim(&mut tx, "test", due, 9).await.unwrap());
        assert_eq!(cleanups::claim(&mut tx, "test", due, 9).await.unwrap(), [], "they are held");
        claimed.sort_by_key(|(order, _)| order.id);
        assert_eq!(claimed.len(), 2, "the third is not over");
        for ((order, lease), placed) in claimed.into_iter().zip(&all_orders) {
            assert_eq!((order.id, order.challenges[0].id), (placed.id, placed.challenges[0].id));
            assert!(order.is_over());
            orders::save(&mut tx, &order, &order.challenges, &lease, None).await.unwrap();
            let late = orders::save(&mut tx, &order, &order.challenges, &lease, None).await;
            assert!(is_lost(&mut tx, late).await);
        }
    }

    async fn a_proof_is_needed_until_every_challenge_that_has_it_is_over(db: Db) {
        let mut tx = db.begin();
        let (certificate, order, _) = under_way(&mut tx).await;
        let id = order.challenges[0].id;
        assert!(challenges::needs_proof(&mut tx, id).await.unwrap());
        assert!(!challenges::needs_proof(&mut tx, ChallengeId::generate(NOW)).await.unwrap(), "nobody knows it");

        let (found, lease) = orders::find(&mut tx, order.id, &all()).await.unwrap().unwrap();
        let before = found.challenges.clone();
        let cancelled = found.cancel("test", NOW).order;
        orders::save(&mut tx, &cancelled, &before, &lease, None).await.unwrap();
        assert!(!challenges::needs_proof(&mut tx, id).await.unwrap());

        let mut other = self::order(certificate.id);
        other.challenges[0].id = ChallengeId::generate(NOW);
        orders::insert(&mut tx, &other, None).await.unwrap();
        challenges::insert(&mut tx, other.id, &other.challenges).await.unwrap();
        assert!(challenges::needs_proof(&mut tx, id).await.unwrap(), "another order has the same proof");
    }
}
