//! Which API keys a principal may make, and which it may rotate and delete: none that may do more than itself.

use serde::Deserialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::api::AppState;
use crate::api::auth::{KNOWN, Permissions, Principal};
use crate::api::field;
use crate::api::problem::{ApiError, Code, Faults, FieldCode};
use crate::domain::api_key::ApiKey;
use crate::domain::principal::PrincipalKind;
use crate::domain::role::Role;
use crate::storage::Scope;

/// An API key to be made.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ApiKeySpec, example = json!({
    "name": "payments-deploy", "role": "requester", "namespaces": ["payments"], "expiresAt": "2027-11-24T00:00:00Z"
}))]
pub(crate) struct KeySpec {
    /// For people; need not be unique.
    name: String,
    /// For people; at most 500 characters.
    #[serde(default)]
    description: Option<String>,
    /// A set of permissions. It cannot exceed the caller's.
    #[serde(default)]
    role: Option<Role>,
    /// Single permissions beside those of the role; `*` is all. They cannot exceed the caller's.
    #[serde(default)]
    permissions: Vec<String>,
    /// The namespaces of its bearer; all when absent. They cannot exceed the caller's.
    #[serde(default)]
    namespaces: Option<Vec<String>>,
    /// The time from which on it is refused; never when absent. It cannot be later than that of the calling key.
    #[serde(default)]
    #[schema(example = "2027-11-24T00:00:00Z")]
    expires_at: Option<String>,
}

/// Namespaces are searched with every request of the key, so their number is bounded.
const MOST_NAMESPACES: usize = 100;

const LONGEST_NAME: usize = 100;
const LONGEST_DESCRIPTION: usize = 500;

impl KeySpec {
    /// The key that is wanted, if the caller may give it.
    pub(super) fn check(self, who: &Principal, app: &AppState) -> Result<ApiKey, ApiError> {
        let now = app.now();
        let mut faults = Faults::default();
        if self.name.trim().is_empty() || self.name.len() > LONGEST_NAME {
            faults.invalid("/name", format!("has 1 to {LONGEST_NAME} characters"));
        }
        if self.description.as_ref().is_some_and(|text| text.len() > LONGEST_DESCRIPTION) {
            faults.invalid("/description", format!("has at most {LONGEST_DESCRIPTION} characters"));
        }
        self.check_permissions(who, &mut faults);
        let expires_at = field::moment_at(self.expires_at.as_deref(), "/expiresAt", &mut faults);
        check_end(expires_at, who, now, &mut faults);
        let scope = self.namespaces.map_or(Scope::Everything, Scope::Namespaces);
        check_scope(&scope, who, &app.cluster_namespace, &mut faults);
        faults.refuse()?;
        Ok(ApiKey {
            description: self.description,
            role: self.role,
            expires_at,
            created_by: Some(who.reference()),
            ..ApiKey::new(&self.name, self.permissions, scope, now)
        })
    }

    fn check_permissions(&self, who: &Principal, faults: &mut Faults) {
        if self.permissions.is_empty() && self.role.is_none() {
            let detail = "a key that may do nothing is of no use: give a `role`, or `permissions`";
            faults.add("/permissions", FieldCode::Required, detail);
        }
        if let Some(beyond) = beyond(who, &Permissions::new(self.role, &[]).words()) {
            let detail = format!("has the permission `{beyond}`, which the {who} lacks");
            faults.deny("/role", FieldCode::Invalid, detail);
        }
        for (place, permission) in self.permissions.iter().enumerate() {
            let pointer = format!("/permissions/{place}");
            if permission != "*" && !KNOWN.contains(&permission.as_str()) {
                faults.invalid(pointer, format!("is `*` or one of {}", KNOWN.join(", ")));
            } else if !who.may(permission) {
                let detail = format!("the {who} may not do this itself");
                faults.deny(pointer, FieldCode::Invalid, detail);
            }
        }
    }
}

/// Whether something that ends then outlasts the caller. Nothing outlasts a token or a client certificate: its subject
/// gets another one.
fn outlasts(end: Option<OffsetDateTime>, who: &Principal) -> bool {
    let own = who.subject.expires_at().filter(|_| who.subject.kind() == PrincipalKind::ApiKey);
    own.is_some_and(|own| end.is_none_or(|end| end > own))
}

/// A key that ends makes none that outlasts it.
fn check_end(
    end: Option<OffsetDateTime>,
    who: &Principal,
    now: OffsetDateTime,
    faults: &mut Faults,
) {
    if end.is_some_and(|end| end <= now) {
        faults.invalid("/expiresAt", "lies in the past");
    }
    if outlasts(end, who) {
        let detail =
            format!("is later than the end of the {who}, which may give no more than it has");
        faults.deny("/expiresAt", FieldCode::Invalid, detail);
    }
}

fn check_scope(scope: &Scope, who: &Principal, cluster_namespace: &str, faults: &mut Faults) {
    if let Scope::Namespaces(names) = scope {
        if names.is_empty() {
            faults.invalid("/namespaces", "names at least one; leave it out for all");
        }
        if names.len() > MOST_NAMESPACES {
            faults.invalid("/namespaces", format!("there are at most {MOST_NAMESPACES}"));
        }
        for name in names {
            field::namespace(name, faults);
            if name == cluster_namespace {
                let detail = format!(
                    "`{name}` holds the Secrets of ClusterIssuers (`cluster_resource_namespace`): no API key can be bound to it"
                );
                faults.deny("/namespaces", FieldCode::Invalid, detail);
            }
        }
    }
    if !scope.is_within(&who.scope) {
        let detail = format!("the {who} is bound to namespaces, and may give no more");
        faults.deny("/namespaces", FieldCode::Invalid, detail);
    }
}

/// Refuses to end or rotate a key that may do more, or for longer, than the caller, which sees it.
pub(super) fn must_reach(who: &Principal, key: &ApiKey) -> Result<(), ApiError> {
    let permissions = Permissions::new(key.role, &key.permissions).words();
    let detail = match beyond(who, &permissions) {
        Some(beyond) => format!("It has the permission `{beyond}`, which the {who} lacks."),
        None if outlasts(key.expires_at, who) => {
            format!("It outlasts the {who}, which may neither get a value of it nor end it.")
        }
        None => return Ok(()),
    };
    Err(ApiError::Because(Code::PermissionDenied, detail))
}

/// A permission that the caller lacks.
fn beyond<'p>(who: &Principal, permissions: &'p [String]) -> Option<&'p str> {
    permissions.iter().map(String::as_str).find(|permission| !who.may(permission))
}
