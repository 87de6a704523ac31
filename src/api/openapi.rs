//! The description of the API, gathered from the handlers themselves.

use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::{
    AppState, certificates, challenges, events, health, issuers, orders, requests, secrets,
};
use super::{page, problem, webhooks, whoami};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "certwright",
        description = "Issues and renews TLS certificates over ACME.\n\nTimes are RFC 3339 UTC, durations Go-style (`720h`), identifiers UUIDv7. Errors are `application/problem+json` (RFC 9457) with a stable `code`.",
        license(name = "Apache-2.0 OR MIT", identifier = "Apache-2.0 OR MIT"),
    ),
    security(("apiKey" = [])),
    modifiers(&ApiKey),
    components(schemas(problem::Problem, problem::FieldError, problem::Code, problem::FieldCode, page::Sort, events::EventType)),
    tags(
        (name = "certificates", description = "What is wanted, what is served, and its downloads"),
        (name = "requests", description = "Attempts at a certificate, one key and CSR each; read-only"),
        (name = "orders", description = "ACME orders; read-only"),
        (name = "challenges", description = "ACME challenges; read-only"),
        (name = "issuers", description = "CAs, accounts, and how names are proved"),
        (name = "secrets", description = "Credentials of solvers: write-only"),
        (name = "webhooks", description = "Who is told of what, and how it went"),
        (name = "events", description = "What happened"),
        (name = "service", description = "The service itself"),
    ),
)]
struct Document;

struct ApiKey;

impl utoipa::Modify for ApiKey {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("cw_…")
            .description(Some("An API key"))
            .build();
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("apiKey", SecurityScheme::Http(scheme));
    }
}

fn described() -> OpenApiRouter<AppState> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(certificates::create::create, certificates::list))
        .routes(routes!(
            certificates::show,
            certificates::change::change,
            certificates::change::delete
        ))
        .routes(routes!(certificates::change::renew))
        .routes(routes!(certificates::change::replace_csr))
        .routes(routes!(certificates::revoke::revoke))
        .routes(routes!(certificates::explain::show))
        .routes(routes!(certificates::downloads::fullchain))
        .routes(routes!(certificates::downloads::leaf))
        .routes(routes!(certificates::downloads::chain))
        .routes(routes!(certificates::downloads::private_key))
        .routes(routes!(certificates::downloads::combined))
        .routes(routes!(certificates::downloads::leaf_der))
        .routes(routes!(certificates::keystores::pkcs12))
        .routes(routes!(certificates::keystores::jks))
        .routes(routes!(certificates::revisions::list))
        .routes(routes!(requests::list))
        .routes(routes!(requests::show))
        .routes(routes!(orders::list))
        .routes(routes!(orders::show))
        .routes(routes!(challenges::list))
        .routes(routes!(challenges::show))
        .routes(routes!(issuers::create, issuers::list))
        .routes(routes!(issuers::show, issuers::replace, issuers::delete))
        .routes(routes!(issuers::accounts::rotate_key))
        .routes(routes!(issuers::accounts::deactivate))
        .routes(routes!(secrets::create, secrets::list))
        .routes(routes!(secrets::show, secrets::replace, secrets::delete))
        .routes(routes!(webhooks::create, webhooks::list))
        .routes(routes!(webhooks::show, webhooks::change, webhooks::delete))
        .routes(routes!(webhooks::rotate))
        .routes(routes!(webhooks::deliveries::test))
        .routes(routes!(webhooks::deliveries::list))
        .routes(routes!(webhooks::deliveries::show))
        .routes(routes!(webhooks::deliveries::redeliver))
        .routes(routes!(webhooks::deliveries::redeliver_since))
        .routes(routes!(events::list))
        .routes(routes!(whoami::show))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}

/// The description of the API.
pub fn document() -> OpenApi {
    described().into_openapi()
}

/// Every route, the description, and a page to read and try it that needs no other server.
pub(crate) fn routes() -> Router<AppState> {
    let (router, document) = described().split_for_parts();
    let text = document.to_pretty_json().unwrap_or_default();
    let page = SwaggerUi::new("/docs").config(Config::new(["/openapi.json"]).validator_url("none"));
    router.route("/openapi.json", get(async move || json(text.clone()))).merge(page)
}

fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
