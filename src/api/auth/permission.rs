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

        /// The permissions of a role.
        pub(crate) fn of_role(role: Role) -> Vec<&'static str> {
            if role == Role::Admin {
                return vec!["*"];
            }
            let all: &[(&str, &[Role])] = &[$(($word, &[$($(Role::$role),+)?])),*];
            all.iter().filter(|(_, roles)| roles.contains(&role)).map(|(word, _)| *word).collect()
        }
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
pub(crate) fn permissions_of(role: Option<Role>, single: &[String]) -> Vec<String> {
    let mut all: Vec<String> =
        role.map(of_role).unwrap_or_default().into_iter().map(str::to_owned).collect();
    all.extend(single.iter().filter(|word| !all.contains(word)).cloned().collect::<Vec<_>>());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_has_what_its_name_says_and_nothing_of_what_it_must_not() {
        let has = |role, word: &str| of_role(role).contains(&word);

        assert_eq!(of_role(Role::Admin), ["*"]);
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
        let reader = of_role(Role::Reader);
        assert!(!reader.is_empty() && reader.iter().all(|word| word.ends_with(":read")));
        assert!(!has(Role::Reader, "secrets:read") && !has(Role::Reader, "apiKeys:read"));
    }

    #[test]
    fn single_permissions_come_on_top_of_a_role() {
        let single = ["secrets:write".to_owned(), "events:read".to_owned()];

        let all = permissions_of(Some(Role::Reader), &single);
        assert_eq!(all.len(), of_role(Role::Reader).len() + 1, "{all:?}");
        assert!(all.contains(&single[0]));
        assert_eq!(permissions_of(None, &single), single);
    }
}
