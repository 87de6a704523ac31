//! The hosts of a CA. Nothing is sent to any other host, even if the CA's answers name it.

use parking_lot::RwLock;
use url::{Origin, Url};

/// Scheme, host and port of what belongs to one CA.
pub(super) struct Origins {
    /// Origins of the directory's URL and of those that the issuer lists.
    given: Vec<Origin>,
    /// Origins of the endpoints that the directory names.
    named: RwLock<Vec<Origin>>,
}

impl Origins {
    pub(super) fn new(server: &str, allowed: &[String]) -> Self {
        let urls = std::iter::once(server).chain(allowed.iter().map(String::as_str));
        Self { given: urls.filter_map(origin).collect(), named: RwLock::default() }
    }

    /// Takes the place of what an earlier directory named.
    pub(super) fn learn<'a>(&self, endpoints: impl Iterator<Item = &'a str>) {
        let mut origins: Vec<Origin> = Vec::new();
        for origin in endpoints.filter_map(origin) {
            if !origins.contains(&origin) {
                origins.push(origin);
            }
        }
        *self.named.write() = origins;
    }

    /// The URL, if it is the CA's; else what is wrong with it.
    pub(super) fn admit(&self, text: &str) -> Result<Url, String> {
        let url = Url::parse(text).map_err(|error| format!("It is no URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("It holds a user name or password".to_owned());
        }
        let origin = url.origin();
        let named = self.named.read();
        if self.given.contains(&origin) || named.contains(&origin) {
            return Ok(url);
        }
        Err(format!("It is at {}, and the CA's directory is not", origin.ascii_serialization()))
    }
}

fn origin(url: &str) -> Option<Origin> {
    Url::parse(url).ok().map(|url| url.origin()).filter(Origin::is_tuple)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_says_which_hosts_are_its_own() {
        let origins = Origins::new("https://ca.example/directory", &["https://b.example".into()]);
        origins.learn(["https://api.ca.example:8443/new-order", "no URL"].into_iter());

        for own in [
            "https://ca.example/order/1",
            "https://CA.example:443/order/1",
            "https://api.ca.example:8443/order/1",
            "https://b.example/certificate/1",
        ] {
            assert!(origins.admit(own).is_ok(), "{own}");
        }
        for foreign in [
            "http://ca.example/order/1",
            "https://ca.example:444/order/1",
            "https://ca.example.evil.example/order/1",
            "https://ca.example@evil.example/order/1",
            "https://user@ca.example/order/1",
            "https://api.ca.example/order/1",
            "https://evil.example/?https://ca.example/",
            "//ca.example/order/1",
            "/order/1",
            "",
        ] {
            assert!(origins.admit(foreign).is_err(), "{foreign}");
        }

        origins.learn(["https://new.ca.example/new-order"].into_iter());
        assert!(origins.admit("https://api.ca.example:8443/order/1").is_err());
        assert!(origins.admit("https://new.ca.example/order/1").is_ok());
    }
}
