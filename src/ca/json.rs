//! JSON as CAs really send it: what is only passed by may be of any shape.
//!
//! Readers are strict about what they use, and lenient about the rest: an odd member counts as
//! absent, and whoever needs it then says that it is not there.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// Reads a whole body. Members that come twice, other encodings in words and a byte order mark are
/// no reason not to.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    let text = String::from_utf8_lossy(body);
    // As a value first: of members that come twice the last counts, as with most readers.
    let value: Value = serde_json::from_str(text.trim_start_matches(BYTE_ORDER_MARK))?;
    T::deserialize(value)
}

/// A member of an unexpected shape counts as absent: the rest of the document is still worth having.
pub(super) fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(from)?).ok())
}

/// The same for a member that has a value of its own for "absent".
pub(super) fn or_default<'de, D: Deserializer<'de>, T: DeserializeOwned + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(lenient(from)?.unwrap_or_default())
}

/// The entries of a list, each on its own: those of an unexpected shape are left out.
pub(super) fn each<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    let entries: Vec<Value> = or_default(from)?;
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}
