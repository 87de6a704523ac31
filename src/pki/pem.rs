//! PEM (RFC 7468): blocks of the labels that are wanted, and nothing else.
//!
//! Lenient about how a block is wrapped (line ends, widths, blank lines), and about nothing that stands
//! beside it. What is kept is written anew, so that it has one form wherever it came from.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

/// Bytes in a line of 64 characters.
const LINE: usize = 48;

/// Why a text is not the PEM that is wanted; each reads on from "it".
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PemError {
    #[error("holds a private key, which belongs to its owner alone")]
    PrivateKey,
    #[error("holds something outside of its PEM blocks")]
    Outside,
    #[error("holds a PEM block of another kind, `{0}`")]
    Foreign(String),
    #[error("holds a PEM block without an end")]
    Unended,
    #[error("holds a PEM block that is not base64")]
    NotBase64,
    #[error("holds more than {0} PEM blocks")]
    TooMany(usize),
}

/// The contents of all blocks; each has one of the `labels`, and there are at most `most`.
pub(super) fn read(text: &str, labels: &[&str], most: usize) -> Result<Vec<Vec<u8>>, PemError> {
    // Wherever it stands: whoever reads the refusal is to hear of this first.
    if text.contains("PRIVATE KEY-----") {
        return Err(PemError::PrivateKey);
    }
    let mut found = Vec::new();
    let mut open: Option<(&str, String)> = None;
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.split(['\n', '\r']).map(str::trim_ascii).filter(|line| !line.is_empty());
    for line in lines {
        open = match (open, label(line, "BEGIN")) {
            (None, None) => return Err(PemError::Outside),
            (None, Some(begun)) if !labels.contains(&begun) => {
                return Err(PemError::Foreign(super::shown(begun)));
            }
            (None, Some(_)) if found.len() == most => return Err(PemError::TooMany(most)),
            (None, Some(begun)) => Some((begun, String::new())),
            (Some(_), Some(_)) => return Err(PemError::Unended),
            (Some((begun, body)), None) if label(line, "END") == Some(begun) => {
                found.push(decode(&body)?);
                None
            }
            (Some((begun, mut body)), None) => {
                body.push_str(line);
                Some((begun, body))
            }
        };
    }
    if open.is_some() { Err(PemError::Unended) } else { Ok(found) }
}

/// `X` of `-----BEGIN X-----`.
fn label<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix("-----")?.strip_prefix(word)?.strip_prefix(' ')?.strip_suffix("-----")
}

fn decode(body: &str) -> Result<Vec<u8>, PemError> {
    let der = STANDARD.decode(body).map_err(|_| PemError::NotBase64)?;
    if der.is_empty() { Err(PemError::NotBase64) } else { Ok(der) }
}

/// DER as PEM in its one form: lines of 64 characters that end with LF.
pub fn to_pem(label: &str, der: &[u8]) -> String {
    // As long as it will be, so that no part of a key is left behind by growing.
    let mut text = String::with_capacity(der.len() * 4 / 3 + der.len() / LINE + 128);
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for line in der.chunks(LINE) {
        STANDARD.encode_string(line, &mut text);
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN THING-----\nAAEC\n-----END THING-----\n";

    #[test]
    fn blocks_are_read_however_they_are_wrapped() {
        for text in [
            ONE.to_owned(),
            ONE.replace('\n', "\r\n"),
            ONE.replace('\n', "\r"),
            ONE.replace('\n', " \n\n\t"),
            ONE.trim_end().to_owned(),
            format!("\u{feff}{ONE}"),
            "-----BEGIN THING-----\nAA\nEC\n-----END THING-----".to_owned(),
        ] {
            assert_eq!(read(&text, &["THING"], 1), Ok(vec![vec![0, 1, 2]]), "{text:?}");
        }
        assert_eq!(read(&[ONE, "\n", ONE].concat(), &["THING"], 2).map(|all| all.len()), Ok(2));
        assert_eq!(read("", &["THING"], 2), Ok(vec![]));
    }

    #[test]
    fn whatever_stands_beside_the_blocks_is_refused_by_its_kind() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nAAEC\n-----END EC PRIVATE KEY-----\n";
        for (text, why) in [
            (format!("{ONE}{key}"), PemError::PrivateKey),
            (format!("{key}{ONE}"), PemError::PrivateKey),
            (format!("# {key}{ONE}"), PemError::PrivateKey),
            (format!("subject=CN=a\n{ONE}"), PemError::Outside),
            (format!("{ONE}<html>"), PemError::Outside),
            (format!("{ONE}-----END THING-----"), PemError::Outside),
            (format!("{ONE}{}", ONE.replace("THING", "OTHER")), PemError::Foreign("OTHER".into())),
            (ONE.replace("-----END THING-----\n", ""), PemError::Unended),
            (ONE.replace("-----END THING-----\n", ONE), PemError::Unended),
            (ONE.replace("END THING", "END OTHER"), PemError::Unended),
            (ONE.replace("AAEC", "Proc-Type: 4,ENCRYPTED"), PemError::NotBase64),
            (ONE.replace("AAEC", "AAE"), PemError::NotBase64),
            (ONE.replace("AAEC\n", ""), PemError::NotBase64),
            (format!("{ONE}{ONE}{ONE}"), PemError::TooMany(2)),
        ] {
            assert_eq!(read(&text, &["THING"], 2), Err(why), "{text:?}");
        }
        let escape = format!("{ONE}-----BEGIN \u{1b}[31m{}-----\n", "x".repeat(900));
        let refused = read(&escape, &["THING"], 2).unwrap_err().to_string();
        assert!(!refused.contains('\u{1b}') && refused.len() < 200, "{refused}");
    }

    #[test]
    fn what_is_written_has_lines_of_64() {
        let key = rcgen::KeyPair::generate().unwrap();
        let ours = to_pem("PRIVATE KEY", key.serialized_der());

        assert_eq!(ours, key.serialize_pem().replace("\r\n", "\n"));
        assert_eq!(to_pem("THING", &[0, 1, 2]), ONE);
        let longest = to_pem("THING", &[0; 4_800]);
        assert!(longest.lines().all(|line| line.len() <= 64));
    }
}
