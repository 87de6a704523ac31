//! Fields that say nothing. As in Kubernetes that has four spellings: absent, `null`, an empty text, and an empty
//! list or map.

use serde::{Deserialize, Deserializer};

/// Reads `null` as the default.
pub fn null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// Reads an empty text as none.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let given = Option::<String>::deserialize(deserializer)?;
    Ok(given.filter(|text| !text.is_empty()))
}
