//! Issuers: which CA, which account, and how names are proved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};
use utoipa::ToSchema;

pub use super::account_change::{AccountChange, DEACTIVATION_DEADLINE, ROTATION_WAITS};
use super::backoff::{self, Jitter, Retry};
use super::event::{Event, Resource};
use super::event_type::EventType;
use super::failure::{Class, Failure, code};
use super::id::IssuerId;
use super::limits::LimitsSpec;

/// `spec.acme` in cert-manager's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acme {
    /// URL of the ACME directory.
    pub server: String,
    /// Where the CA may write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Certificate profile to ask for, one of those that the directory offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Issuer name of the chain to prefer where the CA offers several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred_chain: Option<String>,
    /// A Secret with the account's key, ECDSA P-256 in PEM, under `tls.key` unless said otherwise. Where
    /// it is there when the issuer is created, that key is used; else one is made and kept by the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key_secret_ref: Option<SecretKeySelector>,
    /// Binds the account to one that the CA has given out by other means (RFC 8555, section 7.3.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_account_binding: Option<ExternalAccountBinding>,
    /// Whether the CA is asked when it would like certificates to be renewed (RFC 9773).
    #[serde(default)]
    pub renewal_information_source: RenewalInformationSource,
    /// Whether a certificate's `duration` is asked of the CA, as the order's `notAfter`. Only for CAs that
    /// take it: Let's Encrypt refuses such an order.
    // Left out where it is off: replicas of the version before do not know it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enable_duration_feature: bool,
    /// Base64 of a PEM bundle; when given, only these roots are trusted for the CA's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Do not verify the CA's TLS certificate. For test servers only.
    #[serde(default, rename = "skipTLSVerify")]
    pub skip_tls_verify: bool,
    /// Origins, such as `https://certificates.ca.example`, that belong to the CA beside those of its
    /// directory: nothing is sent to others that it names. Only for a `ClusterIssuer`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// The CA's rate limits, which are kept to so that it need not refuse: `letsencrypt`, `none`, or
    /// each by itself. Let's Encrypt's are known by its host; other CAs are not limited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// How long certificates wait after a failed attempt, unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// How control over names is proved; see [`super::selection`].
    pub solvers: Vec<Solver>,
}

/// The CA's other account, and the key that it gave out for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalAccountBinding {
    /// The CA's name for the key.
    #[serde(rename = "keyID")]
    pub key_id: String,
    /// The key: base64url, as CAs give it out.
    pub key_secret_ref: SecretKeySelector,
    /// `HS256`, the only one that there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<String>,
}

/// Who says when a certificate should be renewed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum RenewalInformationSource {
    /// The CA, where its directory offers `renewalInfo`.
    #[default]
    #[serde(rename = "ARI")]
    Ari,
    /// Nobody: the certificate's own schedule counts.
    None,
}

/// A key within a stored Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeySelector {
    /// Name of the Secret.
    pub name: String,
    /// Key within its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// One way to prove control, and for which names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Solver {
    /// Which names it is for; absent means every name that no other solver claims.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<Selector>,
    /// Prove by a file below `/.well-known/acme-challenge/` (RFC 8555, section 8.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http01: Option<Http01>,
    /// Prove by a TXT record (RFC 8555, section 8.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns01: Option<Dns01>,
}

/// Which certificates and names a solver is for; every kind that is given must match.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Labels that the certificate must carry, all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// Exact names; a wildcard is written `*.example.com`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Zones; a name matches a zone that it ends in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_zones: Vec<String>,
}

/// HTTP-01 by this service's own responder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Http01 {
    /// Accepted for compatibility, whatever it holds: the service answers by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub ingress: Option<serde_json::Value>,
}

/// DNS-01 by a provider's API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Dns01 {
    /// Whether a CNAME at `_acme-challenge.NAME` is followed to where the record is written.
    #[serde(default)]
    pub cname_strategy: CnameStrategy,
    /// Records through Cloudflare's API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloudflare: Option<Cloudflare>,
    /// Resolvers (`IP:PORT`) instead of the service's. Those of an Issuer have public addresses, or
    /// such as the setting `outbound.allow` permits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// How to find out that the record can be seen.
    #[serde(default)]
    pub propagation: Propagation,
}

/// The DNS provider that a solver writes through: one of those that [`Dns01`] has a field for.
#[derive(Debug, Clone, Copy)]
pub enum DnsProvider<'a> {
    /// Cloudflare's v4 API.
    Cloudflare(&'a Cloudflare),
}

impl Dns01 {
    /// The provider that is configured, if one is.
    pub fn provider(&self) -> Option<DnsProvider<'_>> {
        self.cloudflare.as_ref().map(DnsProvider::Cloudflare)
    }
}

impl<'a> DnsProvider<'a> {
    /// Its field of [`Dns01`], and the field of the credential within that.
    pub fn fields(self) -> (&'static str, &'static str) {
        match self {
            Self::Cloudflare(_) => ("cloudflare", "apiTokenSecretRef"),
        }
    }

    /// The base of its API, where the issuer sets it. The credential is sent there.
    pub fn base_url(self) -> Option<&'a str> {
        match self {
            Self::Cloudflare(cloudflare) => cloudflare.base_url.as_deref(),
        }
    }

    /// Where the credential is, and its usual key within the Secret.
    pub fn secret_ref(self) -> (&'a SecretKeySelector, &'static str) {
        match self {
            Self::Cloudflare(cloudflare) => (&cloudflare.api_token_secret_ref, "api-token"),
        }
    }

    /// Names the API that the credential is used at.
    pub fn endpoint(self) -> &'a str {
        self.base_url().unwrap_or(self.fields().0)
    }
}

/// What to do about a CNAME at the challenge's name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum CnameStrategy {
    /// Write at the name itself.
    #[default]
    None,
    /// Write where the CNAME chain ends.
    Follow,
}

/// Cloudflare's v4 API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cloudflare {
    /// API token with Zone:Read and DNS:Edit.
    pub api_token_secret_ref: SecretKeySelector,
    /// Base of the API, for proxies and tests. Only keys bound to no namespace may set it; an Issuer's
    /// has to be on a host that the setting `outbound.allow` lists.
    #[serde(default, rename = "baseURL", skip_serializing_if = "Option::is_none")]
    pub base_url: Option<String>,
    /// Zone to write to; spares the look-up, and the token the permission for it.
    #[serde(default, rename = "zoneID", skip_serializing_if = "Option::is_none")]
    pub zone_id: Option<String>,
    /// Accepted for compatibility; a token needs no e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// When a TXT record counts as visible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Propagation {
    /// Who is asked.
    pub mode: PropagationMode,
    /// After this long the challenge has failed. A Go duration, such as `5m`.
    pub timeout: String,
    /// Extra wait after the record was seen. A Go duration, such as `0s`.
    pub delay: String,
}

impl Default for Propagation {
    fn default() -> Self {
        Self { mode: PropagationMode::default(), timeout: "5m".into(), delay: "0s".into() }
    }
}

/// Who is asked whether a TXT record is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum PropagationMode {
    /// Every authoritative name server of the zone.
    #[default]
    Authoritative,
    /// Every configured resolver.
    Recursive,
    /// Nobody: the provider's word is enough.
    None,
}

/// Whether an issuer serves one namespace or all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// Serves certificates of its own namespace.
    #[default]
    Issuer,
    /// Serves certificates of every namespace.
    ClusterIssuer,
}

impl Kind {
    /// `Issuer` or `ClusterIssuer`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "Issuer",
            Self::ClusterIssuer => "ClusterIssuer",
        }
    }

    /// Reads what [`Kind::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Issuer, Self::ClusterIssuer].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// A CA's account and how names are proved to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    pub id: IssuerId,
    pub kind: Kind,
    /// Its namespace; empty for a `ClusterIssuer`.
    pub namespace: String,
    pub name: String,
    pub acme: Acme,
    pub generation: i64,
    /// State of its account.
    pub state: State,
    pub state_since: OffsetDateTime,
    /// The account at the CA, once there is one.
    pub account: Option<Account>,
    /// An account change that is under way or was final.
    pub account_change: Option<AccountChange>,
    pub tries: u32,
    pub last_error: Option<Failure>,
    /// The time of its creation.
    pub created_at: OffsetDateTime,
    /// `None` while all is well.
    pub next_action_at: Option<OffsetDateTime>,
}

/// An account at a CA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub url: String,
    /// The directory that it was registered under.
    pub server: String,
    pub email: Option<String>,
}

/// The state of an issuer's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The account is to be registered, or checked against a changed spec.
    Pending,
    /// Registered.
    Ready,
    /// Registration failed; see `last_error`.
    Failed,
}

impl State {
    /// The word that the database uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    /// Reads what [`State::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Ready, Self::Failed].into_iter().find(|state| state.as_str() == text)
    }
}

/// Interval at which a CA that wants a person to act is asked again.
const ASK_AFTER_ACTION: Duration = Duration::hours(1);

/// The result of a change to an issuer. Storage accepts nothing less, so that saving the issuer saves
/// what happened, and what is to be told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    pub issuer: Issuer,
    pub events: Vec<Event>,
    pub event_types: Vec<EventType>,
    pub at: OffsetDateTime,
}

impl Transition {
    /// The issuer as it is, with nothing to tell.
    pub fn silent(issuer: Issuer, at: OffsetDateTime) -> Self {
        Self { issuer, events: vec![], event_types: vec![], at }
    }

    /// Adds what was remarked beside.
    #[must_use]
    pub fn remarking(mut self, remarks: impl IntoIterator<Item = Event>) -> Self {
        self.events.extend(remarks);
        self
    }
}

/// A registration is not repeated sooner because the CA denies its account.
const REGISTERED_FOR: Duration = Duration::minutes(10);

/// Former default namespace of the Secrets of `ClusterIssuer`s; the present one is out of reach of API
/// keys.
pub const FORMER_NAMESPACE: &str = "default";

/// Interval at which a blocked registration is tried again.
pub(super) const PROBE_EVERY: Duration = Duration::hours(24);

impl Issuer {
    /// The namespace that its secrets are in; `cluster` is where those of `ClusterIssuer`s are.
    pub fn secret_namespace<'a>(&'a self, cluster: &'a str) -> &'a str {
        match self.kind {
            Kind::Issuer => &self.namespace,
            Kind::ClusterIssuer => cluster,
        }
    }

    /// Takes over a changed spec; the account is checked again.
    #[must_use]
    pub fn respecified(mut self, acme: Acme, now: OffsetDateTime) -> Transition {
        if self.acme == acme {
            // A client that repeats its spec may have corrected something elsewhere.
            return match self.state {
                State::Failed => self.reconsidered(now),
                _ => Transition::silent(self, now),
            };
        }
        if self.account.as_ref().is_some_and(|known| known.server != acme.server) {
            self.account = None;
            self.account_change = None;
        }
        let before = std::mem::replace(&mut self.acme, acme);
        self.generation += 1;
        let wants = &self.acme.external_account_binding;
        let is_ignored =
            self.account.is_some() && wants.is_some() && *wants != before.external_account_binding;
        let mut next = self.reconsidered(now);
        if is_ignored {
            let event = Event::warning(
                Resource::Issuer(next.issuer.id),
                "ExternalAccountBindingNotUsed",
                BINDING_NOT_USED,
            );
            next.events.push(event);
        }
        next
    }

    /// Checks the account again now, because something that it depends on has changed.
    #[must_use]
    pub fn reconsidered(mut self, now: OffsetDateTime) -> Transition {
        self.state = State::Pending;
        self.state_since = now;
        self.tries = 0;
        self.next_action_at = Some(now);
        Transition::silent(self, now)
    }

    /// The CA denies an account that it has given: it is registered again, but not over and over by a CA
    /// that gives it each time and denies it to each order.
    #[must_use]
    pub fn denied(self, now: OffsetDateTime) -> Transition {
        let at = now.max(self.state_since + REGISTERED_FOR);
        let mut next = self.reconsidered(now);
        next.issuer.next_action_at = Some(at);
        next
    }

    /// The account is there.
    #[must_use]
    pub fn registered(mut self, account: Account, now: OffsetDateTime) -> Transition {
        self.account = Some(account);
        self.state = State::Ready;
        self.state_since = now;
        self.tries = 0;
        self.last_error = None;
        self.next_action_at = None;
        let event =
            Event::normal(Resource::Issuer(self.id), "ACMEAccountRegistered", REGISTERED_MESSAGE);
        Transition {
            issuer: self,
            events: vec![event],
            event_types: vec![EventType::IssuerReady],
            at: now,
        }
    }

    /// Registration did not work this time.
    #[must_use]
    pub fn not_registered(
        mut self,
        failure: Failure,
        now: OffsetDateTime,
        jitter: Jitter,
    ) -> Transition {
        let throttled = failure.class == Class::Throttle && failure.retry_at.is_some();
        let pause = match (failure.class, failure.retry_at) {
            (Class::Blocked, _) if failure.is(code::ACME_USER_ACTION_REQUIRED) => {
                jitter.stretch(ASK_AFTER_ACTION, 0.1)
            }
            (Class::Blocked, _) => jitter.stretch(PROBE_EVERY, 0.1),
            (Class::Throttle, Some(asked)) => {
                jitter.stretch((asked - now).max(Duration::seconds(1)), 0.1)
            }
            _ => backoff::transient(self.tries, jitter),
        };
        let at = failure.retry_at.map_or(now + pause, |asked| asked.max(now + pause));
        let news = self.last_error.as_ref().is_none_or(|last| last.code != failure.code);
        // Trying again is no news; that something was changed and did not help is.
        let event_types = if self.tries == 0 { vec![EventType::IssuerFailed] } else { vec![] };
        let event =
            Event::warning(Resource::Issuer(self.id), self.failure_reason(), failure.to_string());
        if self.state != State::Failed {
            self.state_since = now;
        }
        self.state = State::Failed;
        // A pause that the CA asked for makes no later one longer.
        self.tries = self.tries.saturating_add(u32::from(!throttled));
        self.last_error = Some(failure);
        self.next_action_at = Some(at);
        let events = if news { vec![event] } else { vec![] };
        Transition { issuer: self, events, event_types, at: now }
    }

    /// It is no longer wanted.
    #[must_use]
    pub fn deleted(self, now: OffsetDateTime) -> Transition {
        let message = format!("{} `{}` was deleted", self.kind.as_str(), self.name);
        let event = Event::normal(Resource::Issuer(self.id), "Deleted", message);
        Transition { events: vec![event], ..Transition::silent(self, now) }
    }

    /// The Ready condition: status, reason and message, in cert-manager's words.
    pub fn ready(&self) -> (&'static str, &'static str, String) {
        match self.state {
            State::Ready => ("True", "ACMEAccountRegistered", REGISTERED_MESSAGE.to_owned()),
            State::Pending => {
                let (reason, message) = match self.account_change {
                    Some(AccountChange::RotatingKey { .. }) => {
                        ("RotatingAccountKey", "The ACME account's key is being replaced")
                    }
                    Some(AccountChange::Deactivating { .. }) => {
                        ("DeactivatingAccount", "The ACME account is being deactivated")
                    }
                    Some(AccountChange::Deactivated { .. }) | None => {
                        ("Registering", "The ACME account is being registered")
                    }
                };
                ("Unknown", reason, message.to_owned())
            }
            State::Failed => {
                let message = self.last_error.as_ref().map(Failure::to_string).unwrap_or_default();
                ("False", self.failure_reason(), message)
            }
        }
    }

    fn failure_reason(&self) -> &'static str {
        if self.account.is_some() { "ErrUpdateACMEAccount" } else { "ErrRegisterACMEAccount" }
    }
}

const BINDING_NOT_USED: &str = "The issuer has an account already, and CAs bind accounts only when they are registered: the changed externalAccountBinding has no effect. For an account under it, create another issuer, or delete this one with `deactivate` and create it again";
const REGISTERED_MESSAGE: &str = "The ACME account was registered with the ACME server";
