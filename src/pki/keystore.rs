//! PKCS #12: key and chain in one file, for whoever wants it so.

use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use thiserror::Error;

use crate::secret::Secret;

/// Algorithms that protect a PKCS #12 file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pkcs12Profile {
    /// PBES2 with AES-256 and HMAC-SHA-256.
    #[default]
    Modern,
    /// Triple DES and HMAC-SHA-1, for Java before 8u301, Windows before 2019, and their like.
    Legacy,
}

/// Why a keystore could not be written.
#[derive(Debug, Error)]
pub enum KeystoreError {
    #[error("the keystore could not be written")]
    Pkcs12(#[from] p12_keystore::error::Error),
    #[error("there is no randomness")]
    Random,
}

/// Iterations of the key derivation; they take some milliseconds.
const ROUNDS: u32 = 20_000;
/// Iterations that old versions of OpenSSL and Java used.
const LEGACY_ROUNDS: u32 = 2_048;

/// A PKCS #12 file with key and chain under `alias`. Takes some time: call it off the async threads.
pub fn pkcs12(
    alias: &str,
    password: &Secret<String>,
    key: &Secret<Vec<u8>>,
    chain: &[Vec<u8>],
    profile: Pkcs12Profile,
) -> Result<Secret<Vec<u8>>, KeystoreError> {
    let certificates =
        chain.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>()?;
    let fingerprint = chain.first().map_or(&[][..], Vec::as_slice);
    let id = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, fingerprint);
    let key = PrivateKey::from_der(key.expose())?;
    let chain = PrivateKeyChain::new(id.as_ref().to_vec(), key, certificates);
    let mut store = KeyStore::new();
    store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(chain));
    let (encryption, mac, rounds) = match profile {
        Pkcs12Profile::Modern => {
            (EncryptionAlgorithm::PbeWithHmacSha256AndAes256, MacAlgorithm::HmacSha256, ROUNDS)
        }
        Pkcs12Profile::Legacy => (
            EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc,
            MacAlgorithm::HmacSha1,
            LEGACY_ROUNDS,
        ),
    };
    let written = store
        .writer(password.expose())
        .encryption_algorithm(encryption)
        .encryption_iterations(rounds)
        .mac_algorithm(mac)
        .mac_iterations(rounds)
        .write()?;
    Ok(Secret::new(written))
}
