//! The transit engine of Vault or OpenBao that wraps the master key.

use std::path::PathBuf;

use url::Url;

use super::{ConfigError, Values};

/// A transit engine and the key in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transit {
    pub address: Url,
    pub mount: String,
    pub key: String,
    pub login: TransitLogin,
    /// PEM of the CA that its certificate is from, beside the public ones.
    pub ca_file: Option<PathBuf>,
}

/// How the service shows who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransitLogin {
    TokenFile(PathBuf),
    AppRole { role_id: String, secret_id_file: PathBuf },
}

impl Transit {
    pub(super) fn parse(values: &Values) -> Result<Option<Self>, ConfigError> {
        let Some(address) = values.given("transit.address") else {
            let others =
                ["transit.key", "transit.token_file", "transit.role_id", "transit.secret_id_file"];
            return match others.into_iter().find(|key| values.given(key).is_some()) {
                Some(key) => Err(values.bad(key, "set `transit.address` too")),
                None => Ok(None),
            };
        };
        let expected =
            "expected the address of a Vault or OpenBao, such as https://vault.example.com:8200";
        let address = Url::parse(&address)
            .ok()
            .filter(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
            .ok_or_else(|| values.bad("transit.address", expected))?;
        // Tokens and the master key would cross in clear.
        let is_local = matches!(address.host_str(), Some("127.0.0.1" | "[::1]" | "localhost"));
        if address.scheme() == "http" && !is_local {
            return Err(values.bad("transit.address", "expected https beyond this machine"));
        }
        Ok(Some(Self {
            address,
            mount: name(values, "transit.mount")?,
            key: name(values, "transit.key")?,
            login: login(values)?,
            ca_file: values.given("transit.ca_file").map(PathBuf::from),
        }))
    }
}

/// A part of a path.
fn name(values: &Values, key: &'static str) -> Result<String, ConfigError> {
    let text = values.text(key);
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_./".contains(&c);
    if text.is_empty()
        || !text.bytes().all(is_plain)
        || text.split('/').any(|part| part.is_empty() || part == "..")
    {
        return Err(values.bad(key, "expected a name of letters, digits, `-`, `_` and `.`"));
    }
    Ok(text)
}

fn login(values: &Values) -> Result<TransitLogin, ConfigError> {
    let [token, role, secret] = ["transit.token_file", "transit.role_id", "transit.secret_id_file"]
        .map(|key| values.given(key));
    match (token, role, secret) {
        (Some(token), None, None) => Ok(TransitLogin::TokenFile(token.into())),
        (None, Some(role_id), Some(secret)) => {
            Ok(TransitLogin::AppRole { role_id, secret_id_file: secret.into() })
        }
        _ => Err(values.bad(
            "transit.token_file",
            "expected either `transit.token_file`, or `transit.role_id` and `transit.secret_id_file`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read;

    const ADDRESS: (&str, &str) = ("transit.address", "https://vault.example.com:8200");
    const KEY: (&str, &str) = ("transit.key", "certwright");
    const TOKEN: (&str, &str) = ("transit.token_file", "/run/token");
    const ROLE: (&str, &str) = ("transit.role_id", "r");
    const SECRET: (&str, &str) = ("transit.secret_id_file", "/run/secret-id");

    fn parse(given: &[(&str, &str)]) -> Result<Option<Transit>, String> {
        let given: Vec<_> =
            given.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Transit::parse(&read(None, [], &given).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_transit_engine_takes_an_address_a_key_and_one_way_to_log_in() {
        assert_eq!(parse(&[]), Ok(None));
        let found = parse(&[ADDRESS, KEY, TOKEN]).unwrap().unwrap();
        assert_eq!((found.mount.as_str(), found.key.as_str()), ("transit", "certwright"));
        assert_eq!(found.login, TransitLogin::TokenFile("/run/token".into()));
        let found = parse(&[ADDRESS, KEY, ROLE, SECRET]).unwrap().unwrap();
        assert!(matches!(found.login, TransitLogin::AppRole { .. }), "{found:?}");
        assert!(parse(&[("transit.address", "http://127.0.0.1:8200"), KEY, TOKEN]).is_ok());
    }

    #[test]
    fn what_is_missing_or_would_cross_in_clear_is_refused_with_what_to_do() {
        for (given, expected) in [
            (&[KEY][..], "set `transit.address` too"),
            (&[ADDRESS, TOKEN], "expected a name"),
            (&[ADDRESS, KEY], "expected either"),
            (&[ADDRESS, KEY, TOKEN, ROLE], "expected either"),
            (&[ADDRESS, KEY, ROLE], "expected either"),
            (&[("transit.address", "http://vault.example.com"), KEY, TOKEN], "expected https"),
            (&[("transit.address", "vault:8200"), KEY, TOKEN], "expected the address"),
            (&[ADDRESS, ("transit.key", "../sys/seal"), TOKEN], "expected a name"),
        ] {
            let problem = parse(given).unwrap_err();
            assert!(problem.contains(expected), "{given:?}: {problem}");
        }
    }
}
