//! From everything that an ACME server, a proxy or the network can do to one [`Failure`].
//!
//! The HTTP status decides where the body may be anybody's (5xx, 429), the problem type where the
//! CA itself speaks, the age where the same answer means "not yet" or "not any more".

mod scope;
#[cfg(test)]
mod tests;
mod vocabulary;

use time::Duration;

use super::meter::Withheld;
use super::problem::{Problem, clean, name_of};
use super::recorder::Exchange;
use crate::domain::failure::{Class, Failure};
use crate::domain::limits::most_names;
use crate::outbound::AddressError;
use vocabulary::{Kind, known};

/// So long may a CA's replicas lag behind with what it handed out.
const YOUNG_OBJECT: Duration = Duration::minutes(10);
/// The same for an account.
const YOUNG_ACCOUNT: Duration = Duration::minutes(2);

/// What the CA was asked.
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
    /// Whether it changes nothing at the CA, so that putting it again is harmless.
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
    /// Since when the CA has promised that the URL exists; `None` when that is not known.
    pub age: Option<Duration>,
    /// For how long we have known the account.
    pub account_age: Option<Duration>,
}

impl Asked {
    /// A call about nothing that has an age.
    pub(super) fn of(call: Call) -> Self {
        Self { call, age: None, account_age: None }
    }
}

/// How a call went wrong.
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

/// Why there was no whole answer; the text is the library's.
#[derive(Debug, Clone)]
pub(super) enum Transport {
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
    Unreachable(String),
    Timeout(String),
    /// The connection ended early.
    Broken(String),
    /// More than anybody would honestly send.
    TooLarge,
}

/// The class, the code and the words.
struct Verdict {
    class: Class,
    code: &'static str,
    title: &'static str,
    advice: &'static str,
    instance: Option<String>,
}

/// Says what kind of failure it is.
pub(super) fn classify(asked: Asked, trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Answer(exchange) => answered(asked, exchange),
        Trouble::Object(problem) => carried(problem),
        Trouble::Unreadable(why) => unreadable(asked.call, why),
        Trouble::Transport(trouble) => no_answer(trouble),
    }
}

fn answered(asked: Asked, exchange: &Exchange) -> Failure {
    let document = Problem::of(exchange);
    let is_problem = document.is_some();
    let problem = document.unwrap_or_default();
    let verdict = limited(exchange, &problem)
        .or_else(|| broken(exchange.status, &problem))
        .or_else(|| absent(asked, exchange.status, &problem))
        .or_else(|| withheld(asked, exchange.status, &problem))
        .or_else(|| too_many_names(asked.call, &problem))
        .or_else(|| by_type(asked, exchange, &problem))
        .unwrap_or_else(|| by_status(asked.call, exchange.status));
    let words = match (&exchange.location, problem.words()) {
        (Some(location), _) if exchange.status < 400 => {
            format!("The answer points to {}.", clean(location, 300))
        }
        (_, Some(words)) => words,
        (_, None) if is_problem => {
            format!("The answer was HTTP {} without a reason.", exchange.status)
        }
        (_, None) => format!("The answer was {} and no ACME problem document.", exchange.outline()),
    };
    let by_the_ca = problem.name() == Some("rateLimited");
    let scope = (verdict.class == Class::Throttle)
        .then(|| scope::of(asked.call, exchange.status, by_the_ca, &words));
    let failure = describe(verdict, &problem, words);
    Failure { scope: scope.flatten(), ..failure }
        .with_status(exchange.status)
        .not_before(exchange.retry_at)
}

/// The error of an order or a challenge: whatever it is, this order is over.
fn carried(problem: &Problem) -> Failure {
    let verdict = match problem.name() {
        Some("compound") => compound(problem, Class::Validation, Class::Validation),
        Some("unauthorized") => Verdict {
            advice: "Look for stale records, split-horizon DNS or a proxy in front.",
            ..Verdict::new(
                Class::Validation,
                "acme_unauthorized",
                "The CA did not find the expected proof of control over the name.",
            )
        },
        name => match name.and_then(known).map(Verdict::from) {
            Some(verdict) if ends_order(verdict.class) && name != Some("malformed") => verdict,
            Some(verdict) => Verdict { class: Class::Validation, ..verdict },
            None => Verdict::new(
                Class::Validation,
                "acme_validation_failed",
                "The CA could not confirm control over the name.",
            ),
        },
    };
    let words = problem.words().unwrap_or_else(|| "The CA gave no reason.".into());
    describe(verdict, problem, words)
}

/// Classes that mean something for an error that an object carries.
fn ends_order(class: Class) -> bool {
    matches!(class, Class::Validation | Class::Blocked | Class::Throttle | Class::Transient)
}

fn describe(verdict: Verdict, problem: &Problem, words: String) -> Failure {
    let detail = match verdict.advice {
        "" => words,
        advice if words.ends_with(['.', '!', '?']) => format!("{words} {advice}"),
        advice => format!("{words}. {advice}"),
    };
    let page = problem.instance.as_deref().and_then(page_in);
    Failure {
        acme_type: problem.kind.as_deref().map(|kind| clean(kind, 200)),
        subproblems: problem.parts(),
        instance: verdict.instance.or(page),
        ..Failure::new(verdict.class, verdict.code, verdict.title, detail)
    }
}

/// Asked to come back later, or to let a person have a look.
fn limited(exchange: &Exchange, problem: &Problem) -> Option<Verdict> {
    let named = problem.name() == Some("rateLimited");
    match exchange.status {
        503 if named || exchange.retry_at.is_some() => {
            Some(Verdict::new(Class::Throttle, "acme_busy", "The CA is too busy at the moment."))
        }
        400..=499 if named || exchange.status == 429 => {
            let page = problem.words().as_deref().and_then(page_in);
            match page.filter(|_| exchange.retry_at.is_none()) {
                Some(page) => Some(Verdict {
                    advice: "A person has to open the page that the CA names.",
                    instance: Some(page),
                    ..Verdict::new(
                        Class::Blocked,
                        "acme_paused",
                        "The CA has paused issuance until a person resumes it.",
                    )
                }),
                None => known("rateLimited").map(Verdict::from),
            }
        }
        _ => None,
    }
}

/// The server's own trouble, whoever of its machines speaks.
fn broken(status: u16, problem: &Problem) -> Option<Verdict> {
    match (status, problem.name()) {
        (500.., Some("serverInternal")) => known("serverInternal").map(Verdict::from),
        (500.. | 408 | 425, _) => {
            Some(Verdict::new(Class::Transient, "acme_unavailable", "The CA is not available."))
        }
        _ => None,
    }
}

/// What is asked for is not there: not yet, or not any more.
fn absent(asked: Asked, status: u16, problem: &Problem) -> Option<Verdict> {
    let words = problem.words().unwrap_or_default().to_ascii_lowercase();
    let is_absent = match problem.name() {
        None => matches!(status, 404 | 410) || (status == 405 && asked.call != Call::Directory),
        Some("malformed") => matches!(status, 404 | 405 | 410) || words.starts_with("no such "),
        Some(_) => false,
    };
    if !is_absent {
        return None;
    }
    Some(match asked.call {
        Call::Directory => Verdict {
            advice: "Check the issuer's server URL.",
            ..Verdict::new(
                Class::Blocked,
                "acme_directory_not_found",
                "There is no ACME directory at the issuer's URL.",
            )
        },
        Call::NewAccount | Call::NewOrder => Verdict::new(
            Class::Transient,
            "acme_endpoint_moved",
            "The CA does not answer where its directory says.",
        ),
        Call::UpdateAccount => unknown_account(asked.account_age)?,
        _ if status == 405 => return None,
        _ if words.contains("expired") || asked.age.is_some_and(|age| age >= YOUNG_OBJECT) => {
            Verdict::new(Class::Gone, "acme_gone", "The CA has forgotten what it was asked about.")
        }
        _ => Verdict::new(
            Class::Consistency,
            "acme_not_found_yet",
            "The CA does not know yet what it has just handed out.",
        ),
    })
}

/// A certificate that exists is not handed out: some CAs say so of one that is not ready to be fetched.
fn withheld(asked: Asked, status: u16, problem: &Problem) -> Option<Verdict> {
    let is_withheld = asked.call == Call::Certificate
        && matches!(status, 401 | 403)
        && matches!(problem.name(), None | Some("unauthorized"));
    is_withheld.then(|| {
        Verdict::new(
            Class::Consistency,
            "acme_certificate_withheld",
            "The CA does not hand out the certificate that it has issued.",
        )
    })
}

/// CAs say no more than that the order is malformed, and how many it may be in words.
fn too_many_names(call: Call, problem: &Problem) -> Option<Verdict> {
    let words = problem.words()?;
    let is_it = call == Call::NewOrder
        && matches!(problem.name(), None | Some("malformed" | "rejectedIdentifier"))
        && most_names(&words).is_some();
    is_it.then(|| Verdict {
        advice: "Spread the names over several certificates, or choose another profile.",
        ..Verdict::new(
            Class::Blocked,
            "acme_too_many_names",
            "The CA does not put so many names into one certificate.",
        )
    })
}

fn by_type(asked: Asked, exchange: &Exchange, problem: &Problem) -> Option<Verdict> {
    match (problem.name()?, asked.call, exchange.status) {
        ("compound", ..) => Some(compound(problem, Class::Blocked, Class::Transient)),
        ("accountDoesNotExist", ..) => unknown_account(asked.account_age),
        // Our questions have no content that a person could correct.
        ("malformed", call, _) if call.only_asks() => {
            Some(Verdict { class: Class::Transient, ..known("malformed")?.into() })
        }
        (name @ ("unauthorized" | "malformed"), Call::Finalize, 403)
        | (name @ "malformed", _, 409) => {
            Some(Verdict { class: Class::Conflict, ..known(name)?.into() })
        }
        ("userActionRequired", ..) => Some(Verdict {
            instance: problem
                .instance
                .as_deref()
                .or(exchange.link("terms-of-service"))
                .and_then(page_in),
            ..known("userActionRequired")?.into()
        }),
        (name, ..) => known(name).map(Verdict::from),
    }
}

fn by_status(call: Call, status: u16) -> Verdict {
    let is_lasting = call == Call::Directory && matches!(status, 301 | 308);
    match (status, call) {
        (409, _) | (403, Call::Finalize) => Verdict::new(
            Class::Conflict,
            "acme_conflict",
            "The request does not fit the state at the CA.",
        ),
        (300..400, _) => Verdict {
            advice: "Redirects to elsewhere are not followed: the issuer needs the final URL.",
            ..Verdict::new(
                if is_lasting { Class::Blocked } else { Class::Transient },
                "acme_redirected",
                "The CA's URL leads elsewhere.",
            )
        },
        // Nobody knows what it means: it may pass by itself.
        _ => Verdict::new(Class::Transient, "acme_refused", "The CA refuses the request."),
    }
}

fn unknown_account(age: Option<Duration>) -> Option<Verdict> {
    let verdict = Verdict::from(known("accountDoesNotExist")?);
    Some(match age {
        Some(age) if age < YOUNG_ACCOUNT => {
            Verdict { class: Class::Consistency, advice: "", ..verdict }
        }
        _ => verdict,
    })
}

/// As bad as the worst of its parts (RFC 8555, section 6.7.1). What some types mean depends on where
/// they stand; `unknown` is for parts that nobody knows.
fn compound(problem: &Problem, here: Class, unknown: Class) -> Verdict {
    let parts = problem.subproblems.iter();
    let names = parts.filter_map(|part| part.kind.as_deref().and_then(name_of));
    // Where an object carries it, a part that speaks of the proof is about the proof.
    let class = |name: &str| match known(name) {
        Some(_) if matches!(name, "unauthorized" | "malformed") => Some(here),
        kind => kind.map(|kind| kind.class),
    };
    let worst = names.filter_map(class).max_by_key(|class| match class {
        Class::Blocked => 6,
        Class::Validation => 5,
        Class::Gone => 4,
        Class::Conflict => 3,
        Class::Throttle => 2,
        Class::Transient => 1,
        Class::Consistency => 0,
    });
    Verdict::new(
        worst.unwrap_or(unknown),
        "acme_compound",
        "The CA found several problems, one for each name.",
    )
}

fn unreadable(call: Call, why: &str) -> Failure {
    if call == Call::Directory {
        return Failure::new(
            Class::Transient,
            "acme_not_a_directory",
            "The issuer's URL does not lead to an ACME directory.",
            format!("{why}. Check the issuer's server URL."),
        );
    }
    Failure::new(
        Class::Transient,
        "acme_unreadable_answer",
        "The CA's answer cannot be understood.",
        why,
    )
}

fn no_answer(trouble: &Transport) -> Failure {
    let failure = |class, code, title, detail: &str| Failure::new(class, code, title, detail);
    let transient = |code, title, detail| failure(Class::Transient, code, title, detail);
    match trouble {
        Transport::Busy => transient(
            "acme_client_busy",
            "Too many requests to the CA are under way.",
            "No place for another request became free in time.",
        ),
        Transport::Withheld(Withheld::Order { until }) => failure(
            Class::Throttle,
            "acme_order_paced",
            "The order has asked the CA as often as it may within a minute.",
            "It goes on by itself; nothing was sent.",
        )
        .not_before(Some(*until)),
        Transport::Withheld(Withheld::Account { until }) => failure(
            Class::Throttle,
            "acme_refusals_spent",
            "The CA has refused, or not answered, too many requests of the account lately.",
            "Nothing is sent before this order's turn; acme.limits.refusedRequests of the issuer says how many it may be.",
        )
        .not_before(Some(*until)),
        Transport::Refused(why) => failure(
            Class::Blocked,
            "acme_url_refused",
            "The CA's URL cannot be used.",
            &format!("{why}. Only https URLs are."),
        ),
        Transport::Foreign(why) => failure(
            Class::Blocked,
            "acme_url_foreign",
            "The CA named a URL on a host that is not its own; nothing was sent there.",
            &format!(
                "{why}. A ClusterIssuer lists further hosts of its CA in `acme.allowedOrigins`."
            ),
        ),
        Transport::Guarded(refused @ AddressError::Forbidden { .. }) => failure(
            Class::Blocked,
            "acme_address_forbidden",
            "The CA is where this service may not connect for an Issuer.",
            &format!("{refused}. An administrator may make it a ClusterIssuer instead."),
        ),
        Transport::Guarded(refused @ AddressError::Unresolved { .. }) => {
            transient("acme_unreachable", "The CA cannot be reached.", &refused.to_string())
        }
        Transport::Untrusted(why) => transient(
            "acme_tls_untrusted",
            "The CA's TLS certificate is not trusted.",
            &format!("{why}. A private CA needs its roots in the issuer's caBundle."),
        ),
        Transport::Unreachable(why) => {
            transient("acme_unreachable", "The CA cannot be reached.", why)
        }
        Transport::Timeout(why) => transient("acme_timeout", "The CA did not answer in time.", why),
        Transport::Broken(why) => {
            transient("acme_connection_lost", "The connection to the CA was lost.", why)
        }
        Transport::TooLarge => transient(
            "acme_answer_too_large",
            "The CA's answer is too large.",
            "More than 1 MiB was sent and not read.",
        ),
    }
}

/// The first web page that a text names. Others than `http(s)` are not fit to be shown as links.
fn page_in(text: &str) -> Option<String> {
    let found = text.split_whitespace().map(|word| word.trim_start_matches(['<', '(', '"', '\'']));
    let mut pages =
        found.filter(|word| word.starts_with("https://") || word.starts_with("http://"));
    let page = pages.next()?.trim_end_matches(['.', ',', ';', ':', ')', '>', '"', '\'']);
    Some(clean(page, 1_000))
}

impl Verdict {
    fn new(class: Class, code: &'static str, title: &'static str) -> Self {
        Self { class, code, title, advice: "", instance: None }
    }
}

impl From<Kind> for Verdict {
    fn from(kind: Kind) -> Self {
        Self { advice: kind.advice, ..Self::new(kind.class, kind.code, kind.title) }
    }
}

/// Whether the CA wants the same request again with another nonce.
pub(super) fn is_bad_nonce(exchange: &Exchange) -> bool {
    exchange.status >= 400
        && Problem::of(exchange).is_some_and(|problem| problem.name() == Some("badNonce"))
}
