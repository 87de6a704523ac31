//! How the API is reached: over TLS, or without it.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{ConfigError, Values};

/// The API over TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    pub listen: SocketAddr,
    pub certificate: CertificateSource,
}

/// Where its certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// PEM.
    Files { chain: PathBuf, key: PathBuf },
    /// A certificate of this service.
    Issued { namespace: String, name: String },
}

/// The address of the API over plain HTTP, where keys and certificates' keys would cross in clear.
pub(super) fn plain_address(values: &Values) -> Result<SocketAddr, ConfigError> {
    let address = values.address("http.listen")?;
    if address.ip().is_loopback() || values.switch("http.allow_plain")? {
        return Ok(address);
    }
    Err(values.bad(
        "http.listen",
        "API keys and private keys would be sent without TLS beyond this machine. Listen on 127.0.0.1 and let \
         `https.listen` serve others; or, behind a proxy that ends TLS, set `http.allow_plain = true`",
    ))
}

impl Https {
    pub(super) fn parse(values: &Values) -> Result<Option<Self>, ConfigError> {
        let [chain, key, issued] =
            ["https.certificate_file", "https.key_file", "https.certificate"]
                .map(|key| values.given(key));
        let certificate = match (chain, key, issued) {
            (None, None, None) => None,
            (Some(chain), Some(key), None) => {
                Some(CertificateSource::Files { chain: chain.into(), key: key.into() })
            }
            (None, None, Some(_)) => Some(CertificateSource::issued(values)?),
            (_, _, Some(_)) => {
                return Err(values.bad(
                    "https.certificate",
                    "`https.certificate_file` or `https.key_file` is given too; which one counts?",
                ));
            }
            (Some(_), None, None) => {
                return Err(values
                    .bad("https.certificate_file", "its key is missing: set `https.key_file`"));
            }
            (None, Some(_), None) => {
                return Err(values.bad(
                    "https.key_file",
                    "its certificate is missing: set `https.certificate_file`",
                ));
            }
        };
        if values.given("https.listen").is_none() {
            return Ok(None);
        }
        let listen = values.address("https.listen")?;
        let Some(certificate) = certificate else {
            return Err(values.bad(
                "https.listen",
                "which certificate? Set `https.certificate_file` and `https.key_file`, or `https.certificate` to the \
                 NAMESPACE/NAME of one that this service issues",
            ));
        };
        Ok(Some(Self { listen, certificate }))
    }
}

impl CertificateSource {
    fn issued(values: &Values) -> Result<Self, ConfigError> {
        let text = values.text("https.certificate");
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                Ok(Self::Issued { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err(values
                .bad("https.certificate", "expected NAMESPACE/NAME, such as default/certwright")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, read};

    fn parse(settings: &[(&str, &str)]) -> Result<Config, String> {
        let flags: Vec<_> =
            settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Config::parse(&read(None, [], &flags).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_it_is_allowed() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            assert!(parse(&[("http.listen", address)]).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
            let refused = parse(&[("http.listen", address)]).unwrap_err();
            assert!(refused.contains("`http.allow_plain = true`"), "{refused}");
            let allowed = [("http.listen", address), ("http.allow_plain", "true")];
            assert!(parse(&allowed).is_ok(), "{address}");
        }
    }

    #[test]
    fn the_certificate_of_https_has_one_source() {
        let listen = ("https.listen", "0.0.0.0:0");
        let chain = ("https.certificate_file", "chain.pem");
        let key = ("https.key_file", "key.pem");
        let issued = ("https.certificate", "default/certwright");
        assert_eq!(parse(&[]).unwrap().https, None);
        assert_eq!(parse(&[chain, key]).unwrap().https, None, "nobody listens");
        let files = parse(&[listen, chain, key]).unwrap().https.unwrap();
        assert!(matches!(files.certificate, CertificateSource::Files { .. }));
        let ours = parse(&[listen, issued]).unwrap().https.unwrap();
        assert!(
            matches!(&ours.certificate, CertificateSource::Issued { name, .. } if name == "certwright")
        );
        for (settings, expected) in [
            (&[listen][..], "which certificate?"),
            (&[listen, chain], "set `https.key_file`"),
            (&[listen, key], "set `https.certificate_file`"),
            (&[listen, chain, key, issued], "which one counts?"),
            (&[listen, ("https.certificate", "certwright")], "NAMESPACE/NAME"),
        ] {
            let refused = parse(settings).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
