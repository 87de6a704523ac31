//! A CA of clients, and certificates that it signs.

use certwright::clock::{Clock as _, SystemClock};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use time::Duration;

pub struct ClientCa(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub struct ClientIdentity {
    pub certificate: String,
    pub key: String,
}

impl ClientCa {
    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate of today for a client with this URI.
    pub fn sign(&self, uri: &str) -> ClientIdentity {
        self.sign_with(uri, |_| {})
    }

    /// The same, changed.
    pub fn sign_with(
        &self,
        uri: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> ClientIdentity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = SystemClock.now() - Duration::hours(1);
        params.not_after = SystemClock.now() + Duration::hours(1);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap();
        ClientIdentity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl ClientIdentity {
    /// Both in one.
    pub fn pem(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}
