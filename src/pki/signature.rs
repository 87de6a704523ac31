//! Signatures of certificates and CSRs: every usual pair of key and digest.
//!
//! Three answers, since what cannot be checked here is not wrong for that.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};
use x509_parser::asn1_rs::BitString;
use x509_parser::signature_algorithm::RsaSsaPssParams;
use x509_parser::x509::{AlgorithmIdentifier, SubjectPublicKeyInfo};

/// The result of checking a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// This key signed this.
    Signed,
    /// It did not.
    NotSigned,
    /// The key or the algorithm is unknown.
    Unknown,
}

/// Kinds of public keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
    /// ECDSA on a curve that is none of these.
    OtherCurve,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    /// SHA-1 and older: somebody else could have made the signature.
    Broken,
    Sha256,
    Sha384,
    Sha512,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Pkcs1(Digest),
    Pss(Digest),
    Ecdsa(Digest),
    Ed25519,
    Other(Digest),
}

/// The kind of a public key.
pub(super) fn kind(key: &SubjectPublicKeyInfo<'_>) -> Kind {
    match key.algorithm.algorithm.to_id_string().as_str() {
        // The second is for PSS alone.
        "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => Kind::Rsa,
        "1.2.840.10045.2.1" => {
            let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.as_oid().ok());
            match curve.map(|oid| oid.to_id_string()).as_deref() {
                Some("1.2.840.10045.3.1.7") => Kind::P256,
                Some("1.3.132.0.34") => Kind::P384,
                Some("1.3.132.0.35") => Kind::P521,
                _ => Kind::OtherCurve,
            }
        }
        "1.3.101.112" => Kind::Ed25519,
        _ => Kind::Other,
    }
}

/// Whether a signature by this algorithm proves nothing any more (MD5, SHA-1).
pub(super) fn is_broken(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    match scheme(algorithm) {
        Scheme::Pkcs1(digest)
        | Scheme::Pss(digest)
        | Scheme::Ecdsa(digest)
        | Scheme::Other(digest) => digest == Digest::Broken,
        Scheme::Ed25519 => false,
    }
}

/// Whether `key` made this signature of `signed`.
pub(super) fn verify(
    key: &SubjectPublicKeyInfo<'_>,
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &BitString<'_>,
    signed: &[u8],
) -> Verdict {
    if signature.unused_bits != 0 {
        return Verdict::NotSigned;
    }
    let (scheme, kind) = (scheme(algorithm), kind(key));
    let Some(known) = algorithm_of(scheme, kind) else {
        return if contradict(scheme, kind) { Verdict::NotSigned } else { Verdict::Unknown };
    };
    match ParsedPublicKey::new(known, &key.subject_public_key.data) {
        // One of a size that the library does not take is not wrong for that.
        Err(_) if kind == Kind::Rsa => Verdict::Unknown,
        Ok(key) if key.verify_sig(signed, &signature.data).is_ok() => Verdict::Signed,
        Ok(_) | Err(_) => Verdict::NotSigned,
    }
}

fn algorithm_of(scheme: Scheme, kind: Kind) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (scheme, kind) {
        (Scheme::Pkcs1(Digest::Sha256), Kind::Rsa) => &RSA_PKCS1_2048_8192_SHA256,
        (Scheme::Pkcs1(Digest::Sha384), Kind::Rsa) => &RSA_PKCS1_2048_8192_SHA384,
        (Scheme::Pkcs1(Digest::Sha512), Kind::Rsa) => &RSA_PKCS1_2048_8192_SHA512,
        (Scheme::Pss(Digest::Sha256), Kind::Rsa) => &RSA_PSS_2048_8192_SHA256,
        (Scheme::Pss(Digest::Sha384), Kind::Rsa) => &RSA_PSS_2048_8192_SHA384,
        (Scheme::Pss(Digest::Sha512), Kind::Rsa) => &RSA_PSS_2048_8192_SHA512,
        (Scheme::Ecdsa(Digest::Sha256), Kind::P256) => &ECDSA_P256_SHA256_ASN1,
        (Scheme::Ecdsa(Digest::Sha384), Kind::P256) => &ECDSA_P256_SHA384_ASN1,
        (Scheme::Ecdsa(Digest::Sha512), Kind::P256) => &ECDSA_P256_SHA512_ASN1,
        (Scheme::Ecdsa(Digest::Sha256), Kind::P384) => &ECDSA_P384_SHA256_ASN1,
        (Scheme::Ecdsa(Digest::Sha384), Kind::P384) => &ECDSA_P384_SHA384_ASN1,
        (Scheme::Ecdsa(Digest::Sha512), Kind::P384) => &ECDSA_P384_SHA512_ASN1,
        (Scheme::Ecdsa(Digest::Sha256), Kind::P521) => &ECDSA_P521_SHA256_ASN1,
        (Scheme::Ecdsa(Digest::Sha384), Kind::P521) => &ECDSA_P521_SHA384_ASN1,
        (Scheme::Ecdsa(Digest::Sha512), Kind::P521) => &ECDSA_P521_SHA512_ASN1,
        (Scheme::Ed25519, Kind::Ed25519) => &ED25519,
        _ => return None,
    })
}

/// Whether keys of this kind never sign in this way, with any digest.
fn contradict(scheme: Scheme, kind: Kind) -> bool {
    match scheme {
        Scheme::Pkcs1(_) | Scheme::Pss(_) => kind != Kind::Rsa,
        Scheme::Ecdsa(_) => matches!(kind, Kind::Rsa | Kind::Ed25519 | Kind::Other),
        Scheme::Ed25519 => kind != Kind::Ed25519,
        Scheme::Other(_) => false,
    }
}

fn scheme(algorithm: &AlgorithmIdentifier<'_>) -> Scheme {
    match algorithm.algorithm.to_id_string().as_str() {
        // MD2, MD4, MD5 and SHA-1, the last also by its older name.
        "1.2.840.113549.1.1.2"
        | "1.2.840.113549.1.1.3"
        | "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.3.14.3.2.29" => Scheme::Pkcs1(Digest::Broken),
        "1.2.840.113549.1.1.11" => Scheme::Pkcs1(Digest::Sha256),
        "1.2.840.113549.1.1.12" => Scheme::Pkcs1(Digest::Sha384),
        "1.2.840.113549.1.1.13" => Scheme::Pkcs1(Digest::Sha512),
        "1.2.840.113549.1.1.10" => Scheme::Pss(digest_of_pss(algorithm)),
        "1.2.840.10045.4.1" => Scheme::Ecdsa(Digest::Broken),
        "1.2.840.10045.4.3.2" => Scheme::Ecdsa(Digest::Sha256),
        "1.2.840.10045.4.3.3" => Scheme::Ecdsa(Digest::Sha384),
        "1.2.840.10045.4.3.4" => Scheme::Ecdsa(Digest::Sha512),
        "1.3.101.112" => Scheme::Ed25519,
        // DSA with SHA-1.
        "1.2.840.10040.4.3" => Scheme::Other(Digest::Broken),
        _ => Scheme::Other(Digest::Other),
    }
}

/// One digest for both of its uses, and a salt as long as that: what everybody writes, and what the
/// library knows.
fn digest_of_pss(algorithm: &AlgorithmIdentifier<'_>) -> Digest {
    // Left out, it is SHA-1 (RFC 4055, section 3.1).
    let Some(given) = &algorithm.parameters else { return Digest::Broken };
    let Ok(given) = RsaSsaPssParams::try_from(given) else { return Digest::Other };
    let (digest, length) = match given.hash_algorithm_oid().to_id_string().as_str() {
        "1.3.14.3.2.26" => return Digest::Broken,
        "2.16.840.1.101.3.4.2.1" => (Digest::Sha256, 32),
        "2.16.840.1.101.3.4.2.2" => (Digest::Sha384, 48),
        "2.16.840.1.101.3.4.2.3" => (Digest::Sha512, 64),
        _ => return Digest::Other,
    };
    let same =
        given.mask_gen_algorithm().is_ok_and(|mask| mask.hash == *given.hash_algorithm_oid());
    if same && given.salt_length() == length { digest } else { Digest::Other }
}
