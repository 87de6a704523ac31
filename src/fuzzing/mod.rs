//! What strangers send, as a fuzzer sends it: a function for each kind of input takes any bytes, and asserts what has to
//! hold of them whatever they are.
//!
//! `fuzz/` has a target for each, and the tests replay the corpora. Only in builds with the feature `failpoints`. The
//! functions for what is private to a layer stand there, in its own `fuzzing.rs`.

mod names;
mod patterns;

use http::{HeaderMap, HeaderName, HeaderValue};

/// A kind of input, and the function that takes it.
type Target = (&'static str, fn(&[u8]));

/// The targets, by the names of their corpora.
pub const TARGETS: [Target; 9] = [
    ("names", names::check),
    ("patterns", patterns::check),
    ("csr", crate::pki::fuzzing::csr),
    ("pem", crate::pki::fuzzing::pem),
    ("acme", |bytes| {
        let (status, headers, body) = http_answer(bytes);
        crate::ca::fuzzing::check(status, &headers, body);
    }),
    ("cloudflare", |bytes| {
        let (status, headers, body) = http_answer(bytes);
        crate::solver::fuzzing::cloudflare(status, &headers, body);
    }),
    ("dns", crate::solver::fuzzing::dns),
    ("manifests", crate::api::manifests::fuzzing::manifests),
    ("jwt", crate::oidc::fuzzing::check),
];

/// Runs one target.
///
/// # Panics
/// Where something does not hold, and for a target that is not there.
pub fn run(target: &str, bytes: &[u8]) {
    let known = TARGETS.iter().find(|(name, _)| *name == target);
    let Some((_, check)) = known else { panic!("there is no target `{target}`") };
    check(bytes);
}

/// An answer as a person writes it down: the status, a line for each header, an empty line, the body. What has no such
/// head is the body of a good one.
fn http_answer(bytes: &[u8]) -> (u16, HeaderMap, &[u8]) {
    with_head(bytes).unwrap_or_else(|| (200, HeaderMap::new(), bytes))
}

fn with_head(bytes: &[u8]) -> Option<(u16, HeaderMap, &[u8])> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = (bytes.get(..end)?, bytes.get(end + 2..)?);
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = std::str::from_utf8(lines.next()?).ok()?.parse().ok();
    let status = status.filter(|status| (100..600).contains(status))?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).ok()?;
        let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
        headers.try_append(name, value).ok()?;
    }
    Some((status, headers, body))
}
