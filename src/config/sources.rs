//! The sources of values and their precedence.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use url::Url;

use super::ConfigError;
use super::settings::{OTHER_VARIABLES, SETTINGS, Setting};

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// Every setting's text, with where it came from.
#[derive(Debug, Clone)]
pub struct Values(BTreeMap<&'static str, (String, Origin)>);

/// Paths of the file when none is named.
const USUAL_FILES: [&str; 2] = ["certwright.toml", "/etc/certwright/certwright.toml"];

/// Reads the file, the environment and the flags, each over the one before.
pub fn read(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[(String, String)],
) -> Result<Values, ConfigError> {
    let defaults =
        SETTINGS.iter().map(|setting| (setting.key, (setting.default.to_owned(), Origin::Default)));
    let mut values = Values(defaults.collect());
    let usual = || USUAL_FILES.iter().map(Path::new).find(|path| path.is_file());
    if let Some(path) = file.or_else(usual) {
        values.take_file(path)?;
    }
    for (name, value) in environment {
        let ours = name.starts_with("CERTWRIGHT_") && !OTHER_VARIABLES.contains(&name.as_str());
        if !ours || value.is_empty() || is_service_link(&name) {
            continue;
        }
        let origin = Origin::Environment(name.clone());
        let Some(setting) = SETTINGS.iter().find(|setting| setting.env() == name) else {
            let nearest = nearest(&name, SETTINGS.iter().map(Setting::env));
            return Err(ConfigError::Unknown { key: name, origin, nearest });
        };
        values.set(setting, value, origin);
    }
    for (key, value) in flags {
        values.set(find(key, &Origin::Flag)?, value.clone(), Origin::Flag);
    }
    Ok(values)
}

impl Values {
    fn take_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let unusable = |problem: &dyn fmt::Display| ConfigError::File {
            file: path.display().to_string(),
            problem: problem.to_string(),
        };
        let text = std::fs::read_to_string(path).map_err(|error| unusable(&error))?;
        let table: toml::Table =
            text.parse().map_err(|error| unusable(&without_excerpt(&text, &error)))?;
        let origin = Origin::File(path.to_owned());
        let mut flat = Vec::new();
        flatten("", &table, &mut flat);
        for (key, value) in flat {
            let setting = find(&key, &origin)?;
            let expected = match setting {
                Setting { tables: true, .. } => "expected tables, `[[…]]`",
                Setting { list: true, .. } => "expected a list",
                _ => "expected a text or number",
            };
            let text = as_text(setting, &value).ok_or_else(|| ConfigError::Bad {
                key: setting.key,
                value: shown(setting, &value.to_string()),
                origin: origin.clone(),
                problem: expected.to_owned(),
            })?;
            self.set(setting, text, origin.clone());
        }
        Ok(())
    }

    fn set(&mut self, setting: &Setting, value: String, origin: Origin) {
        self.0.insert(setting.key, (value, origin));
    }

    /// The text of a setting; empty when there is none.
    pub fn text(&self, key: &str) -> String {
        self.0.get(key).map(|(text, _)| text.clone()).unwrap_or_default()
    }

    /// The text of a setting that may be absent.
    pub fn given(&self, key: &str) -> Option<String> {
        Some(self.text(key)).filter(|text| !text.is_empty())
    }

    /// The source of a setting's value.
    pub fn origin(&self, key: &str) -> Origin {
        self.0.get(key).map_or(Origin::Default, |(_, origin)| origin.clone())
    }

    /// The entries of a list.
    pub fn list(&self, key: &str) -> Vec<String> {
        let text = self.text(key);
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        entries.map(str::to_owned).collect()
    }

    /// The error that a setting's value makes no sense.
    pub fn bad(&self, key: &'static str, problem: impl Into<String>) -> ConfigError {
        let text = self.text(key);
        let setting = SETTINGS.iter().find(|setting| setting.key == key);
        let value = setting.map_or_else(String::new, |setting| shown(setting, &text));
        ConfigError::Bad { key, value, origin: self.origin(key), problem: problem.into() }
    }

    pub(super) fn address(&self, key: &'static str) -> Result<SocketAddr, ConfigError> {
        let expected = || self.bad(key, "expected IP:PORT, such as 127.0.0.1:8080");
        self.text(key).parse().map_err(|_| expected())
    }

    pub(super) fn number<T: FromStr + PartialOrd + fmt::Display>(
        &self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Result<T, ConfigError> {
        let number = self.text(key).parse().ok().filter(|number| range.contains(number));
        number.ok_or_else(|| {
            self.bad(key, format!("expected a number from {} to {}", range.start(), range.end()))
        })
    }

    pub(super) fn duration(&self, key: &'static str) -> Result<Duration, ConfigError> {
        humantime::parse_duration(&self.text(key))
            .map_err(|_| self.bad(key, "expected a duration, such as 20s or 1m"))
    }

    pub(super) fn duration_within(
        &self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let words = |limit: &Duration| humantime::format_duration(*limit).to_string();
        let duration = self.duration(key)?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (least, most) = (words(range.start()), words(range.end()));
        Err(self.bad(key, format!("expected a duration from {least} to {most}")))
    }

    pub(super) fn switch(&self, key: &'static str) -> Result<bool, ConfigError> {
        self.text(key).parse().map_err(|_| self.bad(key, "expected true or false"))
    }

    pub(super) fn ports(&self, key: &'static str) -> Result<BTreeSet<u16>, ConfigError> {
        let parse = |entry: &String| {
            entry.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                self.bad(key, format!("\"{entry}\" is no port: expected numbers from 1 to 65535"))
            })
        };
        self.list(key).iter().map(parse).collect()
    }

    pub(super) fn networks(&self, key: &'static str) -> Result<Vec<IpNet>, ConfigError> {
        let parse = |entry: &String| {
            let found = entry.parse().or_else(|_| entry.parse::<IpAddr>().map(IpNet::from));
            found.map_err(|_| {
                self.bad(key, format!("\"{entry}\" is no network: expected 10.0.0.0/8 or an IP"))
            })
        };
        self.list(key).iter().map(parse).collect()
    }

    /// Origins, written as browsers send them: nothing else would be equal to what they send.
    pub(super) fn origins(&self, key: &'static str) -> Result<Vec<String>, ConfigError> {
        let parse = |entry: &String| {
            let url =
                Url::parse(entry).ok().filter(|url| ["http", "https"].contains(&url.scheme()));
            let origin = url.map(|url| url.origin().ascii_serialization());
            origin.filter(|origin| origin == entry).ok_or_else(|| {
                self.bad(key, format!("\"{entry}\" is no origin: expected https://app.example.com, in lower case, without a path or a usual port"))
            })
        };
        self.list(key).iter().map(parse).collect()
    }

    pub(super) fn nameservers(&self, key: &'static str) -> Result<Vec<SocketAddr>, ConfigError> {
        let parse = |entry: &String| {
            entry
                .parse()
                .or_else(|_| entry.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
                .map_err(|_| self.bad(key, format!("\"{entry}\" is neither IP nor IP:PORT")))
        };
        self.list(key).iter().map(parse).collect()
    }
}

/// Position and problem. The line itself is left out, since it may hold a secret.
fn without_excerpt(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

/// A value as it may be shown.
pub(super) fn shown(setting: &Setting, value: &str) -> String {
    if setting.key == "database.url"
        && let Some(url) = without_password(value)
    {
        return format!("{url:?}");
    }
    if setting.secret { "\"(redacted)\"".to_owned() } else { format!("{value:?}") }
}

/// A database's URL with its password hidden; `None` where it may stand in a place that is not known.
fn without_password(text: &str) -> Option<String> {
    let mut url = Url::parse(text).ok()?;
    let is_in_query = url.query().is_some_and(|query| query.contains("password"));
    if is_in_query || (url.password().is_none() && text.contains('@') && url.username().is_empty())
    {
        return None;
    }
    if url.password().is_none() {
        return Some(text.to_owned());
    }
    url.set_password(Some("redacted")).ok()?;
    Some(url.into())
}

/// Variables that Kubernetes sets for a Service that is named `certwright…`.
fn is_service_link(name: &str) -> bool {
    let known = SETTINGS.iter().any(|setting| setting.env() == name);
    let marks = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT_"];
    !known && (name.ends_with("_PORT") || marks.iter().any(|mark| name.contains(mark)))
}

fn find(key: &str, origin: &Origin) -> Result<&'static Setting, ConfigError> {
    SETTINGS.iter().find(|setting| setting.key == key).ok_or_else(|| ConfigError::Unknown {
        key: key.to_owned(),
        origin: origin.clone(),
        nearest: nearest(key, SETTINGS.iter().map(|setting| setting.key.to_owned())),
    })
}

fn nearest(key: &str, known: impl Iterator<Item = String>) -> Option<String> {
    known
        .map(|candidate| (strsim::jaro_winkler(key, &candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

fn flatten(prefix: &str, table: &toml::Table, flat: &mut Vec<(String, toml::Value)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, flat),
            value => flat.push((key, value.clone())),
        }
    }
}

fn as_text(setting: &Setting, value: &toml::Value) -> Option<String> {
    match value {
        value if setting.tables => value.is_array().then(|| value.to_string()),
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) if !setting.list => Some(number.to_string()),
        toml::Value::Boolean(switch) if !setting.list => Some(switch.to_string()),
        toml::Value::Array(entries) if setting.list => {
            let texts: Option<Vec<String>> = entries
                .iter()
                .map(|entry| match entry {
                    toml::Value::String(text) => Some(text.clone()),
                    toml::Value::Integer(number) => Some(number.to_string()),
                    _ => None,
                })
                .collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn flags_beat_the_environment_which_beats_the_file() {
        let file = file(
            "[http]\nlisten = \"127.0.0.1:1\"\n[http01]\nlisten = \"127.0.0.1:2\"\n[log]\nlevel = \"warn\"\n",
        );
        let environment = [
            env("CERTWRIGHT_HTTP_LISTEN", "127.0.0.1:3"),
            env("CERTWRIGHT_HTTP01_LISTEN", "127.0.0.1:4"),
        ];
        let flags = [("http.listen".to_owned(), "127.0.0.1:5".to_owned())];

        let values = read(Some(file.path()), environment, &flags).unwrap();
        let config = Config::parse(&values).unwrap();

        assert_eq!(config.http_listen.port(), 5);
        assert_eq!(config.http01_listen.port(), 4);
        assert_eq!(config.log_level, "warn");
        assert_eq!(values.origin("http.listen"), Origin::Flag);
    }

    #[test]
    fn what_nobody_knows_is_named_with_what_was_meant() {
        let file = file("[http]\nlissten = \"127.0.0.1:1\"\n");
        let refused = read(Some(file.path()), [], &[]).unwrap_err().to_string();
        assert!(refused.contains("\"http.lissten\"; did you mean \"http.listen\""), "{refused}");

        let typo = [env("CERTWRIGHT_HTTP_LISSTEN", "x")];
        let refused = read(None, typo, &[]).unwrap_err().to_string();
        assert!(refused.contains("did you mean \"CERTWRIGHT_HTTP_LISTEN\"?"), "{refused}");
        let not_ours = [
            env("CERTWRIGHT_SERVER", "x"),
            env("OTHER", "y"),
            env("CERTWRIGHT_NOTHING", ""),
            env("CERTWRIGHT_PORT", "tcp://192.0.2.1:80"),
            env("CERTWRIGHT_PORT_80_TCP_ADDR", "192.0.2.1"),
            env("CERTWRIGHT_WEB_SERVICE_HOST", "192.0.2.1"),
        ];
        assert!(read(None, not_ours, &[]).is_ok());
    }

    #[test]
    fn what_makes_no_sense_is_named_with_what_is_expected() {
        for (name, value, expected) in [
            ("CERTWRIGHT_HTTP_LISTEN", "8080", "IP:PORT"),
            ("CERTWRIGHT_WORKER_CONCURRENCY", "0", "from 1 to 10000"),
            ("CERTWRIGHT_WORKER_CONCURRENCY", "many", "from 1 to 10000"),
            ("CERTWRIGHT_DATABASE_URL", "mysql://root:hunter2@x", "postgres://"),
            ("CERTWRIGHT_LOG_FORMAT", "xml", "text or json"),
            ("CERTWRIGHT_DNS_NAMESERVERS", "1.1.1.1,dns.example", "dns.example"),
            ("CERTWRIGHT_SHUTDOWN_TIMEOUT", "soon", "20s"),
            ("CERTWRIGHT_EVENTS_RETENTION", "5m", "1h to 36500d"),
            ("CERTWRIGHT_WORKER_LEASE", "0s", "from 1s to 2m"),
            ("CERTWRIGHT_WORKER_LEASE", "3m", "from 1s to 2m"),
            ("CERTWRIGHT_OUTBOUND_ALLOW_HTTP", "perhaps", "true or false"),
            ("CERTWRIGHT_OUTBOUND_PORTS", "443,https", "\"https\" is no port"),
            ("CERTWRIGHT_OUTBOUND_PORTS", "0", "from 1 to 65535"),
            ("CERTWRIGHT_DATABASE_URL", "sqlite::memory:", "a file"),
            ("CERTWRIGHT_HTTP_FORWARDED_HEADER", "X-Real-IP", "X-Forwarded-For or Forwarded"),
            ("CERTWRIGHT_HTTP_CORS_ORIGINS", "*", "\"*\" is no origin"),
            ("CERTWRIGHT_HTTP_CORS_ORIGINS", "https://app.example.com/", "without a path"),
            ("CERTWRIGHT_HTTP_CORS_ORIGINS", "https://app.example.com:443", "a usual port"),
            ("CERTWRIGHT_HTTP_CORS_ORIGINS", "https://a.example,null", "\"null\" is no origin"),
        ] {
            let values = read(None, [env(name, value)], &[]).unwrap();
            let refused = Config::parse(&values).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains(expected), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
        }
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let given = [env("CERTWRIGHT_HTTP_CORS_ORIGINS", "https://a.example, http://[::1]")];
        let config = Config::parse(&read(None, given, &[]).unwrap()).unwrap();

        assert_eq!(config.cors_origins, ["https://a.example", "http://[::1]"]);
    }

    #[test]
    fn nameservers_have_a_usual_port() {
        let given = [env("CERTWRIGHT_DNS_NAMESERVERS", "192.0.2.1, [2001:db8::1]:5353")];
        let config = Config::parse(&read(None, given, &[]).unwrap()).unwrap();

        let expected: [SocketAddr; 2] =
            ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:5353".parse().unwrap()];
        assert_eq!(config.nameservers, expected);
    }

    fn env(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }
}
