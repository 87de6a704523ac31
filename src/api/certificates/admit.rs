//! Checks of a wanted certificate against what is stored: its issuer, that issuer's key, the policies of its
//! namespace, its webhooks.

use uuid::Uuid;

use super::validate::Checked;
use crate::api::AppState;
use crate::api::auth::Principal;
use crate::api::problem::{ApiError, Faults, FieldCode};
use crate::domain::certificate::Certificate;
use crate::domain::id::WebhookId;
use crate::domain::issuer::{Issuer, Kind};
use crate::domain::policy::{
    self, AdmittedBy, NameVerdict, Policies, Verdict, WantedKey, Wish, are_judged_alike,
};
use crate::domain::selection::pick_for_name;
use crate::pki;
use crate::storage::{Read, Scope, issuers, webhooks};

/// What a wanted certificate is checked against.
pub(crate) struct Against<'a> {
    pub(crate) issuer: Option<&'a Issuer>,
    /// The policies of its namespace.
    pub(crate) policies: &'a Policies,
    /// The certificate that it replaces the specification of.
    pub(crate) present: Option<&'a Certificate>,
    /// The key that comes along with it, if it is imported.
    pub(crate) imported: Option<WantedKey>,
}

impl Checked {
    /// The issuer that the certificate refers to, as this transaction sees it.
    pub(crate) async fn find_issuer(&self, tx: &mut Read) -> Result<Option<Issuer>, ApiError> {
        let wanted = &self.spec.issuer_ref;
        let found = issuers::find_by_name(tx, wanted.kind, &self.namespace, &wanted.name).await?;
        Ok(found.map(|(issuer, _)| issuer))
    }

    /// By what right the certificate may be there. Refuses it if the issuer is missing or cannot issue it, if the
    /// caller needs a policy and none allows it, if its CSR has the key of the issuer's account, or if a webhook does
    /// not hear of its namespace. Webhooks that it had before may be gone.
    pub(crate) async fn admit(
        &self,
        app: &AppState,
        tx: &mut Read,
        who: &Principal,
        against: Against<'_>,
    ) -> Result<AdmittedBy, ApiError> {
        let Against { issuer, policies, present, imported } = against;
        let issuer = issuer.ok_or_else(|| self.no_issuer())?;
        let right = self.must_be_allowed(who, policies, present)?;
        if let (AdmittedBy::Policy(_), Some(key)) = (&right, imported) {
            self.must_be_allowed_with(key, policies)?;
        }
        self.must_be_issuable_by(issuer)?;
        self.must_not_be_the_account_key(app, tx, issuer).await?;
        let webhooks_before = present.map_or(&[][..], |present| &present.spec.webhooks);
        self.must_have_its_webhooks(tx, webhooks_before).await?;
        Ok(right)
    }

    /// The judgement of these policies.
    pub(crate) fn judged(&self, policies: &Policies) -> Verdict {
        policies.judge(&Wish::of(&self.spec, pki::wanted_key(&self.spec)))
    }

    fn must_be_allowed(
        &self,
        who: &Principal,
        policies: &Policies,
        present: Option<&Certificate>,
    ) -> Result<AdmittedBy, ApiError> {
        who.caller.asks_in(&self.namespace);
        let alike = present.filter(|present| are_judged_alike(&present.spec, &self.spec));
        let kept = alike.map(|present| &present.admitted_by);
        policy::admit(who.as_judged(), kept, self.judged(policies)).map_err(|refused| {
            let mut faults = Faults::default();
            for NameVerdict { name, reason, .. } in refused {
                let pointer = self.pointer_of(&name);
                faults.add(pointer, FieldCode::NameNotAllowed, format!("`{name}` {reason}"));
            }
            ApiError::NotAllowed(faults)
        })
    }

    /// Refuses a key that comes along if no policy allows the certificate with it.
    fn must_be_allowed_with(&self, key: WantedKey, policies: &Policies) -> Result<(), ApiError> {
        let Verdict::Refused(names) = policies.judge(&Wish::of(&self.spec, key)) else {
            return Ok(());
        };
        let why = names.first().map(|one| format!("`{}` {}", one.name, one.reason));
        let detail = format!(
            "no policy allows it with the key that would be imported: {}; leave its Secret out to have it issued with another key",
            why.unwrap_or_default()
        );
        Err(ApiError::NotAllowed(Faults::one("/secretName", FieldCode::NameNotAllowed, detail)))
    }

    /// The place of a name in the request.
    fn pointer_of(&self, name: &str) -> &str {
        let names = self.names.iter().map(|(known, pointer)| (known.to_string(), pointer));
        let addresses = self.addresses.iter().map(|(known, pointer)| (known.to_string(), pointer));
        let mut all = names.chain(addresses);
        all.find(|(known, _)| known == name).map_or("", |(_, pointer)| pointer)
    }

    fn must_be_issuable_by(&self, issuer: &Issuer) -> Result<(), ApiError> {
        let mut faults = Faults::default();
        let has_solver = |name: &str| {
            let (solvers, labels) = (&issuer.acme.solvers, &self.labels);
            pick_for_name(solvers, name, &self.namespace, labels).is_some()
        };
        for (name, pointer) in &self.names {
            if !has_solver(name.as_str()) {
                let why = if name.is_wildcard() { ": a wildcard needs one with dns01" } else { "" };
                let detail = format!(
                    "the issuer `{}` has no solver for the namespace `{}` whose selector fits `{name}`{why}",
                    issuer.name, self.namespace
                );
                faults.add(pointer, FieldCode::NoSolver, detail);
            }
        }
        for (address, pointer) in &self.addresses {
            let text = address.to_string();
            if !has_solver(&text) {
                let detail = format!(
                    "the issuer `{}` has no solver for `{text}` in the namespace `{}`: an IP address needs one with http01",
                    issuer.name, self.namespace
                );
                faults.add(pointer, FieldCode::NoSolver, detail);
            }
        }
        if self.spec.duration.is_some() && !issuer.acme.enable_duration_feature {
            let detail = format!(
                "the issuer `{}` leaves it to its CA how long a certificate lives: set `enableDurationFeature: true` there if the CA takes a `notAfter`, or leave it out",
                issuer.name
            );
            faults.add("/duration", FieldCode::Unsupported, detail);
        }
        Ok(faults.refuse()?)
    }

    /// RFC 8555, section 11.1: an account key must not be used in a certificate.
    async fn must_not_be_the_account_key(
        &self,
        app: &AppState,
        tx: &mut Read,
        issuer: &Issuer,
    ) -> Result<(), ApiError> {
        let Some(given) = &self.public_key else { return Ok(()) };
        let sealed = issuers::account_key(tx, issuer.id).await?;
        let key = app.sealer.open(&issuers::account_key_place(issuer), &sealed)?;
        // An account key that cannot be parsed cannot be equal.
        if pki::public_key(&key).is_ok_and(|known| known == *given) {
            let detail =
                "is for the key of the issuer's account; a certificate needs a key of its own";
            return Err(ApiError::field("/csr", FieldCode::Invalid, detail));
        }
        Ok(())
    }

    async fn must_have_its_webhooks(&self, tx: &mut Read, before: &[Uuid]) -> Result<(), ApiError> {
        let mut faults = Faults::default();
        for (place, id) in self.spec.webhooks.iter().enumerate() {
            if before.contains(id) {
                continue;
            }
            let found = webhooks::find(tx, WebhookId(*id), &Scope::Everything).await?;
            if !found.is_some_and(|(webhook, _)| webhook.spec.covers(&self.namespace)) {
                let detail = format!(
                    "there is no webhook {id} that hears of the namespace `{}`",
                    self.namespace
                );
                faults.add(format!("/webhooks/{place}"), FieldCode::WebhookNotFound, detail);
            }
        }
        Ok(faults.refuse()?)
    }

    fn no_issuer(&self) -> ApiError {
        let wanted = &self.spec.issuer_ref;
        let detail = match wanted.kind {
            Kind::Issuer => format!(
                "there is no Issuer `{}` in the namespace `{}`; create it first, or give the `kind` ClusterIssuer if you mean one that serves all namespaces",
                wanted.name, self.namespace
            ),
            Kind::ClusterIssuer => format!(
                "there is no ClusterIssuer `{}`; create it first, or leave `kind` out if you mean an Issuer of the namespace `{}`",
                wanted.name, self.namespace
            ),
        };
        ApiError::field("/issuerRef/name", FieldCode::IssuerNotFound, detail)
    }
}
