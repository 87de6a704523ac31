//! Signatures of what is delivered, as Standard Webhooks has them: HMAC-SHA256 over identifier, time
//! and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use standardwebhooks::{Webhook, WebhookError};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::secret::{SealError, Secret};

/// Prefix of every signing secret, so that scanners for leaked secrets find it.
const PREFIX: &str = "whsec_";

/// Random bytes in a secret.
const LENGTH: usize = 32;

/// Makes a signing secret: `whsec_` and 32 random bytes in base64.
pub fn generate_secret() -> Result<Secret<String>, SealError> {
    let mut bytes = Zeroizing::new([0_u8; LENGTH]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| SealError::Encryption)?;
    Ok(Secret::new(format!("{PREFIX}{}", STANDARD.encode(*bytes))))
}

/// The value of `webhook-signature`: one signature for each secret, separated by spaces.
pub fn sign(
    secrets: &[Secret<String>],
    message: &str,
    at: OffsetDateTime,
    body: &str,
) -> Result<String, WebhookError> {
    let signatures: Result<Vec<_>, _> = secrets
        .iter()
        .map(|secret| {
            Webhook::new(secret.expose())?.sign(message, at.unix_timestamp(), body.as_bytes())
        })
        .collect();
    Ok(signatures?.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn a_known_message_has_the_known_signature() {
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned());
        let at = OffsetDateTime::from_unix_timestamp(1_614_265_330).unwrap();
        let body = r#"{"test": 2432232314}"#;

        let signed = sign(&[secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", at, body).unwrap();

        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn every_secret_signs_and_no_two_alike() {
        let secrets = [generate_secret().unwrap(), generate_secret().unwrap()];
        let signed = sign(&secrets, "msg_1", OffsetDateTime::UNIX_EPOCH, "{}").unwrap();
        let (new, old) = signed.split_once(' ').unwrap();

        assert!(new.starts_with("v1,") && old.starts_with("v1,"), "{signed}");
        assert_ne!(new, old);
        assert!(secrets[0].expose().starts_with("whsec_"));
    }
}
