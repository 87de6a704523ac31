//! Validation of a wanted webhook.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::api::auth::Principal;
use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::api::{AppState, field, patch_schema};
use crate::domain::event_type::EventType;
use crate::domain::webhook::{EVERY_NAMESPACE, Selector, Spec, Webhook};

const MOST_NAMESPACES: usize = 100;
const LONGEST_DESCRIPTION: usize = 256;

/// A webhook that is wanted. Only `url` is required.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(example = json!({
    "namespace": "default", "name": "deploy", "url": "https://deploy.example.com/hooks/certificates",
    "events": ["certificate.issued", "certificate.renewed", "certificate.failed"],
    "labels": {"team": "payments"}
}))]
pub(crate) struct WebhookSpec {
    /// Its namespace; `default` when absent. Immutable.
    namespace: Option<String>,
    /// Its name, a DNS subdomain, unique in the namespace; made when absent. Immutable.
    #[schema(max_length = 253)]
    name: Option<String>,
    /// The URL that messages are posted to: `https` and a public address, unless the operator permits more.
    #[schema(max_length = 2048)]
    url: String,
    /// For people.
    #[schema(max_length = 256)]
    description: Option<String>,
    /// The event types to send; all when empty.
    #[serde(default)]
    events: Vec<EventType>,
    /// Of which namespaces; its own when empty, all of them with `["*"]`. The API key has to own them.
    #[serde(default)]
    #[schema(max_items = 100)]
    namespaces: Vec<String>,
    /// Labels that a certificate must carry, all of them.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// `all`: every certificate with these labels, and those that name it; `named`: only those that
    /// name it in their `webhooks`.
    #[serde(default)]
    selector: Selector,
    /// While true, messages are held instead of sent, and can be sent later.
    #[serde(default)]
    disabled: bool,
}

/// A merge patch of a webhook; it only describes.
pub(crate) enum WebhookPatch {}

impl PartialSchema for WebhookPatch {
    fn schema() -> RefOr<Schema> {
        patch_schema::of::<WebhookSpec>()
    }
}

impl ToSchema for WebhookPatch {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        WebhookSpec::schemas(schemas);
    }
}

/// A wanted webhook whose fields are valid.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) namespace: String,
    /// `None`: one is made.
    pub(super) name: Option<String>,
    pub(super) spec: Spec,
    pub(super) disabled: bool,
    url: Url,
}

impl From<&Webhook> for WebhookSpec {
    fn from(webhook: &Webhook) -> Self {
        let spec = webhook.spec.clone();
        Self {
            namespace: Some(webhook.namespace.clone()),
            name: Some(webhook.name.clone()),
            url: spec.url,
            description: spec.description,
            events: spec.events,
            namespaces: spec.namespaces,
            labels: spec.labels,
            selector: spec.selector,
            disabled: webhook.disabled.is_some(),
        }
    }
}

impl WebhookSpec {
    /// Checks everything that needs no DNS lookup.
    pub(super) fn check(mut self, app: &AppState, who: &Principal) -> Result<Checked, ApiError> {
        let mut faults = Faults::default();
        let namespace = self.namespace.unwrap_or_else(|| field::DEFAULT_NAMESPACE.to_owned());
        field::namespace(&namespace, &mut faults);
        if let Some(name) = &self.name {
            field::name(name, "/name", &mut faults);
        }
        field::labels(&self.labels, &mut faults);
        let too_long = |text: &String| text.chars().count() > LONGEST_DESCRIPTION;
        if self.description.as_ref().is_some_and(too_long) {
            let detail = format!("has at most {LONGEST_DESCRIPTION} characters");
            faults.invalid("/description", detail);
        }
        self.events.sort_unstable();
        self.events.dedup();
        if self.namespaces.is_empty() {
            self.namespaces.push(namespace.clone());
        }
        check_namespaces(&self.namespaces, &mut faults);
        let url = match Url::parse(&self.url) {
            Ok(url) => url,
            Err(error) => {
                faults.invalid("/url", format!("is not a URL: {error}"));
                return Err(faults.into());
            }
        };
        if let Err(refused) = app.outbound.check(&url) {
            faults.invalid("/url", refused.to_string());
        }
        faults.refuse()?;
        who.must_own(&namespace)?;
        for name in &self.namespaces {
            who.must_own(name)?;
        }
        Ok(Checked {
            namespace,
            name: self.name,
            disabled: self.disabled,
            spec: Spec {
                url: self.url,
                description: self.description,
                events: self.events,
                namespaces: self.namespaces,
                labels: self.labels,
                selector: self.selector,
            },
            url,
        })
    }
}

impl Checked {
    /// Refuses an endpoint that nothing could be sent to now. Resolves its name, so no transaction may
    /// be open.
    pub(super) async fn check_reachable(&self, app: &AppState) -> Result<(), ApiError> {
        app.outbound
            .check_reachable(&self.url)
            .await
            .map_err(|refused| ApiError::field("/url", FieldCode::Invalid, refused.to_string()))
    }
}

fn check_namespaces(names: &[String], faults: &mut Faults) {
    if names.len() > MOST_NAMESPACES {
        faults.invalid("/namespaces", format!("there are at most {MOST_NAMESPACES}"));
        return;
    }
    if names.iter().any(|name| name == EVERY_NAMESPACE) {
        if names.len() > 1 {
            faults.add("/namespaces", FieldCode::Conflicting, "`*` stands alone");
        }
        return;
    }
    for (place, name) in names.iter().enumerate() {
        field::namespace_at(name, &format!("/namespaces/{place}"), faults);
    }
}
