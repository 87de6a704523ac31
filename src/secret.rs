//! Secrets in memory, and sealed at rest.
//!
//! [`Secret`] cannot be printed or serialized. [`Sealer`] turns secrets into envelopes for the
//! database and back: a data key for each, wrapped by the master key, AES-256-GCM for both. The
//! place of a secret (table, column, row) is authenticated with it, so that envelopes cannot be
//! swapped between rows.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use thiserror::Error;
use zeroize::{Zeroize, Zeroizing};

/// A value that must not be shown: no `Display`, no `Serialize`, and a `Debug` that hides it.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes a value into custody; it is wiped from memory when dropped.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. Every call is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// A sealed secret, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(pub Vec<u8>);

/// Why an envelope could not be made or opened.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SealError {
    /// The cryptographic library refused, which it never should.
    #[error("encryption failed")]
    Encryption,
    /// It was sealed under a master key that is not among ours.
    #[error("it was sealed under another master key")]
    UnknownKey,
    /// Its bytes are not what was sealed for this place.
    #[error("it is damaged, or belongs to another row")]
    Damaged,
    /// A master key that is not 32 bytes of base64.
    #[error("a master key is 32 random bytes in base64, as `openssl rand -base64 32` prints them")]
    BadMasterKey,
}

/// Seals under the first master key; opens what any of them sealed.
pub struct Sealer {
    keys: Vec<MasterKey>,
}

struct MasterKey {
    id: [u8; KEY_ID],
    key: RandomizedNonceKey,
    mac: hmac::Key,
}

/// Envelope: version, key id, wrapped data key (nonce, 32 bytes, tag), nonce, ciphertext and tag.
const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const WRAPPED: usize = NONCE_LEN + 32 + 16;

impl Sealer {
    /// Takes master keys, one base64 text a line: the first seals, the others only open.
    pub fn from_text(text: &Secret<String>) -> Result<Self, SealError> {
        let keys = text
            .expose()
            .split(|c: char| c.is_whitespace() || c == ',')
            .filter(|line| !line.is_empty())
            .map(|line| {
                let bytes = Zeroizing::new(
                    STANDARD
                        .decode(line)
                        .or_else(|_| URL_SAFE_NO_PAD.decode(line))
                        .map_err(|_| SealError::BadMasterKey)?,
                );
                MasterKey::new(&bytes)
            })
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(SealError::BadMasterKey) } else { Ok(Self { keys }) }
    }

    /// A new random master key, as [`Sealer::from_text`] takes it.
    pub fn generate() -> Result<Secret<String>, SealError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| SealError::Encryption)?;
        Ok(Secret::new(STANDARD.encode(*bytes)))
    }

    /// Seals a secret for one place, such as `requests/private_key/<row id>`.
    pub fn seal(&self, place: &str, plain: &[u8]) -> Result<Sealed, SealError> {
        let master = self.keys.first().ok_or(SealError::Encryption)?;
        let mut data_key = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *data_key).map_err(|_| SealError::Encryption)?;
        let mut envelope = vec![VERSION];
        envelope.extend(master.id);
        envelope.extend(encrypt(&master.key, &master.id, &*data_key)?);
        envelope.extend(encrypt(&aead(&*data_key)?, place.as_bytes(), plain)?);
        Ok(Sealed(envelope))
    }

    /// HMAC-SHA-256 of a text under the first master key: nobody who only reads the database can compute it.
    pub fn mac(&self, text: &str) -> Vec<u8> {
        let tag = self.keys.first().map(|master| hmac::sign(&master.mac, text.as_bytes()));
        tag.map(|tag| tag.as_ref().to_vec()).unwrap_or_default()
    }

    /// Whether it is sealed under the first master key.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        let id = sealed.0.get(1..=KEY_ID);
        self.keys.first().is_some_and(|master| id == Some(master.id.as_slice()))
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: &str, sealed: &Sealed) -> Result<Secret<Vec<u8>>, SealError> {
        let rest = sealed.0.strip_prefix(&[VERSION]).ok_or(SealError::Damaged)?;
        let (id, rest) = rest.split_at_checked(KEY_ID).ok_or(SealError::Damaged)?;
        let (wrapped, body) = rest.split_at_checked(WRAPPED).ok_or(SealError::Damaged)?;
        let master =
            self.keys.iter().find(|master| master.id == id).ok_or(SealError::UnknownKey)?;
        let data_key = decrypt(&master.key, &master.id, wrapped)?;
        Ok(Secret(decrypt(&aead(&data_key)?, place.as_bytes(), body)?))
    }
}

impl MasterKey {
    fn new(bytes: &[u8]) -> Result<Self, SealError> {
        if bytes.len() != 32 {
            return Err(SealError::BadMasterKey);
        }
        let hash = digest(&SHA256, &[b"certwright master key id ", bytes].concat());
        let mut id = [0; KEY_ID];
        id.copy_from_slice(hash.as_ref().get(..KEY_ID).ok_or(SealError::Encryption)?);
        let mac = digest(&SHA256, &[b"certwright mac key ", bytes].concat());
        let mac = hmac::Key::new(hmac::HMAC_SHA256, mac.as_ref());
        Ok(Self { id, key: aead(bytes)?, mac })
    }
}

fn aead(key: &[u8]) -> Result<RandomizedNonceKey, SealError> {
    RandomizedNonceKey::new(&AES_256_GCM, key).map_err(|_| SealError::Encryption)
}

fn encrypt(key: &RandomizedNonceKey, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let mut buffer = plain.to_vec();
    let nonce = key
        .seal_in_place_append_tag(Aad::from(aad), &mut buffer)
        .map_err(|_| SealError::Encryption)?;
    Ok([nonce.as_ref().as_slice(), &buffer].concat())
}

fn decrypt(
    key: &RandomizedNonceKey,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
    let mut buffer = Zeroizing::new(body.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(aad), &mut buffer)
        .map_err(|_| SealError::Damaged)?
        .len();
    buffer.truncate(length);
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_for_one_row_opens_only_there() {
        let sealer = sealer(&[7]);
        let envelope = sealer.seal("requests/private_key/1", b"key").unwrap();

        assert_eq!(sealer.open("requests/private_key/1", &envelope).unwrap().expose(), b"key");
        assert_eq!(
            sealer.open("requests/private_key/2", &envelope).unwrap_err(),
            SealError::Damaged
        );
    }

    #[test]
    fn an_old_master_key_still_opens_beside_the_new_one() {
        let sealed = sealer(&[1]).seal("a", b"key").unwrap();

        assert_eq!(sealer(&[2, 1]).open("a", &sealed).unwrap().expose(), b"key");
        assert_eq!(sealer(&[2]).open("a", &sealed).unwrap_err(), SealError::UnknownKey);
        assert!(sealer(&[1, 2]).is_current(&sealed));
        assert!(!sealer(&[2, 1]).is_current(&sealed));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sealer = sealer(&[7]);
        let envelope = sealer.seal("a", b"key").unwrap();
        for index in 0..envelope.0.len() {
            let mut changed = envelope.clone();
            changed.0[index] ^= 1;
            assert!(sealer.open("a", &changed).is_err(), "byte {index}");
        }
        for length in 0..envelope.0.len() {
            assert!(sealer.open("a", &Sealed(envelope.0[..length].to_vec())).is_err());
        }
    }

    #[test]
    fn a_secret_does_not_show_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("token".to_owned())), "[secret]");
    }

    #[test]
    fn a_short_master_key_is_refused() {
        let short = Secret::new(STANDARD.encode([1; 16]));
        assert_eq!(Sealer::from_text(&short).err(), Some(SealError::BadMasterKey));
        assert_eq!(
            Sealer::from_text(&Secret::new(String::new())).err(),
            Some(SealError::BadMasterKey)
        );
    }

    fn sealer(bytes: &[u8]) -> Sealer {
        let lines: Vec<_> = bytes.iter().map(|byte| STANDARD.encode([*byte; 32])).collect();
        Sealer::from_text(&Secret::new(lines.join("\n"))).unwrap()
    }
}
