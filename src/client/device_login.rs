//! Logs a person in at an OIDC issuer: the device authorization grant (RFC 8628), and new tokens by refresh token.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::redirect;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::chain;

const TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked for; an issuer that knows no refresh tokens ignores the last one.
const SCOPE: &str = "openid offline_access";

/// Where a person logs in, and for whom the token is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginIssuer {
    pub issuer: String,
    pub client_id: String,
    pub audience: String,
}

/// An issuer's endpoints, by its discovery document.
#[derive(Debug, Clone, Deserialize)]
struct Endpoints {
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
}

/// What a person does to log in.
#[derive(Debug, Deserialize)]
pub struct DeviceCode {
    #[serde(rename = "device_code")]
    secret: String,
    pub user_code: String,
    pub verification_uri: String,
    pub verification_uri_complete: Option<String>,
    #[serde(default = "five_seconds")]
    interval: u64,
}

fn five_seconds() -> u64 {
    5
}

/// What a person is let in with.
#[derive(Clone, Serialize, Deserialize)]
pub struct Login {
    pub bearer: String,
    pub refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(rename = "access_token")]
    access: Option<String>,
    #[serde(rename = "id_token")]
    id: Option<String>,
    #[serde(rename = "refresh_token")]
    refresh: Option<String>,
}

/// An error of OAuth 2.0 (RFC 6749, section 5.2).
#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Why nobody was logged in.
#[derive(Debug, Error)]
pub enum LoginError {
    #[error("the issuer {issuer} cannot be asked: {cause}")]
    Unreachable { issuer: String, cause: String },
    #[error("the issuer {0} does not know logins by device code (`device_authorization_endpoint`)")]
    NoDeviceFlow(String),
    #[error("the issuer refused: {error} {description}")]
    Refused { error: String, description: String },
    #[error(
        "the issuer gave no token for `{0}`; its client has to be allowed that audience, or `audience` in `oidc.issuers` be the client's identifier"
    )]
    NotForUs(String),
}

/// A login that is under way.
pub struct DeviceLogin {
    http: reqwest::Client,
    at: LoginIssuer,
    token_endpoint: String,
    pub code: DeviceCode,
}

impl DeviceLogin {
    /// Asks for a code that a person enters.
    pub async fn begin(at: LoginIssuer) -> Result<Self, LoginError> {
        let http = http(&at)?;
        let Endpoints { token_endpoint, device_authorization_endpoint } =
            endpoints(&http, &at).await?;
        let endpoint = device_authorization_endpoint
            .ok_or_else(|| LoginError::NoDeviceFlow(at.issuer.clone()))?;
        let form = [("client_id", &*at.client_id), ("scope", SCOPE), ("resource", &*at.audience)];
        let code = post(&http, &at, &endpoint, &form).await?.map_err(refused)?;
        Ok(Self { http, at, token_endpoint, code })
    }

    /// Waits until the person has entered it.
    #[expect(clippy::disallowed_methods, reason = "the issuer says how often it may be asked")]
    pub async fn finish(self) -> Result<Login, LoginError> {
        let mut pause = Duration::from_secs(self.code.interval);
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
            ("device_code", &*self.code.secret),
            ("client_id", &*self.at.client_id),
            ("resource", &*self.at.audience),
        ];
        loop {
            tokio::time::sleep(pause).await;
            match post(&self.http, &self.at, &self.token_endpoint, &form).await? {
                Ok(tokens) => return login(tokens, &self.at, None),
                Err(refusal) if refusal.error == "authorization_pending" => {}
                // RFC 8628, section 3.5.
                Err(refusal) if refusal.error == "slow_down" => pause += Duration::from_secs(5),
                Err(refusal) => return Err(refused(refusal)),
            }
        }
    }
}

impl Login {
    /// The next token of somebody who is logged in.
    pub async fn renewed(&self, at: &LoginIssuer) -> Result<Self, LoginError> {
        let Some(refresh_token) = &self.refresh_token else {
            return Err(LoginError::Refused {
                error: "expired".to_owned(),
                description: "and the issuer gave no refresh token".to_owned(),
            });
        };
        let http = http(at)?;
        let Endpoints { token_endpoint, .. } = endpoints(&http, at).await?;
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token),
            ("client_id", &*at.client_id),
            ("resource", &*at.audience),
        ];
        let tokens = post(&http, at, &token_endpoint, &form).await?.map_err(refused)?;
        login(tokens, at, Some(refresh_token))
    }

    /// Seconds since the epoch; 0 if it cannot be read.
    pub fn expires_at(&self) -> i64 {
        claims(&self.bearer).and_then(|claims| claims["exp"].as_i64()).unwrap_or_default()
    }
}

/// The one of the tokens that is for the service: an access token where the issuer makes them for an audience, else
/// the one that says who the person is.
fn login(tokens: Tokens, at: &LoginIssuer, former: Option<&str>) -> Result<Login, LoginError> {
    let Tokens { access, id, refresh } = tokens;
    let for_us = [access, id].into_iter().flatten().find(|token| {
        claims(token).is_some_and(|claims| match &claims["aud"] {
            Value::Array(all) => all.iter().any(|one| one == at.audience.as_str()),
            one => one == at.audience.as_str(),
        })
    });
    let bearer = for_us.ok_or_else(|| LoginError::NotForUs(at.audience.clone()))?;
    Ok(Login { bearer, refresh_token: refresh.or_else(|| former.map(str::to_owned)) })
}

/// What a token says, unverified: to choose by it, not to believe it.
fn claims(token: &str) -> Option<Value> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

fn http(at: &LoginIssuer) -> Result<reqwest::Client, LoginError> {
    reqwest::Client::builder()
        .user_agent(concat!("certwright/", env!("CARGO_PKG_VERSION")))
        .timeout(TIMEOUT)
        .redirect(redirect::Policy::none())
        .build()
        .map_err(|error| unreachable(at, &error))
}

async fn endpoints(http: &reqwest::Client, at: &LoginIssuer) -> Result<Endpoints, LoginError> {
    let base = at.issuer.trim_end_matches('/');
    let url = format!("{base}/.well-known/openid-configuration");
    let answer = http.get(url).send().await.and_then(reqwest::Response::error_for_status);
    let answer = answer.map_err(|error| unreachable(at, &error))?;
    answer.json().await.map_err(|error| unreachable(at, &error))
}

async fn post<T: DeserializeOwned>(
    http: &reqwest::Client,
    at: &LoginIssuer,
    endpoint: &str,
    form: &[(&str, &str)],
) -> Result<Result<T, Refusal>, LoginError> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = http.post(endpoint).body(body);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request.send().await.map_err(|error| unreachable(at, &error))?;
    let is_success = answer.status().is_success();
    let unread = |error: reqwest::Error| unreachable(at, &error);
    if is_success {
        return Ok(Ok(answer.json().await.map_err(unread)?));
    }
    Ok(Err(answer.json().await.map_err(unread)?))
}

fn unreachable(at: &LoginIssuer, error: &reqwest::Error) -> LoginError {
    LoginError::Unreachable { issuer: at.issuer.clone(), cause: chain(error) }
}

fn refused(refusal: Refusal) -> LoginError {
    LoginError::Refused { error: refusal.error, description: refusal.error_description }
}
