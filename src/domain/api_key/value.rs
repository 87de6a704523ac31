//! The text of an API key: `cw_`, 32 random bytes in base64url, and a checksum of these in base62.
//!
//! By the checksum a scanner for leaked secrets tells a key from a text that only looks like one, and a client
//! hears that its key was cut off. Keys from before there was a checksum are as valid without one.

use std::collections::BTreeSet;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use thiserror::Error;

use crate::secret::{SealError, Secret};

/// Prefix of every key, so that scanners for leaked secrets find it.
const PREFIX: &str = "cw_";

/// Random bytes in a key.
const LENGTH: usize = 32;

/// Their characters in base64url.
const CHARACTERS: usize = 43;

/// Characters of the checksum: 62^6 is more than 2^32.
const CHECKSUM: usize = 6;

/// Different bytes in a key at least, and different steps from one byte to the next. Of random bytes there are
/// fewer once in 10^20 keys.
const VARIETY: usize = 12;

/// Why a text is not an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    #[error("it is not `cw_` and 43 characters of base64url, with or without 6 of a checksum")]
    Form,
    #[error("its checksum does not match: it was cut off or changed on its way")]
    Checksum,
}

/// Makes a new key.
pub fn generate_key() -> Result<Secret<String>, SealError> {
    let mut bytes = zeroize::Zeroizing::new([0_u8; LENGTH]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| SealError::Encryption)?;
    let random = zeroize::Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    Ok(Secret::new(format!("{PREFIX}{}{}", *random, checksum(&random))))
}

/// SHA-256 of a key. A key has enough entropy that a plain hash is safe.
pub fn hash_key(key: &str) -> Vec<u8> {
    digest(&SHA256, key.as_bytes()).as_ref().to_vec()
}

/// Whether a text has the form of a key.
pub fn check_form(key: &str) -> Result<(), Malformed> {
    random_part(key).map(|_| ())
}

/// Whether the bytes of a well-formed key were not made by chance, such as `cw_AAAA…`.
pub fn is_weak(key: &str) -> bool {
    let Ok(bytes) = random_part(key) else { return true };
    let different: BTreeSet<u8> = bytes.iter().copied().collect();
    let steps: BTreeSet<u8> = bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    different.len() < VARIETY || steps.len() < VARIETY
}

fn random_part(key: &str) -> Result<Vec<u8>, Malformed> {
    let rest = key.strip_prefix(PREFIX).ok_or(Malformed::Form)?;
    let (random, sum) = rest.split_at_checked(CHARACTERS).ok_or(Malformed::Form)?;
    let bytes = URL_SAFE_NO_PAD.decode(random).map_err(|_| Malformed::Form)?;
    match sum.len() {
        0 => Ok(bytes),
        CHECKSUM if sum == checksum(random) => Ok(bytes),
        1..=CHECKSUM => Err(Malformed::Checksum),
        _ => Err(Malformed::Form),
    }
}

/// The CRC-32 of a text in base62, as with the tokens of GitHub.
fn checksum(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits.map(char::from).iter().collect()
}

/// CRC-32 of ISO/IEC 3309, as in zip and Ethernet.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_key_has_the_form_of_a_key() {
        let key = generate_key().unwrap();

        assert_eq!(check_form(key.expose()), Ok(()));
        assert_eq!(key.expose().len(), 3 + 43 + 6);
        assert!(!is_weak(key.expose()));
        assert_ne!(hash_key(key.expose()), hash_key(generate_key().unwrap().expose()));
    }

    /// What a scanner computes: `printf 123456789 | gzip -c | tail -c8 | head -c4`, and so on.
    #[test]
    fn the_checksum_is_a_well_known_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
        assert_eq!(checksum("123456789"), "3jZRME");
    }

    #[test]
    fn a_key_that_was_cut_off_or_changed_is_told_from_what_is_none() {
        let key = generate_key().unwrap().expose().clone();
        let other = if key.ends_with('0') { "1" } else { "0" };
        let without = &key[..3 + 43];

        assert_eq!(check_form(without), Ok(()), "a key from before there was a checksum");
        for (text, expected) in [
            (key[..key.len() - 1].to_owned(), Malformed::Checksum),
            (format!("{}{other}", &key[..key.len() - 1]), Malformed::Checksum),
            (format!("{key}0"), Malformed::Form),
            (key[..30].to_owned(), Malformed::Form),
            (without.replacen("cw_", "xx_", 1), Malformed::Form),
            (format!("{without}é"), Malformed::Checksum),
            (String::new(), Malformed::Form),
            ("cw_".to_owned(), Malformed::Form),
            (format!("cw_{}", "=".repeat(43)), Malformed::Form),
        ] {
            assert_eq!(check_form(&text), Err(expected), "{text}");
        }
    }

    #[test]
    fn what_a_person_types_in_place_of_a_random_key_is_weak() {
        let rising: Vec<u8> = (0..32).collect();
        let repeated = [&rising[..8]; 4].concat();
        for bytes in [vec![0; 32], rising, repeated] {
            let key = format!("cw_{}", URL_SAFE_NO_PAD.encode(&bytes));
            assert_eq!(check_form(&key), Ok(()));
            assert!(is_weak(&key), "{key}");
        }
        for _ in 0..1_000 {
            assert!(!is_weak(generate_key().unwrap().expose()));
        }
    }
}
