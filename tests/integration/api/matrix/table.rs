//! Who may do what, said once more and apart from the code: the roles' permissions, and the permission and place of
//! each operation.

/// Where that lies which an operation is about, and so who is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Open to whoever reaches the service.
    Open,
    /// The caller itself.
    Caller,
    /// A namespace: for principals of others it is not there.
    Namespace,
    /// The service as a whole: for principals that are bound to no namespace.
    Service,
}

use Place::{Caller, Namespace, Open, Service};

/// Each operation with the permission that it takes, and its place. An operation by name is the one by identifier.
pub const OPERATIONS: &[(&str, &str, Place)] = &[
    ("applyManifests", "certificates:write", Namespace),
    ("approveRequest", "requests:approve", Namespace),
    ("changeCertificate", "certificates:write", Namespace),
    ("changeWebhook", "webhooks:write", Namespace),
    ("checkHealth", "", Open),
    ("checkReadiness", "", Open),
    ("createApiKey", "apiKeys:write", Namespace),
    ("createCertificate", "certificates:write", Namespace),
    ("createCertificates", "certificates:write", Namespace),
    ("createEventTicket", "events:read", Caller),
    ("createIssuer", "issuers:write", Namespace),
    ("createPolicy", "policies:write", Service),
    ("createSecret", "secrets:write", Namespace),
    ("createWebhook", "webhooks:write", Namespace),
    ("deactivateAccount", "issuers:write", Namespace),
    ("deleteApiKey", "apiKeys:write", Namespace),
    ("deleteCertificate", "certificates:write", Namespace),
    ("deleteIssuer", "issuers:write", Namespace),
    ("deletePolicy", "policies:write", Service),
    ("deleteSecret", "secrets:write", Namespace),
    ("deleteWebhook", "webhooks:write", Namespace),
    ("denyRequest", "requests:approve", Namespace),
    ("downloadCertificate", "certificates:read", Namespace),
    ("downloadCertificateDer", "certificates:read", Namespace),
    ("downloadChain", "certificates:read", Namespace),
    ("downloadCombined", "certificates:readKey", Namespace),
    ("downloadFullchain", "certificates:read", Namespace),
    ("downloadJks", "certificates:readKey", Namespace),
    ("downloadPkcs12", "certificates:readKey", Namespace),
    ("downloadPrivateKey", "certificates:readKey", Namespace),
    ("evaluatePolicies", "certificates:write", Namespace),
    ("explainCertificate", "certificates:read", Namespace),
    ("getApiKey", "apiKeys:read", Namespace),
    ("getCertificate", "certificates:read", Namespace),
    ("getChallenge", "challenges:read", Namespace),
    ("getDelivery", "webhooks:read", Namespace),
    ("getIssuer", "issuers:read", Namespace),
    ("getMetrics", "metrics:read", Service),
    ("getOrder", "orders:read", Namespace),
    ("getPolicy", "policies:read", Service),
    ("getProblem", "", Open),
    ("getRequest", "requests:read", Namespace),
    ("getSecret", "secrets:read", Namespace),
    ("getVersion", "", Open),
    ("getWebhook", "webhooks:read", Namespace),
    ("importCertificates", "certificates:import", Namespace),
    ("liftThrottle", "throttles:write", Service),
    ("listApiKeys", "apiKeys:read", Namespace),
    ("listAudit", "audit:read", Service),
    ("listCertificates", "certificates:read", Namespace),
    ("listChallenges", "challenges:read", Namespace),
    ("listDeliveries", "webhooks:read", Namespace),
    ("listEvents", "events:read", Namespace),
    ("listIssuers", "issuers:read", Namespace),
    ("listOidcIssuers", "", Open),
    ("listOrders", "orders:read", Namespace),
    ("listPolicies", "policies:read", Service),
    ("listProblems", "", Open),
    ("listRequests", "requests:read", Namespace),
    ("listRevisions", "certificates:read", Namespace),
    ("listSecrets", "secrets:read", Namespace),
    ("listThrottles", "throttles:read", Service),
    ("listWebhooks", "webhooks:read", Namespace),
    ("redeliver", "webhooks:write", Namespace),
    ("redeliverSince", "webhooks:write", Namespace),
    ("renewCertificate", "certificates:write", Namespace),
    ("replaceCsr", "certificates:write", Namespace),
    ("replaceIssuer", "issuers:write", Namespace),
    ("replacePolicy", "policies:write", Service),
    ("replaceSecret", "secrets:write", Namespace),
    ("revokeCertificate", "certificates:write", Namespace),
    ("rotateAccountKey", "issuers:write", Namespace),
    ("rotateApiKey", "apiKeys:write", Namespace),
    ("rotateWebhookSecret", "webhooks:write", Namespace),
    ("testWebhook", "webhooks:write", Namespace),
    ("whoAmI", "", Caller),
];

pub const ROLES: [&str; 4] = ["admin", "operator", "requester", "reader"];

/// What all but an admin may, who may everything.
const OPERATOR: &[&str] = &[
    "certificates:read",
    "certificates:write",
    "certificates:import",
    "requests:read",
    "requests:approve",
    "orders:read",
    "challenges:read",
    "issuers:read",
    "issuers:write",
    "secrets:read",
    "policies:read",
    "events:read",
    "metrics:read",
    "throttles:read",
    "throttles:write",
    "webhooks:read",
    "webhooks:write",
];
const REQUESTER: &[&str] = &[
    "certificates:read",
    "certificates:write",
    "certificates:readKey",
    "requests:read",
    "orders:read",
    "challenges:read",
    "issuers:read",
    "events:read",
];
const READER: &[&str] = &[
    "certificates:read",
    "requests:read",
    "orders:read",
    "challenges:read",
    "issuers:read",
    "policies:read",
    "events:read",
    "metrics:read",
];

/// Whether a role has a permission.
pub fn may(role: &str, permission: &str) -> bool {
    match role {
        "admin" => true,
        "operator" => OPERATOR.contains(&permission),
        "requester" => REQUESTER.contains(&permission),
        _ => READER.contains(&permission),
    }
}
