//! API keys: what a client shows to be recognised.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::secret::{SealError, Secret};

/// Prefix of every key, so that scanners for leaked secrets find it.
const PREFIX: &str = "cw_";

/// Random bytes in a key.
const LENGTH: usize = 32;

/// Makes a new key: `cw_` and 32 random bytes in base64url.
pub fn generate_key() -> Result<Secret<String>, SealError> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; LENGTH]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| SealError::Encryption)?;
    Ok(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(*bytes))))
}

/// SHA-256 of a key. A key has enough entropy that a plain hash is safe.
pub fn hash_key(key: &str) -> Vec<u8> {
    digest(&SHA256, key.as_bytes()).as_ref().to_vec()
}

/// Whether a text has the shape of a key.
pub fn is_well_formed(key: &str) -> bool {
    key.strip_prefix(PREFIX)
        .and_then(|rest| URL_SAFE_NO_PAD.decode(rest).ok())
        .is_some_and(|bytes| bytes.len() == LENGTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_the_shape_of_a_key() {
        let key = generate_key().unwrap();

        assert!(is_well_formed(key.expose()));
        assert_eq!(key.expose().len(), 3 + 43);
        assert_ne!(hash_key(key.expose()), hash_key(generate_key().unwrap().expose()));
    }

    #[test]
    fn other_texts_have_not() {
        for text in ["", "cw_", "cw_short", "xx_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(!is_well_formed(text), "{text}");
        }
    }
}
