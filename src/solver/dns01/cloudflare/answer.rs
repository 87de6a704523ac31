//! Reads what Cloudflare answers: lenient with what is only passed by, strict with what is used.
//!
//! A member that vanished from an answer, or a record of a new type in a list, has broken other clients
//! before. Here each part is read by itself: only what is needed, and what cannot be read of a list is
//! left out and counted.

use serde_json::{Map, Value};

use super::error::Problem;

/// Cloudflare's ids are 32 hexadecimal digits; they stand in paths, rows and messages.
const LONGEST_ID: usize = 64;

/// How deep causes of causes are read.
const DEEPEST_CHAIN: usize = 4;

/// Errors that are looked at.
const MOST_PROBLEMS: usize = 20;

/// The envelope of every answer.
#[derive(Debug, PartialEq)]
pub(super) struct Envelope {
    pub(super) success: Option<bool>,
    pub(super) problems: Vec<Problem>,
    pub(super) result: Option<Value>,
    pub(super) total_pages: Option<u64>,
}

impl Envelope {
    /// Reads a body; `None` if it is not an answer of the API.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let Ok(Value::Object(mut members)) = serde_json::from_slice(body) else { return None };
        let success = members.get("success").and_then(Value::as_bool);
        if success.is_none() && !members.get("errors").is_some_and(Value::is_array) {
            return None;
        }
        let total_pages =
            members.get("result_info").and_then(|info| number(info.get("total_pages")?));
        Some(Self {
            success,
            problems: problems(members.get("errors"), DEEPEST_CHAIN),
            result: members.remove("result").filter(|result| !result.is_null()),
            total_pages,
        })
    }
}

/// The entries of a list that could be read, and how many there are with the others.
#[derive(Debug, PartialEq)]
pub(super) struct Listed<T> {
    pub(super) read: Vec<T>,
    pub(super) count: usize,
}

impl<T> Listed<T> {
    /// Reads each entry by itself; `None` if it is not a list.
    pub(super) fn read(
        result: &Value,
        entry: impl Fn(&Map<String, Value>) -> Option<T>,
    ) -> Option<Self> {
        let all = result.as_array()?;
        let read = all.iter().filter_map(|one| entry(one.as_object()?)).collect();
        Some(Self { read, count: all.len() })
    }

    /// Whether some could not be read.
    pub(super) fn is_partial(&self) -> bool {
        self.read.len() < self.count
    }
}

/// The id of a zone or record, as far as it can be one.
pub(super) fn id(members: &Map<String, Value>) -> Option<String> {
    let id = members.get("id")?.as_str()?;
    is_id(id).then(|| id.to_owned())
}

/// Whether a text can be the id of a zone or record.
pub(super) fn is_id(id: &str) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_alphanumeric())
}

/// Text that is needed.
pub(super) fn text<'a>(members: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    members.get(name)?.as_str()
}

/// The ids of what was written, in the order of the wishes.
pub(super) fn written(result: &Value) -> Vec<Option<String>> {
    let posts = result.get("posts").and_then(Value::as_array);
    posts.into_iter().flatten().map(|post| id(post.as_object()?)).collect()
}

/// A number, perhaps as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

fn problems(errors: Option<&Value>, depth: usize) -> Vec<Problem> {
    let errors = errors.and_then(Value::as_array).filter(|_| depth > 0);
    let read = |error: &Value| {
        let members = error.as_object()?;
        Some(Problem {
            code: members.get("code").and_then(number).unwrap_or_default(),
            message: text(members, "message").unwrap_or_default().to_owned(),
            error_chain: problems(members.get("error_chain"), depth - 1),
        })
    };
    errors.into_iter().flatten().take(MOST_PROBLEMS).filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: &Value) -> Option<Envelope> {
        Envelope::read(body.to_string().as_bytes())
    }

    #[test]
    fn odd_members_that_nobody_needs_spoil_no_answer() {
        for body in [
            json!({"success": true, "result": {"id": "1"}}),
            json!({"success": true, "errors": null, "messages": null, "result": {"id": "1"}}),
            json!({"success": true, "errors": {}, "result": {"id": "1"}, "result_info": "none"}),
            json!({"success": true, "errors": [], "result": {"id": "1"}, "result_info": {"total_pages": {}}}),
        ] {
            let envelope = read(&body).unwrap();
            assert_eq!((envelope.success, envelope.total_pages), (Some(true), None), "{body}");
            assert_eq!(envelope.result, Some(json!({"id": "1"})));
        }
        let pages = json!({"success": true, "result": [], "result_info": {"total_pages": "7"}});
        assert_eq!(read(&pages).unwrap().total_pages, Some(7));
    }

    #[test]
    fn a_refusal_is_understood_however_its_errors_are_written() {
        for error in [
            json!({"code": 81045, "message": "quota"}),
            json!({"code": "81045", "message": "quota", "error_chain": null}),
            json!({"code": 81045, "message": "quota", "error_chain": "odd", "documentation_url": 1}),
        ] {
            let body =
                json!({"success": false, "errors": [null, "odd", error], "result": {"odd": 1}});
            let problems = read(&body).unwrap().problems;
            let told: Vec<_> =
                problems.iter().map(|one| (one.code, one.message.as_str())).collect();
            assert_eq!(told, [(81045, "quota")], "{body}");
        }
        let unsaid =
            read(&json!({"success": false, "errors": [{"code": -1, "message": null}]})).unwrap();
        assert_eq!((unsaid.problems[0].code, unsaid.problems[0].message.as_str()), (0, ""));
    }

    #[test]
    fn causes_are_read_to_a_depth_and_no_further() {
        let mut error = json!({"code": 1});
        for _ in 0..50 {
            error = json!({"code": 1, "error_chain": [error]});
        }
        let problems = read(&json!({"success": false, "errors": [error]})).unwrap().problems;

        let depth = std::iter::successors(problems.first(), |one| one.error_chain.first()).count();
        assert_eq!(depth, DEEPEST_CHAIN);
    }

    #[test]
    fn what_is_no_answer_of_the_api_is_none() {
        for body in
            [json!([]), json!("text"), json!({}), json!({"result": []}), json!({"success": "yes"})]
        {
            assert_eq!(read(&body), None, "{body}");
        }
        assert_eq!(Envelope::read(b"<html>"), None);
    }

    #[test]
    fn ids_that_could_not_stand_in_a_path_are_no_ids() {
        for (odd, is_id) in [
            (json!("c10df1a7"), true),
            (json!(7), false),
            (json!(null), false),
            (json!(""), false),
            (json!("../zones"), false),
            (json!("a b"), false),
            (json!("é"), false),
            (json!("a".repeat(65)), false),
        ] {
            let members = json!({"id": odd});
            assert_eq!(id(members.as_object().unwrap()).is_some(), is_id, "{members}");
        }
    }

    #[test]
    fn ids_of_a_batch_keep_their_places() {
        let result = json!({"deletes": null, "posts": [{"id": "1"}, null, {"id": 3}, {"id": "4", "odd": []}]});
        let ids = written(&result);

        assert_eq!(ids, [Some("1".to_owned()), None, None, Some("4".to_owned())]);
        assert_eq!(written(&json!({"posts": null})), Vec::new());
    }
}
