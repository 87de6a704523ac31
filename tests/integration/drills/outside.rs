//! Troubles outside: the CA, the DNS provider, a webhook's endpoint.

use super::*;
use crate::support::receiver::Reply;

/// More than it takes for the CA to be asked by one at a time.
const MANY: i64 = 12;

on_each_drill! {
    async fn a_ca_that_is_down_for_eight_hours(drill: Drill) {
        drill.ask_for(&["before"]).await;
        drill.until_all_ready().await;
        drill.look().await.assert_calm();
        drill.driven.proxy.down(true);
        let names: Vec<_> = (0..MANY).map(|n| format!("down-{n}")).collect();
        drill.ask_for(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;

        drill.scale(Duration::hours(8)).await;

        drill.until_alert("CertwrightCircuitBreakerOpen", true).await;
        drill.until_alert("CertwrightIssuanceLate", true).await;
        let trouble = drill.look().await;
        trouble.assert_phase("Ready", 1);
        trouble.assert_phase("Issuing", MANY);
        assert_eq!(trouble.ready, 200, "another instance would meet the same");
        trouble.assert_logged(&["WARN acme_"]);
        let (each, twice) = (names.len(), 2 * names.len());
        assert!((each..=twice).contains(&trouble.log.len()), "told when it changes: {trouble:#?}");
        Picture::assert_one_of(&trouble.doctor, &["fail  ClusterIssuer le: ", "cannot be reached"]);
        assert_eq!(trouble.messages, Vec::<String>::new(), "no attempt has failed for good: {trouble:#?}");

        drill.driven.proxy.down(false);
        drill.pass(Duration::hours(1)).await;

        let mended = drill.look().await;
        mended.assert_calm();
        mended.assert_phase("Ready", MANY + 1);
        drill.until_alert("CertwrightIssuanceLate", false).await;
        assert_eq!(mended.messages, vec!["certificate.issued"; names.len()]);
    }

    async fn a_token_that_is_revoked(drill: Drill) {
        drill.look().await.assert_calm();
        drill.driven.cloudflare.revoke_token(true);
        let trouble = until_blocked(&mut drill).await;

        trouble.assert_warned_once(&["cloudflare_invalid_token"]);
        Picture::assert_one_of(&trouble.events, &["9109"]);
        Picture::assert_one_of(&trouble.doctor, &["fail  ClusterIssuer le, Secret cloudflare", "9109"]);

        drill.driven.cloudflare.revoke_token(false);
        assert_healed(&mut drill).await;
    }

    async fn the_permission_to_edit_that_is_taken_away(drill: Drill) {
        drill.look().await.assert_calm();
        drill.driven.cloudflare.forbid_edits("example.com");
        let trouble = until_blocked(&mut drill).await;

        trouble.assert_warned_once(&["cloudflare_permission_denied"]);
        Picture::assert_one_of(&trouble.events, &["DNS:Edit"]);
        Picture::assert_one_of(&trouble.doctor, &["fail  ClusterIssuer le, Secret cloudflare: it cannot write", "DNS:Edit"]);

        drill.driven.cloudflare.allow_edits("example.com");
        assert_healed(&mut drill).await;
    }

    async fn a_webhook_that_is_dead(drill: Drill) {
        drill.receiver.usually_answers(Reply::Status(500));
        drill.ask_for(&["www"]).await;
        drill.driven.until_all_ready().await;

        drill.pass(Duration::hours(2)).await;

        drill.until_alert("CertwrightWebhookNotAnswering", true).await;
        let trouble = drill.look().await;
        assert_eq!(trouble.gauge("certwright_webhooks{state=\"not_answering\"}"), 1);
        assert_eq!(trouble.ready, 200);
        trouble.assert_warned_once(&["answered 500"]);
        Picture::assert_one_of(&trouble.events, &["Failing: ", "500"]);
        assert!(trouble.messages.len() > 1, "it is tried again: {trouble:#?}");
        Picture::assert_one_of(&trouble.doctor, &["warn  webhooks: 1 do not answer", "`certwright webhooks list -A`"]);

        drill.receiver.usually_answers(Reply::Status(204));
        drill.pass(Duration::hours(24)).await;

        drill.until_alert("CertwrightWebhookNotAnswering", false).await;
        let mended = drill.look().await;
        mended.assert_calm();
        assert_eq!(mended.gauge("certwright_webhooks{state=\"well\"}"), 1);
        assert_eq!(mended.gauge("certwright_webhook_deliveries_open"), 0);
        assert!(mended.messages.contains(&"certificate.issued".to_owned()), "{mended:#?}");
        mended.assert_logged(&["INFO", "It takes messages again"]);
        Picture::assert_one_of(&mended.events, &["takes messages again"]);
    }
}

/// What there is to see of a certificate that the provider does not let be proved.
async fn until_blocked(drill: &mut Drill) -> Picture {
    drill.ask_for(&["www"]).await;
    drill.pass(Duration::minutes(30)).await;
    drill.until_alert("CertwrightCertificateBlocked", true).await;
    let trouble = drill.look().await;
    trouble.assert_phase("Blocked", 1);
    assert_eq!(trouble.ready, 200, "another instance would meet the same");
    assert_eq!(trouble.messages, ["certificate.blocked"]);
    Picture::assert_one_of(
        &trouble.doctor,
        &["fail  certificate default/www: Blocked", "`certwright renew www -n default`"],
    );
    trouble
}

/// Nobody does anything: within the hour it is found out that the provider lets the certificate be proved again.
async fn assert_healed(drill: &mut Drill) {
    drill.pass(Duration::hours(1)).await;
    drill.until_alert("CertwrightCertificateBlocked", false).await;
    let mended = drill.look().await;
    mended.assert_calm();
    mended.assert_phase("Ready", 1);
    assert_eq!(mended.messages, ["certificate.issued", "certificate.recovered"]);
    mended.assert_logged(&["INFO", "has recovered"]);
    Picture::assert_one_of(&mended.events, &["successfully issued"]);
}
