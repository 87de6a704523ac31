//! Where traces are sent.

use http::{HeaderName, HeaderValue};
use url::Url;

use super::{ConfigError, Values};
use crate::secret::Secret;

/// A collector that takes spans by OTLP, `http/protobuf`.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Where spans are posted to.
    pub endpoint: Url,
    /// Sent with every request; their values may be credentials.
    pub headers: Vec<(String, Secret<String>)>,
    /// The share of the traces that begin here which are sent, from 0 to 1.
    pub sample_ratio: f64,
}

/// Where the protocol has the spans, below a collector's address.
const PATH: &str = "/v1/traces";

impl Otlp {
    pub(super) fn parse(values: &Values) -> Result<Option<Self>, ConfigError> {
        const ENDPOINT: &str = "telemetry.otlp.endpoint";
        let Some(text) = values.given(ENDPOINT) else {
            return match values.given("telemetry.otlp.headers") {
                Some(_) => {
                    Err(values.bad("telemetry.otlp.headers", "set `telemetry.otlp.endpoint` too"))
                }
                None => Ok(None),
            };
        };
        if cfg!(not(feature = "otel")) {
            let problem = "this program was built without the feature `otel`: build it with that, or leave the setting out";
            return Err(values.bad(ENDPOINT, problem));
        }
        let expected = "expected the address of a collector, such as http://localhost:4318";
        let mut endpoint = Url::parse(&text)
            .ok()
            .filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
            .filter(|url| url.username().is_empty() && url.password().is_none())
            .ok_or_else(|| values.bad(ENDPOINT, expected))?;
        if !endpoint.path().ends_with(PATH) {
            let path = format!("{}{PATH}", endpoint.path().trim_end_matches('/'));
            endpoint.set_path(&path);
        }
        Ok(Some(Self { endpoint, headers: headers(values)?, sample_ratio: ratio(values)? }))
    }
}

fn headers(values: &Values) -> Result<Vec<(String, Secret<String>)>, ConfigError> {
    const KEY: &str = "telemetry.otlp.headers";
    let bad = || values.bad(KEY, "expected NAME=VALUE, or several of them separated by commas");
    let pair = |text: &str| {
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        let (name, value) = (name.trim(), value.trim());
        let is_header = name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok();
        is_header.then(|| (name.to_owned(), Secret::new(value.to_owned()))).ok_or_else(bad)
    };
    let text = values.given(KEY).unwrap_or_default();
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(pair).collect()
}

fn ratio(values: &Values) -> Result<f64, ConfigError> {
    const KEY: &str = "telemetry.otlp.sample_ratio";
    let ratio = values.text(KEY).parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| values.bad(KEY, "expected a number from 0 to 1, such as 0.1"))
}

#[cfg(test)]
#[cfg(feature = "otel")]
mod tests {
    use super::*;
    use crate::config;

    fn parsed(settings: &[(&str, &str)]) -> Result<Option<Otlp>, String> {
        let flags: Vec<_> = settings
            .iter()
            .map(|(key, value)| (format!("telemetry.otlp.{key}"), (*value).to_owned()))
            .collect();
        let values = config::read(None, std::iter::empty(), &flags).unwrap();
        Otlp::parse(&values).map_err(|error| error.to_string())
    }

    #[test]
    fn spans_go_to_the_path_of_the_protocol_below_the_collectors_address() {
        for (given, posted_to) in [
            ("http://localhost", "http://localhost/v1/traces"),
            ("https://otel.example.com/tempo/", "https://otel.example.com/tempo/v1/traces"),
            ("https://otel.example.com/v1/traces", "https://otel.example.com/v1/traces"),
        ] {
            let settings = parsed(&[("endpoint", given)]).unwrap().unwrap();
            assert_eq!(settings.endpoint.as_str(), posted_to);
            assert!(settings.headers.is_empty() && settings.sample_ratio >= 1.0);
        }
        assert!(parsed(&[]).unwrap().is_none());
    }

    #[test]
    fn headers_are_secrets() {
        let given = [("endpoint", "http://c"), ("headers", "authorization=Basic a=, x-scope=7")];
        let settings = parsed(&given).unwrap().unwrap();

        let shown = format!("{settings:?}");
        assert!(!shown.contains("Basic"), "{shown}");
        let headers = settings.headers.iter().map(|(name, value)| (&**name, &**value.expose()));
        let expected = [("authorization", "Basic a="), ("x-scope", "7")];
        assert_eq!(headers.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let endpoint = ("endpoint", "http://c");
        for (settings, told) in [
            (vec![("endpoint", "localhost")], "the address of a collector"),
            (vec![("endpoint", "http://me:secret@c")], "the address of a collector"),
            (vec![endpoint, ("headers", "authorization")], "NAME=VALUE"),
            (vec![endpoint, ("sample_ratio", "2")], "from 0 to 1"),
            (vec![endpoint, ("sample_ratio", "NaN")], "from 0 to 1"),
            (vec![("headers", "a=b")], "set `telemetry.otlp.endpoint` too"),
        ] {
            let error = parsed(&settings).unwrap_err();
            assert!(error.contains(told) && !error.contains("a=b"), "{settings:?}: {error}");
        }
    }
}
