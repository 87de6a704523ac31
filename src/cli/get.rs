//! `certwright get`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::columns::{Around, columns};
use super::exit::Complaint;
use super::format::Format;
use super::jsonpath::Path;
use super::names::Names;
use super::output::{self, note, now, print, text};
use super::remote::{Remote, Session, Where, run};
use super::targets::targets;
use crate::client::ClientError;
use crate::domain::selector::Selector;
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright get certificates                        what is wanted, in the namespace `default`
  certwright get certificate,certificaterequest -n team
  certwright get order,challenge -A -o wide
  certwright get cert www -o yaml
  certwright get certs -l 'team in (web, api),!legacy' --watch
  certwright get certs --sort-by=.status.notAfter --show-labels
  certwright get cert www -o jsonpath='{.status.notAfter}'
  certwright get certs -A -o custom-columns=NAME:.metadata.name,ENDS:.status.notAfter
  certwright get certs --failed -A
  certwright get events

Kinds: certificates (cert, certs), certificaterequests (cr, crs, requests), orders, challenges,
issuers (iss), clusterissuers (ciss), policies (pol), secrets, webhooks, events. What -o yaml and -o json print of
certificates and issuers can be applied.")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Get {
    /// KIND, several KINDs joined by commas, KIND NAME…, or KIND/NAME…
    #[arg(required = true, value_name = "KIND[,KIND…] [NAME…]")]
    what: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// Labels that certificates must have, such as `team=web,tier!=test`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// wide, json, yaml, name, jsonpath=TEMPLATE or custom-columns=HEADING:PATH,…
    #[arg(short, long, value_name = "FORMAT", value_parser = Format::parse)]
    output: Option<Format>,
    /// Sort by what is at this path, such as .status.notAfter
    #[arg(long, value_name = "PATH", value_parser = Path::parse)]
    sort_by: Option<Path>,
    /// One more column with the labels
    #[arg(long)]
    show_labels: bool,
    /// Only certificates whose last attempt failed, that wait for a person, or that have expired
    #[arg(long)]
    failed: bool,
    /// Go on printing what changes, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Leave the headings out
    #[arg(long)]
    no_headers: bool,
}

/// Interval of `--watch`.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What there is of one kind.
struct Found {
    kind: Kind,
    items: Vec<Value>,
}

impl Get {
    pub(super) fn run(self, remote: &Remote) -> anyhow::Result<()> {
        let session = remote.session()?;
        run(self.show(&session))
    }

    async fn show(&self, session: &Session) -> anyhow::Result<()> {
        let wanted = targets(&self.what)?;
        let selector = self.selector.as_deref().map(selector).transpose()?;
        let named = wanted.iter().any(|(_, name)| name.is_some());
        if named && (selector.is_some() || self.failed) {
            let problem = "a selector chooses among all; it cannot stand beside names";
            return Err(Complaint::Usage(problem.to_owned()).into());
        }
        if self.failed && wanted.iter().any(|(kind, _)| *kind != Kind::Certificate) {
            let problem = "--failed goes with certificates";
            return Err(Complaint::Usage(problem.to_owned()).into());
        }
        let found = self.find(session, &wanted, selector.as_ref()).await?;
        let around = around(session, &found).await?;
        let mut shown = Shown::default();
        match self.documents(&found, named) {
            Some(text) => print(&text)?,
            None => self.tables(session, &found, &around, &mut shown)?,
        }
        if self.watch {
            self.follow(session, &wanted, selector.as_ref(), shown).await
        } else {
            Ok(())
        }
    }

    /// The text of formats that show documents.
    fn documents(&self, found: &[Found], named: bool) -> Option<String> {
        let all = found
            .iter()
            .flat_map(|Found { kind, items }| items.iter().map(|item| (*kind, item.clone())));
        let format = self.output.as_ref()?;
        format.of_documents(&all.collect::<Vec<_>>(), named, !self.no_headers)
    }

    /// Prints what changes. A server that is away for a while is waited for.
    async fn follow(
        &self,
        session: &Session,
        wanted: &[(Kind, Option<String>)],
        selector: Option<&Selector>,
        mut shown: Shown,
    ) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.tick().await;
        loop {
            tick.tick().await;
            let looked = async {
                let found = self.find(session, wanted, selector).await?;
                let around = around(session, &found).await?;
                anyhow::Ok((found, around))
            };
            let (found, around) = match looked.await {
                Ok(found) => found,
                Err(error) if is_away(&error) => continue,
                Err(error) => return Err(error),
            };
            for Found { kind, items } in &found {
                for item in items.iter().filter(|item| shown.is_news(*kind, item)) {
                    let one = Found { kind: *kind, items: vec![item.clone()] };
                    let several = found.len() > 1;
                    print(
                        &match (&self.output, self.documents(std::slice::from_ref(&one), true)) {
                            (Some(Format::Yaml), Some(text)) => format!("---\n{text}"),
                            (_, Some(text)) => text,
                            _ => self.table(*kind, &one.items, &around, false, several),
                        },
                    )?;
                }
            }
        }
    }

    async fn find(
        &self,
        session: &Session,
        wanted: &[(Kind, Option<String>)],
        selector: Option<&Selector>,
    ) -> anyhow::Result<Vec<Found>> {
        let namespace = session.namespace(&self.place);
        let mut found: Vec<Found> = Vec::new();
        for (kind, name) in wanted {
            let items = match name {
                Some(name) => vec![session.find(*kind, namespace.as_deref(), name).await?],
                None if self.failed => failed(session, namespace.as_deref(), selector).await?,
                None => selected(session, *kind, namespace.as_deref(), selector).await?,
            };
            match found.iter_mut().find(|known| known.kind == *kind) {
                Some(known) => known.items.extend(items),
                None => found.push(Found { kind: *kind, items }),
            }
        }
        if let Some(path) = &self.sort_by {
            for one in &mut found {
                sort(one, path);
            }
        }
        Ok(found)
    }

    fn tables(
        &self,
        session: &Session,
        found: &[Found],
        around: &Around,
        shown: &mut Shown,
    ) -> anyhow::Result<()> {
        let several = found.len() > 1;
        let mut parts = Vec::new();
        for Found { kind, items } in found.iter().filter(|found| !found.items.is_empty()) {
            for item in items {
                shown.is_news(*kind, item);
            }
            parts.push(self.table(*kind, items, around, !self.no_headers, several));
        }
        if parts.is_empty() {
            note(&match session.namespace(&self.place) {
                Some(namespace) if found.iter().any(|found| found.kind.is_namespaced()) => {
                    format!("No resources found in {namespace} namespace.")
                }
                _ => "No resources found".to_owned(),
            });
        }
        let between = if matches!(self.output, Some(Format::Name)) { "" } else { "\n" };
        print(&parts.join(between))
    }

    fn table(
        &self,
        kind: Kind,
        items: &[Value],
        around: &Around,
        headings: bool,
        several: bool,
    ) -> String {
        if matches!(self.output, Some(Format::Name)) {
            return items
                .iter()
                .map(|item| format!("{}/{}\n", kind.full(), name_of(item)))
                .collect::<Vec<_>>()
                .concat();
        }
        let wide = matches!(self.output, Some(Format::Wide));
        let columns: Vec<_> =
            columns(kind).iter().filter(|(_, only_wide, _)| wide || !only_wide).collect();
        let with_namespace = self.place_is_everywhere() && kind.is_namespaced();
        let mut header: Vec<&str> = if with_namespace { vec!["NAMESPACE"] } else { Vec::new() };
        header.extend(columns.iter().map(|(name, ..)| *name));
        header.extend(self.show_labels.then_some("LABELS"));
        let rows: Vec<Vec<String>> = items
            .iter()
            .map(|item| {
                let mut row = Vec::new();
                if with_namespace {
                    row.push(text(item, "/namespace"));
                }
                row.extend(columns.iter().map(|(name, _, cell)| match (*name, several) {
                    ("NAME", true) => format!("{}/{}", kind.full(), cell(item, around)),
                    _ => cell(item, around),
                }));
                row.extend(self.show_labels.then(|| labels(item)));
                row
            })
            .collect();
        output::table(if headings { &header } else { &[] }, &rows)
    }

    fn place_is_everywhere(&self) -> bool {
        self.place.is_everywhere()
    }
}

/// What was printed last of each resource, but for its age.
#[derive(Default)]
struct Shown(BTreeMap<String, String>);

impl Shown {
    fn is_news(&mut self, kind: Kind, item: &Value) -> bool {
        let key = format!("{} {}", kind.word(), text(item, "/id"));
        let text = item.to_string();
        self.0.insert(key, text.clone()).is_none_or(|known| known != text)
    }
}

/// Reads `-l`.
pub(super) fn selector(text: &str) -> Result<Selector, Complaint> {
    Selector::parse(text).map_err(Complaint::Usage)
}

/// Certificates that somebody may have to look at.
pub(super) async fn failed(
    session: &Session,
    namespace: Option<&str>,
    selector: Option<&Selector>,
) -> anyhow::Result<Vec<Value>> {
    let mut found = selected(session, Kind::Certificate, namespace, selector).await?;
    found.retain(|one| {
        ["Failed", "Blocked", "Expired"].contains(&text(one, "/status/phase").as_str())
    });
    Ok(found)
}

/// All resources of a kind that a selector chooses. Only certificates have labels; a resource of a
/// certificate is chosen with it.
pub(super) async fn selected(
    session: &Session,
    kind: Kind,
    namespace: Option<&str>,
    selector: Option<&Selector>,
) -> anyhow::Result<Vec<Value>> {
    let Some(selector) = selector else { return session.list(kind, namespace, &[]).await };
    let selector = selector.to_string();
    let query = [("labelSelector", selector.as_str())];
    let certificates = session.list(Kind::Certificate, namespace, &query).await?;
    let paths: Vec<String> =
        certificates.iter().map(|one| format!("/certificates/{}", text(one, "/id"))).collect();
    let mut items = match kind {
        Kind::Certificate => return Ok(certificates),
        Kind::Request | Kind::Order => session.list(kind, namespace, &[]).await?,
        Kind::Challenge => {
            let mut orders = session.list(Kind::Order, namespace, &[]).await?;
            orders.retain(|order| paths.contains(&text(order, "/certificate")));
            let paths: Vec<String> =
                orders.iter().map(|order| format!("/orders/{}", text(order, "/id"))).collect();
            let mut items = session.list(kind, namespace, &[]).await?;
            items.retain(|one| paths.contains(&text(one, "/order")));
            return Ok(items);
        }
        _ => {
            let problem = format!("{} have no labels to choose by", kind.plural());
            return Err(Complaint::Usage(problem).into());
        }
    };
    items.retain(|one| paths.contains(&text(one, "/certificate")));
    Ok(items)
}

fn labels_of(item: &Value) -> BTreeMap<String, String> {
    let labels = item.get("labels").and_then(Value::as_object).into_iter().flatten();
    labels
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn labels(item: &Value) -> String {
    let labels = labels_of(item);
    let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// Sorts by what is at the path; numbers by their value.
fn sort(found: &mut Found, path: &Path) {
    let kind = found.kind;
    found.items.sort_by_cached_key(|item| {
        let document = super::document::document(kind, item);
        let number = path.values(&document).first().and_then(|value| value.as_i64());
        (number, path.text(&document, " "))
    });
}

/// Whether the server is away, and may come back.
fn is_away(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_away)
}

/// What columns show beside the resources themselves: names of issuers, and of what events are about.
async fn around(session: &Session, found: &[Found]) -> anyhow::Result<Around> {
    let mut issuers = BTreeMap::new();
    let has =
        |kind| found.iter().any(|found: &Found| found.kind == kind && !found.items.is_empty());
    if has(Kind::Request) {
        for one in session.list(Kind::Certificate, None, &[]).await? {
            let path = format!("/certificates/{}", text(&one, "/id"));
            issuers.insert(path, text(&one, "/issuerRef/name"));
        }
    }
    if has(Kind::Order) {
        for one in session.client.list("/issuers", &[]).await? {
            issuers.insert(format!("/issuers/{}", text(&one, "/id")), text(&one, "/name"));
        }
    }
    let mut names = Names::default();
    for event in found.iter().filter(|found| found.kind == Kind::Event).flat_map(|one| &one.items) {
        names.learn(session, event).await;
    }
    Ok(Around { now: now(), issuers, names })
}

fn name_of(item: &Value) -> String {
    let name = text(item, "/name");
    if name.is_empty() { text(item, "/id") } else { name }
}
