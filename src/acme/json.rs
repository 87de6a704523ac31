//! JSON as CAs really send it.
//!
//! Readers are strict about the members that they use and lenient about the rest: a member of an
//! unexpected shape counts as absent, and its reader then says that it is missing.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::error::Category;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a whole body. It tolerates members that come twice, invalid UTF-8 and a byte order mark.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let text = String::from_utf8_lossy(body);
    // As a value first: of members that come twice the last counts, as with most readers.
    let value: Value = serde_json::from_str(text.trim_start_matches(BYTE_ORDER_MARK))?;
    T::deserialize(value)
}

/// A member of an unexpected shape counts as absent: the rest of the document is still worth having.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

/// Like [`lenient`], for a member whose default stands for "absent".
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(lenient(from)?.unwrap_or_default())
}

/// The entries of a list, each on its own: those of an unexpected shape are left out.
pub(crate) fn each<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let entries: Vec<Value> = or_default(from)?;
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}

/// Says what is wrong with a JSON document without quoting it.
pub(crate) fn outline(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        Category::Io | Category::Eof => "it ends too early",
        Category::Syntax => "it is not JSON",
        Category::Data => "a member is missing, or of another kind than expected",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_document_is_told_without_its_contents() {
        let error = serde_json::from_str::<u8>("\"s3cret\"").unwrap_err();
        assert!(error.to_string().contains("s3cret"), "the library's words do show it");
        assert!(!outline(&error).contains("s3cret"));
    }
}
