//! Java's own keystore format (JKS, version 2), which no well-kept crate writes.
//!
//! The format is what `sun.security.provider.JavaKeyStore` reads: key entries protected by
//! `KeyProtector`, and a digest over the whole. Its protection is weak (SHA-1 throughout), and what
//! Java servers before 9 expect.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::KeystoreError;
use crate::secret::Secret;

const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const PRIVATE_KEY_ENTRY: u32 = 1;
/// Salt of the digest over the whole file, after the password.
const WHITENER: &[u8] = b"Mighty Aphrodite";
/// `AlgorithmIdentifier` of Sun's key protector, 1.3.6.1.4.1.42.2.17.1.1.
const PROTECTOR: [u8; 16] = [
    0x30, 0x0e, 0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01, 0x05, 0x00,
];

/// A keystore with key (PKCS #8) and chain (DER, leaf first) under `alias`.
pub fn jks(
    alias: &str,
    password: &Secret<String>,
    key: &Secret<Vec<u8>>,
    chain: &[Vec<u8>],
    now: OffsetDateTime,
) -> Result<Secret<Vec<u8>>, KeystoreError> {
    let password: Zeroizing<Vec<u8>> =
        Zeroizing::new(password.expose().encode_utf16().flat_map(u16::to_be_bytes).collect());
    let mut salt = [0; 20];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| KeystoreError::Random)?;

    let mut store = Vec::new();
    for word in [MAGIC, VERSION, 1, PRIVATE_KEY_ENTRY] {
        store.extend(word.to_be_bytes());
    }
    text(&mut store, &alias.to_lowercase());
    let millis = u64::try_from(now.unix_timestamp()).unwrap_or_default() * 1_000;
    store.extend(millis.to_be_bytes());
    bytes(&mut store, &protect(&password, key.expose(), salt));
    store.extend(length(chain.len()));
    for certificate in chain {
        text(&mut store, "X.509");
        bytes(&mut store, certificate);
    }
    let digest = sha1(&[&password, WHITENER, &store]);
    store.extend(digest);
    Ok(Secret::new(store))
}

/// Sun's key protector: a SHA-1 key stream over password and salt, then a digest of the plain key; as
/// `EncryptedPrivateKeyInfo` (RFC 5208).
fn protect(password: &[u8], key: &[u8], salt: [u8; 20]) -> Vec<u8> {
    let (mut protected, mut pad) = (salt.to_vec(), salt);
    for block in key.chunks(pad.len()) {
        pad = sha1(&[password, &pad]);
        protected.extend(block.iter().zip(pad).map(|(plain, pad)| plain ^ pad));
    }
    protected.extend(sha1(&[password, key]));
    let body = [&PROTECTOR[..], &der(0x04, &protected)].concat();
    der(0x30, &body)
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    let mut sum = [0; 20];
    sum.copy_from_slice(context.finish().as_ref());
    sum
}

fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    let [.., second, first] = body.len().to_be_bytes();
    let head = match body.len() {
        0..0x80 => vec![tag, first],
        0x80..0x100 => vec![tag, 0x81, first],
        // A private key has never 64 KiB.
        _ => vec![tag, 0x82, second, first],
    };
    [head, body.to_vec()].concat()
}

/// `DataOutput.writeUTF`, for plain ASCII.
fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or_default().to_be_bytes());
    store.extend(text.as_bytes());
}

fn bytes(store: &mut Vec<u8>, bytes: &[u8]) {
    store.extend(length(bytes.len()));
    store.extend(bytes);
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or_default().to_be_bytes()
}
