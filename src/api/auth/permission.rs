//! Permissions, and the roles that have them.

use crate::domain::role::Role;

/// A permission, as handlers name it in their signatures.
pub(crate) trait Permission {
    /// The permission's word on the wire.
    const NAME: &'static str;
}

/// Declares permissions: `NAME = "WORD": ROLE ROLE`. An admin has all of them.
macro_rules! permissions {
    ($($name:ident = $word:literal$(: $($role:ident)+)?;)*) => {$(
        #[doc = concat!("`", $word, "`")]
        pub(crate) struct $name;
        impl Permission for $name {
            const NAME: &'static str = $word;
        }
        )*
        /// All permissions.
        pub(crate) const KNOWN: &[&str] = &[$($word),*];

        /// The roles that have each permission.
        const ROLES: &[(&str, &[Role])] = &[$(($word, &[$($(Role::$role),+)?])),*];
    };
}

permissions! {
    CertificatesRead = "certificates:read": Operator Requester Reader;
    CertificatesWrite = "certificates:write": Operator Requester;
    CertificatesReadKey = "certificates:readKey": Requester;
    CertificatesImport = "certificates:import": Operator;
    RequestsRead = "requests:read": Operator Requester Reader;
    RequestsApprove = "requests:approve": Operator;
    OrdersRead = "orders:read": Operator Requester Reader;
    ChallengesRead = "challenges:read": Operator Requester Reader;
    IssuersRead = "issuers:read": Operator Requester Reader;
    IssuersWrite = "issuers:write": Operator;
    SecretsRead = "secrets:read": Operator;
    SecretsWrite = "secrets:write";
    PoliciesRead = "policies:read": Operator Reader;
    PoliciesWrite = "policies:write";
    EventsRead = "events:read": Operator Requester Reader;
    ApiKeysRead = "apiKeys:read";
    ApiKeysWrite = "apiKeys:write";
    AuditRead = "audit:read";
    MetricsRead = "metrics:read": Operator Reader;
    ThrottlesRead = "throttles:read": Operator;
    ThrottlesWrite = "throttles:write": Operator;
    WebhooksRead = "webhooks:read": Operator;
    WebhooksWrite = "webhooks:write": Operator;
}

/// What a role and single permissions come to together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Permissions {
    role: Option<Role>,
    single: Vec<String>,
}

impl Permissions {
    pub(crate) fn new(role: Option<Role>, single: &[String]) -> Self {
        Self { role, single: single.to_vec() }
    }

    pub(crate) fn role(&self) -> Option<Role> {
        self.role
    }

    pub(crate) fn allow(&self, permission: &str) -> bool {
        let is_of = |role| {
            let mut words = of_role(role);
            words.any(|word| word == "*" || word == permission)
        };
        self.role.is_some_and(is_of)
            || self.single.iter().any(|word| word == "*" || word == permission)
    }

    /// Their words on the wire; `*` is all of them.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut all: Vec<_> = self.role.into_iter().flat_map(of_role).map(str::to_owned).collect();
        all.extend(
            self.single.iter().filter(|word| !all.contains(word)).cloned().collect::<Vec<_>>(),
        );
        all
    }
}

/// The permissions of a role.
fn of_role(role: Role) -> impl Iterator<Item = &'static str> {
    let is_admin = role == Role::Admin;
    let all = is_admin.then_some("*").into_iter();
    let single = ROLES.iter().filter(move |(_, roles)| !is_admin && roles.contains(&role));
    all.chain(single.map(|(word, _)| *word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_what_its_name_says_and_nothing_of_what_it_must_not() {
        let has = |role, word: &str| of_role(role).any(|its| its == word);

        assert_eq!(of_role(Role::Admin).collect::<Vec<_>>(), ["*"]);
        for contents in ["certificates:readKey", "secrets:write", "apiKeys:read", "apiKeys:write"] {
            assert!(!has(Role::Operator, contents), "{contents}");
        }
        for certificates in ["certificates:write", "certificates:readKey", "events:read"] {
            assert!(has(Role::Requester, certificates), "{certificates}");
        }
        assert!(!has(Role::Requester, "issuers:write"));
        assert!(
            has(Role::Operator, "requests:approve") && !has(Role::Requester, "requests:approve")
        );
        let reader: Vec<_> = of_role(Role::Reader).collect();
        assert!(!reader.is_empty() && reader.iter().all(|word| word.ends_with(":read")));
        assert!(!has(Role::Reader, "secrets:read") && !has(Role::Reader, "apiKeys:read"));
    }

    #[test]
    fn single_permissions_come_on_top_of_a_role() {
        let single = ["secrets:write".to_owned(), "events:read".to_owned()];

        let both = Permissions::new(Some(Role::Reader), &single);
        assert!(
            ["secrets:write", "events:read", "orders:read"].map(|one| both.allow(one)) == [true; 3]
        );
        assert!(!both.allow("secrets:read"));
        assert_eq!(both.words().len(), of_role(Role::Reader).count() + 1, "{both:?}");
        assert_eq!(Permissions::new(None, &single).words(), single);
        assert!(Permissions::new(Some(Role::Admin), &[]).allow("secrets:write"));
        assert!(Permissions::new(None, &["*".to_owned()]).allow("secrets:write"));
    }
}
