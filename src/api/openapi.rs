//! The description of the API, gathered from the handlers themselves.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::caching::revalidated;
use super::declared::Undeclared;
use super::{
    AppState, api_keys, audit, by_name, certificates, challenges, description, events, health,
    issuers, manifests, metrics, orders, policies, requests, secrets, throttles,
};
use super::{oidc_issuers, page, problem, problem_pages, version, webhooks, whoami};
use crate::domain::event::Severity;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "certwright",
        description = "Issues and renews TLS certificates over ACME.\n\nTimes are RFC 3339 UTC, durations Go-style (`720h`), identifiers UUIDv7. Errors are `application/problem+json` (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    servers((url = "/", description = "This service")),
    security(("apiKey" = []), ("clientCertificate" = [])),
    modifiers(&WaysIn),
    components(schemas(problem::Problem, problem::FieldError, problem::Code, problem::FieldCode, page::Sort, certificates::list::Sort, Severity)),
    tags(
        (name = "certificates", description = "What is wanted, what is served, and its downloads"),
        (name = "requests", description = "Attempts at a certificate, one key and CSR each; read-only"),
        (name = "orders", description = "ACME orders; read-only"),
        (name = "challenges", description = "ACME challenges; read-only"),
        (name = "issuers", description = "CAs, accounts, and how names are proved"),
        (name = "secrets", description = "Credentials of solvers: write-only"),
        (name = "policies", description = "Who may have certificates for which names"),
        (name = "manifests", description = "cert-manager's manifests, as people have them"),
        (name = "webhooks", description = "Who is told of what, and how it went"),
        (name = "events", description = "What happened"),
        (name = "service", description = "The service itself"),
    ),
)]
struct Document;

struct WaysIn;

impl utoipa::Modify for WaysIn {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key, or a token (JWT) of a configured OIDC issuer"))
            .build();
        let certificate = SecurityScheme::MutualTls {
            description: Some("A client certificate, where the listener takes them".to_owned()),
            deprecated: None,
            extensions: None,
        };
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("apiKey", SecurityScheme::Http(scheme));
        components.add_security_scheme("clientCertificate", certificate);
    }
}

/// The handlers of each path. Their descriptions are large: whoever serves them does not keep those.
const HANDLERS: &[fn() -> UtoipaMethodRouter<AppState>] = &[
    || routes!(certificates::create::create, certificates::list::list),
    || routes!(certificates::show, certificates::change::change, certificates::change::delete),
    || routes!(certificates::batch::create),
    || routes!(certificates::renew::renew),
    || routes!(certificates::change::replace_csr),
    || routes!(certificates::revoke::revoke),
    || routes!(certificates::explain::show),
    || routes!(certificates::revisions::list),
    || routes!(requests::list),
    || routes!(requests::show),
    || routes!(requests::decide::approve),
    || routes!(requests::decide::deny),
    || routes!(orders::list),
    || routes!(orders::show),
    || routes!(challenges::list),
    || routes!(challenges::show),
    || routes!(issuers::create, issuers::list),
    || routes!(issuers::show, issuers::replace, issuers::delete),
    || routes!(issuers::accounts::rotate_key),
    || routes!(issuers::accounts::deactivate),
    || routes!(secrets::create, secrets::list),
    || routes!(secrets::show, secrets::replace, secrets::delete),
    || routes!(policies::create, policies::list),
    || routes!(policies::show, policies::replace, policies::delete),
    || routes!(policies::evaluate::evaluate),
    || routes!(manifests::apply),
    || routes!(manifests::import),
    || routes!(webhooks::create, webhooks::list),
    || routes!(webhooks::show, webhooks::change, webhooks::delete),
    || routes!(webhooks::rotate),
    || routes!(webhooks::deliveries::test),
    || routes!(webhooks::deliveries::list),
    || routes!(webhooks::deliveries::show),
    || routes!(webhooks::deliveries::redeliver),
    || routes!(webhooks::deliveries::redeliver_since),
    || routes!(events::list),
    || routes!(events::ticket::create),
    || routes!(api_keys::create, api_keys::list),
    || routes!(api_keys::show, api_keys::delete),
    || routes!(api_keys::rotate),
    || routes!(audit::list),
    || routes!(throttles::list),
    || routes!(throttles::lift),
    || routes!(whoami::show),
    || routes!(oidc_issuers::list),
    || routes!(health::live),
    || routes!(health::ready),
    || routes!(metrics::show),
    || constant(routes!(version::show)),
    || constant(routes!(problem_pages::list)),
    || constant(routes!(problem_pages::page)),
];

/// A resource that changes with the program only.
fn constant(
    (schemas, described, methods): UtoipaMethodRouter<AppState>,
) -> UtoipaMethodRouter<AppState> {
    (schemas, described, methods.layer(from_fn(revalidated)))
}

fn handlers() -> impl Iterator<Item = UtoipaMethodRouter<AppState>> {
    HANDLERS.iter().map(|handlers| handlers()).chain(certificates::download::format::routes())
}

/// The description of the API, which is committed as `openapi/openapi.json`.
pub fn document() -> OpenApi {
    let empty = OpenApiRouter::with_openapi(Document::openapi());
    let mut document = handlers().fold(empty, OpenApiRouter::routes).into_openapi();
    by_name::describe(&mut document);
    description::narrow(&mut document);
    document
}

/// Every route, the description, and a page to read and try it that needs no other server; and what the routes do not
/// take.
pub(crate) fn routes() -> (Router<AppState>, Undeclared) {
    const COMMITTED: &str = include_str!("../../openapi/openapi.json");
    let (mut router, mut undeclared) = (Router::new(), Undeclared::default());
    for (_, described, methods) in handlers() {
        undeclared.add(&described);
        for path in described.paths.keys() {
            router = router.route(path, methods.clone());
        }
    }
    let description = Router::new().route("/openapi.json", get(async || json(COMMITTED)));
    (router.merge(description.merge(page()).layer(from_fn(revalidated))), undeclared)
}

/// The page may load what comes with it and ask this service, and stands in nobody's frame. It writes styles into
/// its elements, and has its icons in them.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

fn page() -> Router<AppState> {
    let set =
        |name, value| SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value));
    let config = Config::new(["/openapi.json"]).validator_url("none");
    Router::from(SwaggerUi::new("/docs").config(config))
        .layer(set(header::CONTENT_SECURITY_POLICY, POLICY))
}

fn json(text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
