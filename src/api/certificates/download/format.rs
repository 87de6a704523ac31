//! The files that a certificate can be downloaded as, and their descriptions.

use axum::Extension;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::path::{Operation, Parameter, Paths};
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};
use utoipa::openapi::{Content, ObjectBuilder, RefOr, Schema};
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use crate::api::AppState;
use crate::pki;

/// A file under `/certificates/{id}/`.
#[derive(Debug)]
pub(crate) struct Format {
    file: &'static str,
    operation: &'static str,
    summary: &'static str,
    /// Empty where the summary says everything.
    description: &'static str,
    media_type: &'static str,
    contents: &'static str,
    encoding: Encoding,
}

/// The contents of a file.
#[derive(Debug, Clone, Copy)]
enum Encoding {
    Certificates(Encode),
    Private(Private),
}

/// Makes a file of a chain in DER, leaf first.
pub(crate) type Encode = fn(&[Vec<u8>]) -> Vec<u8>;

/// A file with the private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Private {
    Key,
    KeyAndChain,
    Pkcs12,
    Jks,
}

const CHAIN: &str = "application/pem-certificate-chain";
const PEM: &str = "application/x-pem-file";

#[rustfmt::skip]
const FORMATS: &[Format] = &[
    Format { file: "fullchain.pem", operation: "downloadFullchain", media_type: CHAIN, contents: "PEM, leaf first",
        summary: "Download the certificate and its chain", description: "",
        encoding: Encoding::Certificates(|chain| pki::chain_pem(chain).into_bytes()) },
    Format { file: "cert.pem", operation: "downloadCertificate", media_type: CHAIN, contents: "PEM, the leaf",
        summary: "Download the certificate alone", description: "",
        encoding: Encoding::Certificates(|chain| pki::chain_pem(&chain[..1]).into_bytes()) },
    Format { file: "chain.pem", operation: "downloadChain", media_type: CHAIN, contents: "PEM, without the leaf",
        summary: "Download the issuer chain", description: "",
        encoding: Encoding::Certificates(|chain| pki::chain_pem(&chain[1..]).into_bytes()) },
    Format { file: "privkey.pem", operation: "downloadPrivateKey", media_type: PEM, contents: "PEM, PKCS #8",
        summary: "Download the private key",
        description: "Needs the permission `certificates:readKey`, and is recorded as an event. The key of a client's own\nCSR is not held here: 404 `key_not_held`.",
        encoding: Encoding::Private(Private::Key) },
    Format { file: "combined.pem", operation: "downloadCombined", media_type: PEM, contents: "PEM: key, leaf, chain",
        summary: "Download private key and chain",
        description: "The key first, then the certificate and its chain: as `HAProxy` and others read it. Needs the\npermission `certificates:readKey`, and is recorded as an event.",
        encoding: Encoding::Private(Private::KeyAndChain) },
    Format { file: "cert.der", operation: "downloadCertificateDer", media_type: "application/pkix-cert", contents: "DER, the leaf",
        summary: "Download the certificate in DER", description: "",
        encoding: Encoding::Certificates(|chain| chain[0].clone()) },
    Format { file: "keystore.p12", operation: "downloadPkcs12", media_type: "application/x-pkcs12", contents: "PKCS #12",
        summary: "Download a PKCS #12 keystore",
        description: "Key and chain, under the certificate's name. Needs the permission `certificates:readKey`, and is\nrecorded as an event.",
        encoding: Encoding::Private(Private::Pkcs12) },
    Format { file: "keystore.jks", operation: "downloadJks", media_type: "application/x-java-keystore", contents: "JKS",
        summary: "Download a Java keystore",
        description: "Key and chain, under the certificate's name, in Java's old format (JKS), whose protection is weak:\nJava since version 9 reads PKCS #12. Needs the permission `certificates:readKey`, and is recorded as\nan event.",
        encoding: Encoding::Private(Private::Jks) },
];

/// A route for each format, with its description.
pub(crate) fn routes() -> impl Iterator<Item = UtoipaMethodRouter<AppState>> {
    FORMATS.iter().map(|format| match format.encoding {
        Encoding::Certificates(encode) => {
            let (schemas, general, methods) = routes!(super::certificates);
            (schemas, format.describe(general), methods.layer(Extension((format, encode))))
        }
        Encoding::Private(private) => {
            let (schemas, general, methods) = routes!(super::with_private_key);
            (schemas, format.describe(general), methods.layer(Extension((format, private))))
        }
    })
}

impl Format {
    /// The file, or 304 without a body.
    pub(super) fn answer(&self, tag: String, caching: &str, body: Option<Vec<u8>>) -> Response {
        let headers = [(header::ETAG, tag), (header::CACHE_CONTROL, caching.to_owned())];
        match body {
            None => (StatusCode::NOT_MODIFIED, headers).into_response(),
            Some(body) => {
                (headers, [(header::CONTENT_TYPE, self.media_type)], body).into_response()
            }
        }
    }

    /// The description of the handler, which serves several formats, as that of this one.
    fn describe(&self, general: Paths) -> Paths {
        let mut described = Paths::new();
        for (path, mut item) in general.paths {
            if let Some(operation) = &mut item.get {
                self.specialise(operation);
            }
            described.paths.insert(path.replace("{file}", self.file), item);
        }
        described
    }

    fn specialise(&self, operation: &mut Operation) {
        operation.operation_id = Some(self.operation.to_owned());
        operation.summary = Some(self.summary.to_owned());
        operation.description = Some(self.description.to_owned()).filter(|text| !text.is_empty());
        if let Some(parameters) = &mut operation.parameters {
            let concerns_others = |parameter: &Parameter| {
                self.parameters_of_others().contains(&parameter.name.as_str())
            };
            parameters.retain(|one| !matches!(one, RefOr::T(one) if concerns_others(one)));
        }
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut("200") {
            self.contents.clone_into(&mut response.description);
            response
                .content
                .insert(self.media_type.to_owned(), RefOr::T(Content::new(Some(bytes()))));
        }
    }

    /// Parameters of the handler that do not concern this format.
    fn parameters_of_others(&self) -> &'static [&'static str] {
        match self.encoding {
            Encoding::Certificates(_) | Encoding::Private(Private::Pkcs12) => &[],
            Encoding::Private(Private::Jks) => &["profile"],
            Encoding::Private(Private::Key | Private::KeyAndChain) => {
                &["profile", "X-Keystore-Password"]
            }
        }
    }
}

/// The schema of a file. Generators know no other for what is neither JSON nor plain text.
fn bytes() -> Schema {
    let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
    ObjectBuilder::new().schema_type(Type::String).format(Some(format)).into()
}
