//! From everything that an ACME server, a proxy or the network can do to one [`Failure`].
//!
//! The HTTP status decides where the body may be anybody's (5xx, 429), the problem type where the
//! CA itself speaks, the age where the same answer means "not yet" or "not any more".

mod scope;
#[cfg(test)]
mod tests;

use time::Duration;

use super::call::{Asked, Call, Transport, Trouble};
use super::exchange::Exchange;
use super::meter::Withheld;
use crate::acme::jose::JoseError;
use crate::acme::problem::{Problem, clean, code_of, name_of};
use crate::domain::failure::{Class, Code, Failure, code};
use crate::domain::limits::most_names;
use crate::outbound::AddressError;

/// Time for which a CA's replicas may lag behind with a URL that it handed out.
const YOUNG_OBJECT: Duration = Duration::minutes(10);
/// Time for which a CA's replicas may lag behind with an account.
const YOUNG_ACCOUNT: Duration = Duration::minutes(2);

/// The code as it applies here, and a page that the CA names.
struct Verdict {
    code: Code,
    instance: Option<String>,
}

/// Says what kind of failure it is.
pub(super) fn classify(asked: Asked, trouble: &Trouble) -> Failure {
    match trouble {
        Trouble::Answer(exchange) => answered(asked, exchange),
        Trouble::Object(problem) => carried(problem),
        Trouble::Unreadable(why) => senseless(asked.call, why),
        Trouble::Transport(trouble) => no_answer(trouble),
    }
}

fn answered(asked: Asked, exchange: &Exchange) -> Failure {
    let document = exchange.problem();
    let is_problem = document.is_some();
    let problem = document.unwrap_or_default();
    let verdict = limited(exchange, &problem)
        .or_else(|| broken(exchange.status, &problem).map(Verdict::from))
        .or_else(|| absent(asked, exchange.status, &problem).map(Verdict::from))
        .or_else(|| withheld(asked, exchange.status, &problem).map(Verdict::from))
        .or_else(|| too_many_names(asked.call, &problem).map(Verdict::from))
        .or_else(|| by_type(asked, exchange, &problem))
        .unwrap_or_else(|| by_status(asked.call, exchange.status).into());
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
    let scope = (verdict.code.class == Class::Throttle)
        .then(|| scope::of(asked.call, exchange.status, by_the_ca, &words));
    let failure = describe(verdict, &problem, words);
    Failure { scope: scope.flatten(), ..failure }
        .with_status(exchange.status)
        .not_before(exchange.retry_at)
}

/// The error of an order or a challenge: whatever it is, this order is over.
fn carried(problem: &Problem) -> Failure {
    let verdict = match problem.name() {
        Some("compound") => compound(problem, Class::Validation, Class::Validation).into(),
        Some("unauthorized") => code::ACME_UNAUTHORIZED
            .with_class(Class::Validation)
            .with_advice("Look for stale records, split-horizon DNS or a proxy in front.")
            .into(),
        name => match name.and_then(code_of) {
            Some(code) if ends_order(code.class) && name != Some("malformed") => code.into(),
            Some(code) => code.with_class(Class::Validation).into(),
            None => code::ACME_VALIDATION_FAILED.into(),
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
    let page = problem.instance.as_deref().and_then(page_in);
    Failure {
        acme_type: problem.kind.as_deref().map(|kind| clean(kind, 200)),
        subproblems: problem.parts(),
        instance: verdict.instance.or(page),
        ..Failure::of(verdict.code, words)
    }
}

/// Asked to come back later, or to let a person have a look.
fn limited(exchange: &Exchange, problem: &Problem) -> Option<Verdict> {
    let named = problem.name() == Some("rateLimited");
    match exchange.status {
        503 if named || exchange.retry_at.is_some() => Some(code::ACME_BUSY.into()),
        400..=499 if named || exchange.status == 429 => {
            let page = problem.words().as_deref().and_then(page_in);
            match page.filter(|_| exchange.retry_at.is_none()) {
                Some(page) => Some(Verdict { code: code::ACME_PAUSED, instance: Some(page) }),
                None => Some(code::ACME_RATE_LIMITED.into()),
            }
        }
        _ => None,
    }
}

/// The server's own trouble, whoever of its machines speaks.
fn broken(status: u16, problem: &Problem) -> Option<Code> {
    match (status, problem.name()) {
        (500.., Some("serverInternal")) => Some(code::ACME_SERVER_INTERNAL),
        (500.. | 408 | 425, _) => Some(code::ACME_UNAVAILABLE),
        _ => None,
    }
}

/// The object does not exist: not yet, or not any more.
fn absent(asked: Asked, status: u16, problem: &Problem) -> Option<Code> {
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
        Call::Directory => code::ACME_DIRECTORY_NOT_FOUND,
        Call::NewAccount | Call::NewOrder => code::ACME_ENDPOINT_MOVED,
        Call::UpdateAccount => unknown_account(asked.account_age),
        _ if status == 405 => return None,
        _ if words.contains("expired") || asked.age.is_some_and(|age| age >= YOUNG_OBJECT) => {
            code::ACME_GONE
        }
        _ => code::ACME_NOT_FOUND_YET,
    })
}

/// A certificate that exists is not handed out: some CAs say so of one that is not ready to be fetched.
fn withheld(asked: Asked, status: u16, problem: &Problem) -> Option<Code> {
    let is_withheld = asked.call == Call::Certificate
        && matches!(status, 401 | 403)
        && matches!(problem.name(), None | Some("unauthorized"));
    is_withheld.then_some(code::ACME_CERTIFICATE_WITHHELD)
}

/// CAs say no more than that the order is malformed, and how many it may be in words.
fn too_many_names(call: Call, problem: &Problem) -> Option<Code> {
    let words = problem.words()?;
    let is_it = call == Call::NewOrder
        && matches!(problem.name(), None | Some("malformed" | "rejectedIdentifier"))
        && most_names(&words).is_some();
    is_it.then_some(code::ACME_TOO_MANY_NAMES)
}

fn by_type(asked: Asked, exchange: &Exchange, problem: &Problem) -> Option<Verdict> {
    match (problem.name()?, asked.call, exchange.status) {
        ("compound", ..) => Some(compound(problem, Class::Blocked, Class::Transient).into()),
        ("accountDoesNotExist", ..) => Some(unknown_account(asked.account_age).into()),
        // Our questions have no content that a person could correct.
        ("malformed", call, _) if call.only_asks() => {
            Some(code::ACME_MALFORMED.with_class(Class::Transient).into())
        }
        (name @ ("unauthorized" | "malformed"), Call::Finalize, 403)
        | (name @ "malformed", _, 409) => Some(code_of(name)?.with_class(Class::Conflict).into()),
        ("userActionRequired", ..) => Some(Verdict {
            code: code::ACME_USER_ACTION_REQUIRED,
            instance: problem
                .instance
                .as_deref()
                .or(exchange.link("terms-of-service"))
                .and_then(page_in),
        }),
        (name, ..) => code_of(name).map(Verdict::from),
    }
}

fn by_status(call: Call, status: u16) -> Code {
    let is_lasting = call == Call::Directory && matches!(status, 301 | 308);
    match (status, call) {
        (409, _) | (403, Call::Finalize) => code::ACME_CONFLICT,
        (300..400, _) if is_lasting => code::ACME_REDIRECTED.with_class(Class::Blocked),
        (300..400, _) => code::ACME_REDIRECTED,
        // Nobody knows what it means: it may pass by itself.
        _ => code::ACME_REFUSED,
    }
}

fn unknown_account(age: Option<Duration>) -> Code {
    let code = code::ACME_ACCOUNT_DOES_NOT_EXIST;
    match age {
        Some(age) if age < YOUNG_ACCOUNT => code.with_class(Class::Consistency).with_advice(""),
        _ => code,
    }
}

/// The class of the worst sub-problem (RFC 8555, section 6.7.1). `here` is the class of types whose
/// meaning depends on the carrier, `unknown` that of unknown types.
fn compound(problem: &Problem, here: Class, unknown: Class) -> Code {
    let parts = problem.subproblems.iter();
    let names = parts.filter_map(|part| part.kind.as_deref().and_then(name_of));
    // Where an object carries it, a part that speaks of the proof is about the proof.
    let class = |name: &str| match code_of(name) {
        Some(_) if matches!(name, "unauthorized" | "malformed") => Some(here),
        code => code.map(|code| code.class),
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
    code::ACME_COMPOUND.with_class(worst.unwrap_or(unknown))
}

fn senseless(call: Call, why: &str) -> Failure {
    if call == Call::Directory {
        return Failure::of(code::ACME_NOT_A_DIRECTORY, why);
    }
    Failure::of(code::ACME_UNREADABLE_ANSWER, why)
}

fn no_answer(trouble: &Transport) -> Failure {
    match trouble {
        Transport::Unsigned(why) => unusable_key(*why),
        Transport::Busy => Failure::of(
            code::ACME_CLIENT_BUSY,
            "No place for another request became free in time.",
        ),
        Transport::Withheld(Withheld::Order { until }) => {
            Failure::of(code::ACME_ORDER_PACED, "It goes on by itself; nothing was sent.")
                .not_before(Some(*until))
        }
        Transport::Withheld(Withheld::Account { until }) => Failure::of(
            code::ACME_REFUSALS_SPENT,
            "Nothing is sent before this order's turn; acme.limits.refusedRequests of the issuer says how many it may be.",
        )
        .not_before(Some(*until)),
        Transport::Refused(why) => Failure::of(code::ACME_URL_REFUSED, why),
        Transport::Foreign(why) => Failure::of(code::ACME_URL_FOREIGN, why),
        Transport::Guarded(refused @ AddressError::Forbidden { .. }) => {
            Failure::of(code::ACME_ADDRESS_FORBIDDEN, refused.to_string())
        }
        Transport::Guarded(refused @ AddressError::Unresolved { .. }) => {
            Failure::of(code::ACME_UNREACHABLE, refused.to_string())
        }
        Transport::Untrusted(why) => Failure::of(code::ACME_TLS_UNTRUSTED, why),
        Transport::Untimely(why) => Failure::of(code::ACME_TLS_OUT_OF_DATE, why),
        Transport::Unreachable(why) => Failure::of(code::ACME_UNREACHABLE, why),
        Transport::Timeout(why) => Failure::of(code::ACME_TIMEOUT, why),
        Transport::Broken(why) => Failure::of(code::ACME_CONNECTION_LOST, why),
        Transport::TooLarge => {
            Failure::of(code::ACME_ANSWER_TOO_LARGE, "More than 1 MiB was sent and not read.")
        }
    }
}

/// The key that the service holds is unusable: nothing at the CA could change that.
pub(super) fn unusable_key(why: JoseError) -> Failure {
    Failure::of(code::ACME_ACCOUNT_KEY_UNUSABLE, why.to_string())
}

/// The answer claims success and makes no sense.
pub(super) fn unreadable(asked: Asked, why: impl Into<String>) -> Failure {
    classify(asked, &Trouble::Unreadable(why.into()))
}

/// The first web page that a text names. Others than `http(s)` are not fit to be shown as links.
fn page_in(text: &str) -> Option<String> {
    let found = text.split_whitespace().map(|word| word.trim_start_matches(['<', '(', '"', '\'']));
    let mut pages =
        found.filter(|word| word.starts_with("https://") || word.starts_with("http://"));
    let page = pages.next()?.trim_end_matches(['.', ',', ';', ':', ')', '>', '"', '\'']);
    Some(clean(page, 1_000))
}

impl From<Code> for Verdict {
    fn from(code: Code) -> Self {
        Self { code, instance: None }
    }
}
