use super::*;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-11-25 12:00 UTC);

#[test]
fn it_hears_only_what_it_asked_for() {
    let mut labelled = webhook(Selector::All);
    labelled.spec.labels = [("team".to_owned(), "web".to_owned())].into();
    labelled.spec.events = vec![EventType::CertificateIssued];
    let mut certificate = certificate();

    assert!(!labelled.hears_of(EventType::CertificateIssued, &certificate), "without the label");
    certificate.labels = labelled.spec.labels.clone();
    assert!(labelled.hears_of(EventType::CertificateIssued, &certificate));
    assert!(!labelled.hears_of(EventType::CertificateFailed, &certificate));
    certificate.namespace = "other".into();
    assert!(!labelled.hears_of(EventType::CertificateIssued, &certificate));
    labelled.spec.namespaces = vec![EVERY_NAMESPACE.into()];
    assert!(labelled.hears_of(EventType::CertificateIssued, &certificate));
    assert!(!labelled.hears_of_issuer(EventType::CertificateIssued, ""), "issuers have no labels");
}

#[test]
fn a_certificate_that_names_it_is_told_whatever_its_labels() {
    let mut certificate = certificate();
    let named = webhook(Selector::Named);
    let mut labelled = webhook(Selector::All);
    labelled.spec.labels = [("team".to_owned(), "web".to_owned())].into();

    assert!(!named.hears_of(EventType::CertificateIssued, &certificate));
    certificate.spec.webhooks = vec![named.id.0];
    assert!(named.hears_of(EventType::CertificateIssued, &certificate));
    assert!(labelled.hears_of(EventType::CertificateIssued, &certificate), "it has the same id");
    certificate.namespace = "other".into();
    assert!(!named.hears_of(EventType::CertificateIssued, &certificate), "not of its namespaces");
    assert!(!named.hears_of_issuer(EventType::IssuerReady, ""));
    assert!(webhook(Selector::All).hears_of_issuer(EventType::IssuerReady, ""));
}

#[test]
fn one_failure_slows_it_down_and_an_outage_pauses_it_until_success() {
    let mut one = webhook(Selector::All);
    assert_eq!(one.at_once(NOW), AT_ONCE);
    one = fail(one, NOW).webhook;
    assert_eq!(one.at_once(NOW), 1, "one probe at a time");
    one = fail(one, NOW).webhook;
    let down = fail(one, NOW);
    assert_eq!(down.events[0].reason, "Failing");
    assert_eq!(down.webhook.at_once(NOW), 0);
    assert_eq!(down.webhook.at_once(NOW + Duration::seconds(5)), 1);

    let well = down.webhook.delivered(NOW + Duration::seconds(5));
    assert_eq!(well.webhook.at_once(NOW), AT_ONCE);
    assert_eq!(well.recovered_from, Some(NOW));
    assert_eq!(well.webhook.health.last_error, None);
}

#[test]
fn five_days_without_success_disable_it_with_an_event() {
    let mut one = webhook(Selector::All);
    for hour in 0..120 {
        one = fail(one, NOW + Duration::hours(hour)).webhook;
        assert_eq!(one.disabled, None, "after {hour} hours");
    }
    let given_up = fail(one, NOW + Duration::hours(120));

    assert_eq!(given_up.webhook.disabled, Some(Disabled::Failing));
    assert_eq!(given_up.events[0].reason, "Disabled");
    let spec = given_up.webhook.spec.clone();
    let again = given_up.webhook.respecified(spec, false, NOW + Duration::days(6)).webhook;
    assert_eq!((again.disabled, again.at_once(NOW)), (None, AT_ONCE));
}

#[test]
fn failures_that_lie_weeks_apart_are_not_one_outage() {
    let one = fail(webhook(Selector::All), NOW).webhook;
    let later = fail(one, NOW + Duration::days(20)).webhook;

    assert_eq!(later.disabled, None);
    assert_eq!(later.health.failing_since, Some(NOW + Duration::days(20)));
}

#[test]
fn a_wish_for_patience_is_granted_within_bounds() {
    let ask = |wait| webhook(Selector::All).failed("429", Some(NOW + wait), NOW, Jitter::NONE);
    let until = |wait| ask(wait).webhook.health.paused_until.unwrap() - NOW;

    assert_eq!(until(Duration::minutes(7)), Duration::minutes(7));
    assert_eq!(until(Duration::days(7)), Duration::hours(1));
}

#[test]
fn gone_is_gone() {
    let gone = webhook(Selector::All).gone(NOW);

    assert_eq!((gone.webhook.disabled, gone.webhook.at_once(NOW)), (Some(Disabled::Gone), 0));
    assert_eq!(gone.events[0].reason, "Disabled");
    assert!(gone.webhook.gone(NOW).events.is_empty(), "told once");
}

fn fail(webhook: Webhook, at: OffsetDateTime) -> Transition {
    webhook.failed("it answered 500", None, at, Jitter::NONE)
}

fn certificate() -> Certificate {
    crate::domain::certificate::tests::wanted()
}

fn webhook(selector: Selector) -> Webhook {
    Webhook {
        id: WebhookId(uuid::Uuid::nil()),
        namespace: "default".into(),
        name: "hook".into(),
        spec: Spec {
            url: "https://hooks.example/".into(),
            description: None,
            events: vec![],
            namespaces: vec!["default".into()],
            labels: BTreeMap::new(),
            selector,
        },
        disabled: None,
        health: Health::default(),
        former_until: None,
        created_at: NOW,
        updated_at: NOW,
    }
}
