//! Permissions.

/// A permission, as handlers name it in their signatures.
pub(crate) trait Permission {
    /// The permission's word on the wire.
    const NAME: &'static str;
}

macro_rules! permissions {
    ($($name:ident = $word:literal;)*) => {$(
        #[doc = concat!("`", $word, "`")]
        pub(crate) struct $name;
        impl Permission for $name {
            const NAME: &'static str = $word;
        }
        )*
        /// All permissions.
        pub(crate) const KNOWN: &[&str] = &[$($word),*];
    };
}

permissions! {
    CertificatesRead = "certificates:read";
    CertificatesWrite = "certificates:write";
    CertificatesReadKey = "certificates:readKey";
    CertificatesImport = "certificates:import";
    RequestsRead = "requests:read";
    OrdersRead = "orders:read";
    ChallengesRead = "challenges:read";
    IssuersRead = "issuers:read";
    IssuersWrite = "issuers:write";
    SecretsRead = "secrets:read";
    SecretsWrite = "secrets:write";
    PoliciesRead = "policies:read";
    PoliciesWrite = "policies:write";
    EventsRead = "events:read";
    ApiKeysRead = "apiKeys:read";
    ApiKeysWrite = "apiKeys:write";
    WebhooksRead = "webhooks:read";
    WebhooksWrite = "webhooks:write";
}
