//! The calls to a CA and the ways in which they fail.

use serde_json::Value;
use time::Duration;

use super::exchange::Exchange;
use super::meter::Withheld;
use crate::acme::jose::{JoseError, Signer};
use crate::acme::problem::Problem;
use crate::outbound::AddressError;

/// The kinds of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Directory,
    NewAccount,
    UpdateAccount,
    NewOrder,
    GetOrder,
    GetAuthorization,
    Challenge,
    Finalize,
    Certificate,
    RenewalInformation,
    Revoke,
    KeyChange,
}

impl Call {
    /// The word that the metrics use: RFC 8555's for the resource or the action.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::NewAccount => "newAccount",
            Self::UpdateAccount => "account",
            Self::NewOrder => "newOrder",
            Self::GetOrder => "order",
            Self::GetAuthorization => "authorization",
            Self::Challenge => "challenge",
            Self::Finalize => "finalize",
            Self::Certificate => "certificate",
            Self::RenewalInformation => "renewalInfo",
            Self::Revoke => "revokeCert",
            Self::KeyChange => "keyChange",
        }
    }

    /// Whether the call changes nothing at the CA, so that repeating it is harmless.
    pub(super) fn only_asks(self) -> bool {
        match self {
            Self::Directory
            | Self::GetOrder
            | Self::GetAuthorization
            | Self::Certificate
            | Self::RenewalInformation => true,
            Self::NewAccount
            | Self::UpdateAccount
            | Self::NewOrder
            | Self::Challenge
            | Self::Finalize
            | Self::Revoke
            | Self::KeyChange => false,
        }
    }
}

/// A call and how long what it asks about has existed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub call: Call,
    /// Time since the CA handed the URL out; `None` if that is unknown.
    pub age: Option<Duration>,
    /// Time since this process first knew the account.
    pub account_age: Option<Duration>,
}

impl Asked {
    /// A call about nothing that has an age.
    pub(super) fn of(call: Call) -> Self {
        Self { call, age: None, account_age: None }
    }
}

/// The ways in which a call fails.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    /// The CA, or somebody before it, answered with an error.
    Answer(Exchange),
    /// The answer was fine, and the object in it carries an error.
    Object(Problem),
    /// The answer claims success and makes no sense.
    Unreadable(String),
    /// There was no whole answer.
    Transport(Transport),
}

/// Why there was no whole answer. The texts are the HTTP library's.
#[derive(Debug, Clone)]
pub(super) enum Transport {
    /// The request could not be signed.
    Unsigned(JoseError),
    /// Too many of our own requests to this CA are under way.
    Busy,
    /// It was not sent, so that the CA is not asked too much.
    Withheld(Withheld),
    /// The URL may not be asked, such as one without TLS.
    Refused(String),
    /// The URL is not the CA's.
    Foreign(String),
    /// The URL leads to where the service may not go, or nowhere.
    Guarded(AddressError),
    /// The TLS certificate is not trusted.
    Untrusted(String),
    /// The TLS certificate has ended, or has not begun, by our clock.
    Untimely(String),
    Unreachable(String),
    Timeout(String),
    /// The connection ended early.
    Broken(String),
    /// The answer exceeds the limit for bodies.
    TooLarge,
}

/// A request to a CA.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    /// A document that needs no signature.
    Get(&'a str),
    Post(Signed<'a>),
}

/// A request that is signed for one URL.
#[derive(Clone, Copy)]
pub(super) struct Signed<'a> {
    pub signer: &'a Signer,
    /// The endpoint for nonces.
    pub new_nonce: &'a str,
    /// The account that the key belongs to; without it the key comes along.
    pub account: Option<&'a str>,
    pub url: &'a str,
    /// `None` reads what is at the URL (POST-as-GET).
    pub payload: Option<&'a Value>,
}

/// The end of a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub end: Result<Exchange, Transport>,
    /// Whether it ended at the nonce: the request itself was not sent.
    pub for_nonce: bool,
}
