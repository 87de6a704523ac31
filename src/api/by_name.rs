//! Addresses by name: `/certificates/by-name/{namespace}/{name}/…` is `/certificates/{id}/…`, and so for Issuers,
//! secrets and webhooks; a `ClusterIssuer`, which has no namespace, is `/issuers/by-name/{name}/…`, and so are policies
//! and API keys.
//!
//! The name is resolved before the router looks at the address, and nothing is answered here: what is not found goes on
//! under an identifier that nothing has, so that permissions are checked, and missing resources told, in one place. A
//! request that cannot be resolved is refused within the layers that all answers go through.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use futures_util::future::{BoxFuture, Either};
use percent_encoding::percent_decode_str;
use tower::{Service, ServiceExt as _};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{Object, Type};
use utoipa::openapi::{OpenApi, RefOr, Required};
use uuid::Uuid;

use super::AppState;
use super::auth::{ApiKeysRead, ApiKeysWrite, Permission as _, Principal};
use super::problem::{ApiError, Code};
use crate::domain::issuer::Kind;
use crate::domain::text::{self, Lines};
use crate::storage::{Page, Read, api_keys, certificates, issuers, policies, secrets, webhooks};

/// What follows an issuer in an address; elsewhere a second part is a name.
const OF_ISSUERS: [&str; 2] = ["rotate-account-key", "deactivate-account"];

/// A resource that is addressed by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    collection: Collection,
    /// Empty for what has none.
    namespace: String,
    name: String,
}

/// Why a name could not be resolved. An extension can be cloned, an error cannot.
#[derive(Debug, Clone)]
struct Unresolved(Arc<ApiError>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Collection {
    ApiKeys,
    Certificates,
    Issuers,
    Policies,
    Secrets,
    Webhooks,
}

impl Collection {
    const ALL: [(&'static str, Self); 6] = [
        ("/api-keys", Self::ApiKeys),
        ("/certificates", Self::Certificates),
        ("/issuers", Self::Issuers),
        ("/policies", Self::Policies),
        ("/secrets", Self::Secrets),
        ("/webhooks", Self::Webhooks),
    ];
}

/// The API under both kinds of addresses.
pub(crate) fn resolving(api: Router, app: AppState) -> Router {
    Router::new().fallback_service(Resolving { api, app })
}

/// The API under addresses by name. One by identifier goes on as it is.
#[derive(Clone)]
struct Resolving {
    api: Router,
    app: AppState,
}

impl Service<Request> for Resolving {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<RouteFuture<Infallible>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.api, context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        if parse(request.uri().path()).is_none() {
            return Either::Left(self.api.call(request));
        }
        let Self { api, app } = self.clone();
        Either::Right(Box::pin(async move { api.oneshot(resolved(&app, request).await).await }))
    }
}

/// The same request by identifier.
async fn resolved(app: &AppState, request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let Some((path, named, rest)) = parse(parts.uri.path()) else {
        return Request::from_parts(parts, body);
    };
    let rest = rest.to_owned();
    let id = find(app, &parts, &named).await.unwrap_or_else(|error| {
        parts.extensions.insert(Unresolved(Arc::new(error)));
        None
    });
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{path}/{}{rest}{query}", id.unwrap_or_default());
    let mut uri = parts.uri.clone().into_parts();
    uri.path_and_query = PathAndQuery::try_from(path).ok();
    // The parts are those of the request's own address.
    parts.uri = Uri::from_parts(uri).unwrap_or(parts.uri);
    parts.extensions.insert(named);
    Request::from_parts(parts, body)
}

/// Refuses a request whose name could not be resolved.
pub(crate) fn check(request: &mut Request) -> Result<(), ApiError> {
    let unresolved = request.extensions_mut().remove::<Unresolved>();
    let error = unresolved.and_then(|Unresolved(error)| Arc::into_inner(error));
    error.map_or(Ok(()), Err)
}

/// The collection's path, the resource, and what follows it.
fn parse(path: &str) -> Option<(&'static str, Named, &str)> {
    let (root, collection, after) =
        Collection::ALL.into_iter().find_map(|(root, collection)| {
            Some((root, collection, path.strip_prefix(root)?.strip_prefix("/by-name/")?))
        })?;
    let (first, rest) = split(after);
    let (second, behind) = split(rest.strip_prefix('/').unwrap_or_default());
    let has_no_namespace = match collection {
        Collection::Issuers => {
            second.is_empty() || (behind.is_empty() && OF_ISSUERS.contains(&second))
        }
        Collection::ApiKeys | Collection::Policies => true,
        Collection::Certificates | Collection::Secrets | Collection::Webhooks => false,
    };
    let (namespace, name, rest) =
        if has_no_namespace { ("", first, rest) } else { (first, second, behind) };
    let [namespace, name] =
        [namespace, name].map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned());
    let named = Named { collection, namespace, name };
    (!named.name.is_empty()).then_some((root, named, rest))
}

/// The first part of a path, and the rest with its slash.
fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').unwrap_or(path.len()))
}

/// The identifier, if the principal may know of the resource.
async fn find(app: &AppState, parts: &Parts, named: &Named) -> Result<Option<Uuid>, ApiError> {
    let Named { collection, namespace, name } = named;
    for (part, text) in [("namespace", namespace), ("name", name)] {
        if let Err(strange) = text::refuse(text, Lines::One) {
            return Err(ApiError::malformed(format!("The {part} in the path {strange}.")));
        }
    }
    // Counted where the request is answered, and only there; and so is a key refused that does not count.
    let Ok(who) = Principal::uncounted(parts, app).await else { return Ok(None) };
    if !who.scope.covers(namespace) {
        return Ok(None);
    }
    let mut tx = app.db.read().await?;
    Ok(match collection {
        Collection::ApiKeys => the_only_key(&mut tx, &who, name).await?,
        Collection::Certificates => {
            let found = certificates::find_by_name(&mut tx, namespace, name).await?;
            found.map(|(certificate, _)| certificate.id.0)
        }
        Collection::Issuers => {
            let kind = if namespace.is_empty() { Kind::ClusterIssuer } else { Kind::Issuer };
            let found = issuers::find_by_name(&mut tx, kind, namespace, name).await?;
            found.map(|(issuer, _)| issuer.id.0)
        }
        Collection::Policies => policies::find_by_name(&mut tx, name).await?.map(|one| one.id.0),
        Collection::Secrets => {
            let found = secrets::find_by_name(&mut tx, namespace, name).await?;
            found.map(|(secret, _)| secret.id.0)
        }
        Collection::Webhooks => {
            let found = webhooks::find_by_name(&mut tx, namespace, name, &who.scope).await?;
            found.map(|webhook| webhook.id.0)
        }
    })
}

/// The API key of this name. Names of keys need not be unique: whoever may know that several have it is told so.
async fn the_only_key(
    read: &mut Read,
    who: &Principal,
    name: &str,
) -> Result<Option<Uuid>, ApiError> {
    if ![ApiKeysRead::NAME, ApiKeysWrite::NAME].into_iter().any(|needed| who.may(needed)) {
        return Ok(None);
    }
    // A page has one row more than asked for, if there is one.
    let mut found = api_keys::list(read, &who.scope, Some(name), Page::first(1)).await?.rows;
    if found.len() > 1 {
        let detail = format!("Several API keys are called `{name}`: name one by its identifier.");
        return Err(ApiError::Because(Code::AmbiguousName, detail));
    }
    Ok(found.pop().map(|key| key.id.0))
}

/// Describes each address by an identifier that can be written with a name, too.
pub(crate) fn describe(document: &mut OpenApi) {
    let mut added = Vec::new();
    for (path, item) in &document.paths.paths {
        for (root, collection) in Collection::ALL {
            let Some(rest) = path.strip_prefix(root).and_then(|path| path.strip_prefix("/{id}"))
            else {
                continue;
            };
            let of_namespace = format!("{root}/by-name/{{namespace}}/{{name}}{rest}");
            let of_service = format!("{root}/by-name/{{name}}{rest}");
            match collection {
                Collection::Certificates | Collection::Secrets | Collection::Webhooks => {
                    added.push((of_namespace, named(item, "ByName", true)));
                }
                Collection::Issuers => {
                    added.push((of_namespace, named(item, "ByName", true)));
                    added.push((of_service, named(item, "ByClusterName", false)));
                }
                Collection::ApiKeys | Collection::Policies => {
                    added.push((of_service, named(item, "ByName", false)));
                }
            }
        }
    }
    document.paths.paths.extend(added);
}

/// The same operations with namespace and name instead of `id`.
fn named(item: &PathItem, suffix: &str, has_namespace: bool) -> PathItem {
    let mut item = item.clone();
    let operations =
        [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
    for operation in operations.into_iter().flatten() {
        if let Some(id) = &mut operation.operation_id {
            id.push_str(suffix);
        }
        let parameters = operation.parameters.get_or_insert_default();
        parameters.retain(|one| !matches!(one, RefOr::T(one) if one.name == "id" && is_path(one)));
        let names = if has_namespace { &["namespace", "name"][..] } else { &["name"] };
        parameters.extend(names.iter().map(|name| {
            let parameter = ParameterBuilder::new()
                .name(*name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some(format!("Its {name}")))
                .schema(Some(Object::with_type(Type::String)))
                .build();
            RefOr::T(parameter)
        }));
    }
    item
}

fn is_path(parameter: &Parameter) -> bool {
    parameter.parameter_in == ParameterIn::Path
}

impl Named {
    /// That there is none, in the words of the address.
    pub(crate) fn missing(&self) -> String {
        let Self { namespace, name, .. } = self;
        match self.collection {
            Collection::ApiKeys => format!("There is no API key `{name}`."),
            Collection::Certificates => {
                format!("There is no certificate `{name}` in the namespace `{namespace}`.")
            }
            Collection::Secrets => {
                format!("There is no secret `{name}` in the namespace `{namespace}`.")
            }
            Collection::Webhooks => {
                format!("There is no webhook `{name}` in the namespace `{namespace}`.")
            }
            Collection::Policies => format!("There is no policy `{name}`."),
            Collection::Issuers if namespace.is_empty() => {
                format!("There is no ClusterIssuer `{name}`.")
            }
            Collection::Issuers => {
                format!("There is no Issuer `{name}` in the namespace `{namespace}`.")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        use Collection::{ApiKeys, Certificates, Issuers, Policies, Secrets, Webhooks};
        for (path, expected) in [
            ("/certificates/by-name/shop/www", Some((Certificates, "shop", "www", ""))),
            ("/certificates/by-name/shop/www/renew", Some((Certificates, "shop", "www", "/renew"))),
            (
                "/certificates/by-name/shop/a.b/revisions/x",
                Some((Certificates, "shop", "a.b", "/revisions/x")),
            ),
            ("/issuers/by-name/le", Some((Issuers, "", "le", ""))),
            (
                "/issuers/by-name/le/deactivate-account",
                Some((Issuers, "", "le", "/deactivate-account")),
            ),
            ("/issuers/by-name/shop/le", Some((Issuers, "shop", "le", ""))),
            (
                "/issuers/by-name/shop/le/rotate-account-key",
                Some((Issuers, "shop", "le", "/rotate-account-key")),
            ),
            ("/policies/by-name/payments", Some((Policies, "", "payments", ""))),
            ("/policies/by-name/", None),
            ("/secrets/by-name/shop/token", Some((Secrets, "shop", "token", ""))),
            ("/webhooks/by-name/shop/deploy/test", Some((Webhooks, "shop", "deploy", "/test"))),
            ("/webhooks/by-name/shop", None),
            ("/api-keys/by-name/ci/rotate", Some((ApiKeys, "", "ci", "/rotate"))),
            ("/api-keys/by-name/ci%2Fdeploy", Some((ApiKeys, "", "ci/deploy", ""))),
            ("/certificates/by-name/shop", None),
            ("/certificates/by-name/shop/", None),
            ("/certificates/by-name//www", Some((Certificates, "", "www", ""))),
            ("/certificates/019ab000-0000-7000-8000-000000000000", None),
            ("/orders/by-name/shop/www", None),
        ] {
            let parsed = parse(path);
            let found = parsed
                .as_ref()
                .map(|(_, named, rest)| (named.collection, &*named.namespace, &*named.name, *rest));
            assert_eq!(found, expected, "{path}");
        }
    }
}
