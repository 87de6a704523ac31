//! Completion in shells: commands and flags from the tree of commands, names from the server.
//!
//! The scripts of `certwright completion` call the program back with `CERTWRIGHT_COMPLETE` and the words of the line. It
//! asks the server that the line names, as a command would, for at most [`PATIENCE`]; where that does not answer, or
//! lists nothing, there is nothing to choose from. Only names are asked for.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::mpsc;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::{ArgValueCompleter, CompleteEnv, CompletionCandidate};
use serde_json::Value;

use super::output::text;
use super::remote::{Remote, Session, run};
use crate::manifest::kind::Kind;

/// Says that words are to be completed, and for which shell.
pub(super) const VARIABLE: &str = "CERTWRIGHT_COMPLETE";

/// The place of the word that is being typed; fish ends the line there instead.
const PLACE: &str = "_CLAP_COMPLETE_INDEX";

/// How long a shell waits for the server.
const PATIENCE: Duration = Duration::from_secs(1);

/// Names that are asked for.
const MOST: &str = "500";

/// Completes words if a shell asks for that; says whether it did.
pub fn complete() -> bool {
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .try_complete(std::env::args_os(), None)
        .unwrap_or_else(|error| error.exit())
}

/// The tree of commands, with what their arguments name.
fn command() -> Command {
    naming(super::Cli::command(), "")
}

/// What an argument names.
#[derive(Debug, Clone, Copy)]
enum Named {
    /// KIND, KIND NAME or KIND/NAME.
    Target,
    /// The same, or a certificate's name alone.
    TargetOrCertificate,
    Kinds,
    Namespace,
    Of(&'static [Kind]),
}

fn naming(command: Command, parent: &str) -> Command {
    let name = command.get_name().to_owned();
    let command = command.mut_args(|argument| match named(parent, &name, &argument) {
        None => argument,
        Some(named) => argument.add(ArgValueCompleter::new(move |typed: &OsStr| {
            candidates(named, &typed.to_string_lossy())
        })),
    });
    command.mut_subcommands(|one| naming(one, &name))
}

fn named(parent: &str, command: &str, argument: &Arg) -> Option<Named> {
    use Named::{Kinds, Namespace, Of, Target, TargetOrCertificate};
    const ISSUERS: &[Kind] = &[Kind::ClusterIssuer, Kind::Issuer];
    Some(match (parent, command, argument.get_id().as_str()) {
        (_, _, "namespace" | "namespace_before") | ("keys", "create", "namespaces") => Namespace,
        (_, "logs", "what") => TargetOrCertificate,
        (_, _, "what") | (_, "events", "about") => Target,
        (_, "export", "kinds") => Kinds,
        (_, "renew", "names")
        | ("certwright", "revoke" | "download", "name")
        | ("status", "certificate", "name")
        | ("certificates", "set", "name") => Of(&[Kind::Certificate]),
        (_, "approve" | "deny", "requests") => Of(&[Kind::Request]),
        (_, "issue" | "can" | "set", "issuer") | ("issuers", _, "name") => Of(ISSUERS),
        ("webhooks", _, "webhook") => Of(&[Kind::Webhook]),
        ("secrets", "delete" | "replace", "name") => Of(&[Kind::Secret]),
        _ => return None,
    })
}

/// What the word may become.
fn candidates(named: Named, typed: &str) -> Vec<CompletionCandidate> {
    let line = Line::typed();
    let words = match named {
        Named::Kinds => kinds(),
        Named::Namespace => line.names(Vec::new()),
        Named::Of(kinds) => line.names(kinds.to_vec()),
        Named::Target | Named::TargetOrCertificate => line.targets(named, typed),
    };
    let fitting = words.into_iter().filter(|word| word.starts_with(typed));
    fitting.map(CompletionCandidate::new).collect()
}

fn kinds() -> Vec<String> {
    Kind::ALL.iter().map(|kind| kind.plural().to_owned()).collect()
}

/// The line before the word that is being typed.
struct Line(ArgMatches);

impl Line {
    fn typed() -> Self {
        let words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").collect();
        let place = std::env::var(PLACE).ok().and_then(|place| place.parse::<usize>().ok());
        let end = place.map_or(words.len().saturating_sub(1), |place| place + 1);
        let before = words.into_iter().take(end).skip(1);
        let command = super::Cli::command().ignore_errors(true);
        Self(command.try_get_matches_from(before).unwrap_or_default())
    }

    /// The arguments of the last subcommand.
    fn innermost(&self) -> &ArgMatches {
        let mut matches = &self.0;
        while let Some((_, inner)) = matches.subcommand() {
            matches = inner;
        }
        matches
    }

    fn targets(&self, named: Named, typed: &str) -> Vec<String> {
        if let Some((word, _)) = typed.split_once('/') {
            let Ok(kind) = Kind::parse(word) else { return Vec::new() };
            let found = self.names(vec![kind]).into_iter();
            return found.map(|name| format!("{word}/{name}")).collect();
        }
        let before = self.innermost().try_get_many::<String>("what").ok().flatten();
        let kind = before.into_iter().flatten().next();
        match (kind.map(|word| Kind::parse_several(word)), named) {
            (Some(Ok(kinds)), _) => self.names(kinds),
            (Some(Err(_)), _) => Vec::new(),
            (None, Named::TargetOrCertificate) => {
                [kinds(), self.names(vec![Kind::Certificate])].concat()
            }
            (None, _) => kinds(),
        }
    }

    /// Names of these kinds, or of namespaces where no kind is given. Another thread asks, so that whatever it waits for
    /// is waited for no longer than a person likes.
    fn names(&self, kinds: Vec<Kind>) -> Vec<String> {
        let Ok(remote) = Remote::from_arg_matches(&self.0) else { return Vec::new() };
        let matches = self.innermost();
        let given = matches.try_get_one::<String>("namespace").ok().flatten().cloned();
        let everywhere = matches.try_get_one::<bool>("all_namespaces").ok().flatten().copied();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            let asked = || {
                let session = remote.session()?;
                let own = given.unwrap_or_else(|| session.own_namespace().to_owned());
                let namespace = Some(own).filter(|_| everywhere != Some(true));
                run(async {
                    let found = match &kinds[..] {
                        [] => namespaces(&session).await?,
                        kinds => names(&session, kinds, namespace.as_deref()).await?,
                    };
                    // Nobody listens any more if it took too long.
                    tell.send(found).ok();
                    Ok(())
                })
            };
            asked().ok();
        });
        told.recv_timeout(PATIENCE).unwrap_or_default().into_iter().collect()
    }
}

async fn names(
    session: &Session,
    kinds: &[Kind],
    namespace: Option<&str>,
) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for kind in kinds.iter().filter(|kind| kind.has_names()) {
        let mut query = vec![("fields", "name"), ("limit", MOST)];
        if kind.is_namespaced() {
            query.extend(namespace.map(|namespace| ("namespace", namespace)));
        }
        query.extend(kind.of_path().map(|word| ("kind", word)));
        found.extend(field(&session.client.get(kind.path(), &query).await?, "/name"));
    }
    Ok(found)
}

/// Namespaces are where something is.
async fn namespaces(session: &Session) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for path in ["/certificates", "/issuers"] {
        let query = [("fields", "namespace"), ("limit", MOST)];
        // Whoever may not read one may read the other.
        let page = session.client.get(path, &query).await.unwrap_or_default();
        found.extend(field(&page, "/namespace"));
    }
    Ok(found)
}

fn field(page: &Value, pointer: &str) -> Vec<String> {
    let items = page.get("items").and_then(Value::as_array).into_iter().flatten();
    items.map(|item| text(item, pointer)).filter(|word| !word.is_empty()).collect()
}
