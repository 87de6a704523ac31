//! The server's words for HTTP clients, as somebody at a shell can follow them.

/// What the server says, and what is said here. `{id}` stands for an identifier.
const WORDS: [(&str, &str); 26] = [
    ("Ask for a new one: POST /events/ticket", "`certwright events` needs none"),
    (" already. Change it with PATCH", " already; `certwright webhooks get` shows it"),
    (
        "Send an API key, or a token of a configured OIDC issuer: `Authorization: Bearer …`. Where the listener takes client certificates, connecting with one is enough.",
        "Give an API key with --api-key-file or CERTWRIGHT_API_KEY, or a client certificate with --client-cert, or run `certwright login`.",
    ),
    (
        "Send an API key or a token (`Authorization: Bearer …`)",
        "Give an API key with --api-key-file, or run `certwright login`",
    ),
    (
        "GET /certificates?phase=Issuing lists them",
        "`certwright get certificates` shows which these are",
    ),
    (
        ": /certificates/{id}. Change it with PATCH",
        ". `certwright certificates set NAME` changes it",
    ),
    ("a PATCH of `csr` changes that", "a `csr` in its manifest changes that"),
    (
        "A DELETE without `revoke` deletes",
        "`certwright delete certificate NAME` without --revoke deletes",
    ),
    (
        "DELETE /certificates/{id} without `revoke`",
        "`certwright delete certificate NAME` without --revoke",
    ),
    (
        "GET /certificates/{id} with `Prefer: wait=30` waits for it",
        "`certwright wait --for=condition=Ready certificate/NAME` waits for it",
    ),
    ("Replace its values with PUT", "`certwright apply -f FILE` replaces its values"),
    ("Replace its specification with PUT", "`certwright apply -f FILE` replaces its specification"),
    ("PATCH its `namespaces` first", "Change its `namespaces` first"),
    ("Enable it first: PATCH with `disabled: false`", "Set its `disabled` to `false` first"),
    ("enable it (PATCH with disabled: false)", "enable it (set its `disabled` to `false`)"),
    ("POST …/redeliver", "`certwright webhooks redeliver`"),
    (", or POST /import", ""),
    ("give its CSR with PUT /certificates/{id}/csr", "give its CSR as `csr` in its manifest"),
    ("POST /requests/{id}/approve", "`certwright approve NAME`"),
    ("POST /requests/{id}/deny", "`certwright deny NAME`"),
    ("POST …/renew", "`certwright renew NAME`"),
    ("POST /certificates/{id}/renew", "`certwright renew NAME`"),
    ("POST /policies/evaluate says", "`certwright can NAME --issuer ISSUER` says"),
    (
        "PUT, PATCH and DELETE can be repeated as they are, with `If-Match` for a condition; send",
        "the command can be repeated as it is; send",
    ),
    ("`GET /problems` lists them", "https://SERVICE/problems lists them"),
    ("create one (POST /policies)", "create one (`certwright apply -f FILE`)"),
];

/// The text without the words of HTTP.
pub(super) fn own(text: &str) -> String {
    WORDS.iter().fold(text.to_owned(), |text, (from, to)| replaced(&text, from, to))
}

fn replaced(text: &str, from: &str, to: &str) -> String {
    let Some((before, after)) = from.split_once("{id}") else { return text.replace(from, to) };
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(before) {
        let (head, tail) = (&rest[..at], &rest[at + before.len()..]);
        let end = tail.find(|c: char| !(c.is_ascii_alphanumeric() || "-{}".contains(c)));
        let (_, behind) = tail.split_at(end.unwrap_or(tail.len()));
        out.push_str(head);
        if let Some(behind) = behind.strip_prefix(after) {
            out.push_str(to);
            rest = behind;
        } else {
            out.push_str(before);
            rest = tail;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn identifiers_stand_between_the_words() {
        let said = "To try at once: POST /certificates/019ab000-0000-7000-8000-000000000000/renew. POST /certificates/x/y.";
        assert_eq!(own(said), "To try at once: `certwright renew NAME`. POST /certificates/x/y.");
    }

    /// Whoever writes another hint for HTTP clients says here what it is at a shell.
    #[test]
    fn every_hint_of_the_server_has_words_of_its_own() {
        let mut folders = ["src/api", "src/domain"]
            .map(|one| Path::new(env!("CARGO_MANIFEST_DIR")).join(one))
            .to_vec();
        let mut hints = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                for line in text.lines().filter(|line| {
                    !line.trim_start().starts_with("//") && !line.contains("description = ")
                }) {
                    let line = line.replace("\\\"", "\"");
                    let speaks = |line: &str| {
                        [
                            "POST /",
                            "POST …",
                            "GET /",
                            "PUT /",
                            "PUT.",
                            "DELETE /",
                            "DELETE without",
                            "PATCH",
                            "Authorization: Bearer",
                        ]
                        .iter()
                        .any(|word| line.contains(word))
                    };
                    if speaks(&line) && line.contains('"') && !line.contains("Method::") {
                        hints += 1;
                        assert!(!speaks(&own(&line)), "{}: {line}", path.display());
                    }
                }
            }
        }
        assert!(hints >= 15, "{hints}");
    }
}
