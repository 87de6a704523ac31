//! The least that issuing can cost here: a loop around instant-acme that remembers nothing.
//!
//! It looks at the CA's answer more eagerly than instant-acme does by default (which waits 250 ms
//! first), so that it is the CA that is measured, not the pauses.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{
    Account, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, Error, HttpClient,
    Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use serde_json::{Value, json};

use super::ground::{Ground, ZONE};

const PATIENCE: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(25)).backoff(1.5);

/// An account, and the way to the DNS.
pub struct Floor {
    account: Account,
    http: reqwest::Client,
    records: String,
    token: &'static str,
}

struct Client(reqwest::Client);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let http = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let url = parts.uri.to_string();
            let request = http.request(parts.method, url).headers(parts.headers);
            let answer = request.body(body.to_bytes()).send().await.map_err(other)?;
            let mut response = Response::new(());
            *response.status_mut() = answer.status();
            response.headers_mut().clone_from(answer.headers());
            let body = answer.bytes().await.map_err(other)?;
            Ok(response.map(|()| Full::new(body)).into())
        })
    }
}

fn other(error: reqwest::Error) -> Error {
    Error::Other(Box::new(error))
}

impl Floor {
    pub async fn start(ground: &Ground) -> Self {
        let ca = reqwest::Certificate::from_pem(ground.ca_pem().as_bytes()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([ca]).no_proxy().build().unwrap();
        let wanted =
            NewAccount { contact: &[], terms_of_service_agreed: true, only_return_existing: false };
        let (account, _) = Account::builder_with_http(Box::new(Client(client)))
            .create(&wanted, ground.directory_url(), None)
            .await
            .unwrap();
        let cloudflare = &ground.cloudflare;
        let (base, zone) = (cloudflare.base_url(), cloudflare.zone_id(ZONE));
        let records = format!("{base}/zones/{zone}/dns_records");
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { account, http, records, token: cloudflare.token() }
    }

    /// How long one certificate takes.
    pub async fn issue(self: Arc<Self>, name: String) -> Duration {
        let begun = Instant::now();
        let names = [Identifier::Dns(name.clone())];
        let mut order = self.account.new_order(&NewOrder::new(&names)).await.unwrap();
        let mut record = None;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.unwrap();
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let mut challenge = authorization.challenge(ChallengeType::Dns01).unwrap();
            let value = challenge.key_authorization().dns_value();
            record = Some(self.create(&format!("_acme-challenge.{name}"), &value).await);
            challenge.set_ready().await.unwrap();
        }
        assert_eq!(order.poll_ready(&PATIENCE).await.unwrap(), OrderStatus::Ready);
        let mut params = CertificateParams::new([name]).unwrap();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&KeyPair::generate().unwrap()).unwrap();
        order.finalize_csr(csr.der()).await.unwrap();
        let chain = order.poll_certificate(&PATIENCE).await.unwrap();
        assert!(chain.contains("BEGIN CERTIFICATE"));
        let took = begun.elapsed();
        if let Some(record) = record {
            let url = format!("{}/{record}", self.records);
            let deleted = self.http.delete(url).bearer_auth(self.token).send().await;
            deleted.unwrap().error_for_status().unwrap();
        }
        took
    }

    async fn create(&self, name: &str, value: &str) -> String {
        let content = format!("\"{value}\"");
        let record = json!({"type": "TXT", "name": name, "content": content, "ttl": 60});
        let request = self.http.post(&self.records).bearer_auth(self.token).json(&record);
        let answer = request.send().await.unwrap().error_for_status().unwrap();
        let answer: Value = answer.json().await.unwrap();
        answer["result"]["id"].as_str().unwrap().to_owned()
    }
}
