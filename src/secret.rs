//! Secrets in memory, and sealed at rest.
//!
//! [`Secret`] cannot be printed or serialized. [`Sealer`] turns secrets into envelopes for the
//! database and back: a data key for each, wrapped by the master key, AES-256-GCM for both. The
//! place of a secret (table, column, row, and whose the row is) is authenticated with it, so that
//! envelopes cannot be swapped between rows, nor a row be given to another namespace.

use std::fmt;

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

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Where a secret stands, and whose that is: it opens nowhere else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// `table/column/row`: all that was authenticated before owners were.
    row: String,
    owned: String,
}

impl Place {
    /// The place `table/column/row`. `owner` is the row's namespace, or a certificate and its namespace.
    pub fn new(row: String, owner: &str) -> Self {
        // Rows are identifiers, so that nothing but the owner follows the last slash of its part.
        Self { owned: format!("{row}/{owner}"), row }
    }

    /// A place that is the service's own.
    pub fn of_service(row: &str) -> Self {
        Self { row: row.to_owned(), owned: row.to_owned() }
    }
}

/// For errors.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.row)
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
    #[error("it is damaged, or belongs to another row or namespace")]
    Damaged,
    /// It was sealed before the namespace was authenticated, and nothing of that kind is left here.
    #[error(
        "it was sealed by a former version, and all such secrets were sealed anew since: somebody has put it back"
    )]
    Former,
    /// A master key that is not 32 bytes of base64.
    #[error("a master key is 32 random bytes in base64, as `openssl rand -base64 32` prints them")]
    BadMasterKey,
}

/// Seals under the first master key; opens what any of them sealed.
pub struct Sealer {
    keys: Vec<MasterKey>,
    /// Whether envelopes are opened that do not say whose they are.
    opens_former: bool,
}

struct MasterKey {
    id: [u8; KEY_ID],
    key: RandomizedNonceKey,
    mac: hmac::Key,
    /// For the MACs of rows that grant something.
    grants: hmac::Key,
}

/// Envelope: version, key id, wrapped data key (nonce, 32 bytes, tag), nonce, ciphertext and tag.
const VERSION: u8 = 2;

/// The version of envelopes for `table/column/row`, without its owner.
const FORMER_VERSION: u8 = 1;

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
        if keys.is_empty() {
            Err(SealError::BadMasterKey)
        } else {
            Ok(Self { keys, opens_former: false })
        }
    }

    /// The same that also opens what was sealed before owners were authenticated.
    #[must_use]
    pub fn opening_former(self) -> Self {
        Self { opens_former: true, ..self }
    }

    /// A new random master key, as [`Sealer::from_text`] takes it.
    pub fn generate() -> Result<Secret<String>, SealError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| SealError::Encryption)?;
        Ok(Secret::new(STANDARD.encode(*bytes)))
    }

    /// Seals a secret for one place.
    pub fn seal(&self, place: &Place, plain: &[u8]) -> Result<Sealed, SealError> {
        let master = self.keys.first().ok_or(SealError::Encryption)?;
        let mut data_key = Zeroizing::new([0_u8; 32]);
        aws_lc_rs::rand::fill(&mut *data_key).map_err(|_| SealError::Encryption)?;
        let mut envelope = vec![VERSION];
        envelope.extend(master.id);
        envelope.extend(encrypt(&master.key, &master.id, &*data_key)?);
        envelope.extend(encrypt(&aead(&*data_key)?, place.owned.as_bytes(), plain)?);
        Ok(Sealed(envelope))
    }

    /// HMAC-SHA-256 of a text under the first master key: nobody who only reads the database can compute it.
    pub fn mac(&self, text: &str) -> Vec<u8> {
        let tag = self.keys.first().map(|master| hmac::sign(&master.mac, text.as_bytes()));
        tag.map(|tag| tag.as_ref().to_vec()).unwrap_or_default()
    }

    /// The MAC of what a row grants: the identifier of the first master key, and HMAC-SHA-256 under a key that is
    /// derived from it.
    pub fn sign(&self, text: &str) -> Vec<u8> {
        let sign = |master: &MasterKey| {
            let tag = hmac::sign(&master.grants, text.as_bytes());
            [&master.id, tag.as_ref()].concat()
        };
        self.keys.first().map(sign).unwrap_or_default()
    }

    /// Whether this is the MAC of a text under any of the master keys.
    pub fn verifies(&self, text: &str, mac: &[u8]) -> bool {
        let Some((id, tag)) = mac.split_at_checked(KEY_ID) else { return false };
        let master = self.keys.iter().find(|master| master.id == id);
        master.is_some_and(|master| hmac::verify(&master.grants, text.as_bytes(), tag).is_ok())
    }

    /// Whether a MAC is one under the first master key.
    pub fn is_current_mac(&self, mac: &[u8]) -> bool {
        self.keys.first().is_some_and(|master| mac.starts_with(&master.id))
    }

    /// Whether it is sealed under the first master key, and for its owner.
    pub fn is_current(&self, sealed: &Sealed) -> bool {
        if sealed.0.first() != Some(&VERSION) {
            return false;
        }
        let id = sealed.0.get(1..=KEY_ID);
        self.keys.first().is_some_and(|master| id == Some(master.id.as_slice()))
    }

    /// Opens what was sealed for this place.
    pub fn open(&self, place: &Place, sealed: &Sealed) -> Result<Secret<Vec<u8>>, SealError> {
        let (version, rest) = sealed.0.split_first().ok_or(SealError::Damaged)?;
        let place = match *version {
            VERSION => &place.owned,
            // What is the service's own has no other owner.
            FORMER_VERSION if self.opens_former || place.row == place.owned => &place.row,
            FORMER_VERSION => return Err(SealError::Former),
            _ => return Err(SealError::Damaged),
        };
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
        let derived = |purpose: &[u8]| {
            let key = digest(&SHA256, &[purpose, bytes].concat());
            hmac::Key::new(hmac::HMAC_SHA256, key.as_ref())
        };
        let (mac, grants) = (derived(b"certwright mac key "), derived(b"certwright grants key "));
        Ok(Self { id, key: aead(bytes)?, mac, grants })
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
    fn what_was_sealed_for_one_row_of_one_owner_opens_only_there() {
        let sealer = sealer(&[7]).opening_former();
        let key_of =
            |row: &str, owner: &str| Place::new(format!("requests/private_key/{row}"), owner);
        let envelope = sealer.seal(&key_of("1", "team"), b"key").unwrap();

        assert_eq!(sealer.open(&key_of("1", "team"), &envelope).unwrap().expose(), b"key");
        for other in
            [key_of("2", "team"), key_of("1", "evil"), key_of("1", ""), key_of("1/team", "")]
        {
            assert_eq!(
                sealer.open(&other, &envelope).unwrap_err(),
                SealError::Damaged,
                "{other:?}"
            );
        }
        // Nor as one of before, for which the owner does not count.
        let mut former = envelope.clone();
        former.0[0] = FORMER_VERSION;
        assert_eq!(sealer.open(&key_of("1", "team"), &former).unwrap_err(), SealError::Damaged);
    }

    #[test]
    fn what_was_sealed_without_its_owner_opens_only_for_whoever_still_takes_that() {
        let place = Place::new("secrets/data/1".into(), "team");
        let ours = sealer(&[7]);
        let former = former(&ours, "secrets/data/1", b"key");

        assert_eq!(ours.open(&place, &former).unwrap_err(), SealError::Former);
        assert!(!ours.is_current(&former));
        let lenient = sealer(&[7]).opening_former();
        assert_eq!(lenient.open(&place, &former).unwrap().expose(), b"key");
        let own = Place::of_service("secrets/data/1");
        assert_eq!(ours.open(&own, &former).unwrap().expose(), b"key", "the service's own");
    }

    #[test]
    fn an_old_master_key_still_opens_beside_the_new_one() {
        let sealed = sealer(&[1]).seal(&a(), b"key").unwrap();

        assert_eq!(sealer(&[2, 1]).open(&a(), &sealed).unwrap().expose(), b"key");
        assert_eq!(sealer(&[2]).open(&a(), &sealed).unwrap_err(), SealError::UnknownKey);
        assert!(sealer(&[1, 2]).is_current(&sealed));
        assert!(!sealer(&[2, 1]).is_current(&sealed));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let sealer = sealer(&[7]);
        let envelope = sealer.seal(&a(), b"key").unwrap();
        for index in 0..envelope.0.len() {
            let mut changed = envelope.clone();
            changed.0[index] ^= 1;
            assert!(sealer.open(&a(), &changed).is_err(), "byte {index}");
        }
        for length in 0..envelope.0.len() {
            assert!(sealer.open(&a(), &Sealed(envelope.0[..length].to_vec())).is_err());
        }
    }

    #[test]
    fn a_mac_holds_for_its_text_under_any_of_the_keys_and_for_nothing_else() {
        let mac = sealer(&[1]).sign("admin");

        assert!(sealer(&[1]).verifies("admin", &mac));
        assert!(sealer(&[2, 1]).verifies("admin", &mac), "the former key still counts");
        assert!(!sealer(&[2]).verifies("admin", &mac));
        assert!(!sealer(&[1]).verifies("reader", &mac));
        for length in 0..mac.len() {
            assert!(!sealer(&[1]).verifies("admin", &mac[..length]), "{length} bytes");
        }
        for index in 0..mac.len() {
            let mut changed = mac.clone();
            changed[index] ^= 1;
            assert!(!sealer(&[1]).verifies("admin", &changed), "byte {index}");
        }
        assert!(sealer(&[1, 2]).is_current_mac(&mac));
        assert!(!sealer(&[2, 1]).is_current_mac(&mac));
        assert_ne!(mac[8..], sealer(&[1]).mac("admin"), "keys of different purposes differ");
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

    fn a() -> Place {
        Place::of_service("a")
    }

    /// The envelope that a former version made.
    fn former(sealer: &Sealer, row: &str, plain: &[u8]) -> Sealed {
        let mut envelope = sealer.seal(&Place::of_service(row), plain).unwrap();
        envelope.0[0] = FORMER_VERSION;
        envelope
    }

    fn sealer(bytes: &[u8]) -> Sealer {
        let lines: Vec<_> = bytes.iter().map(|byte| STANDARD.encode([*byte; 32])).collect();
        Sealer::from_text(&Secret::new(lines.join("\n"))).unwrap()
    }
}
