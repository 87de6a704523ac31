//! `certwright get`

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::columns::{Around, columns};
use super::exit::Complaint;
use super::output::{self, note, now, print, text};
use super::remote::{Remote, Session, Where, run};
use super::selector::{self, Selector};
use super::targets::targets;
use crate::manifest::kind::Kind;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  certwright get certificates                        what is wanted, in the namespace `default`
  certwright get certificate,certificaterequest -n team
  certwright get order,challenge -A -o wide
  certwright get cert www -o yaml
  certwright get certs -l team=web --watch
  certwright get events

Kinds: certificates (cert, certs), certificaterequests (cr, crs, requests), orders, challenges,
issuers (iss), clusterissuers (ciss), policies (pol), secrets, webhooks, events.")]
pub(super) struct Get {
    /// KIND, several KINDs joined by commas, KIND NAME…, or KIND/NAME…
    #[arg(required = true, value_name = "KIND[,KIND…] [NAME…]")]
    what: Vec<String>,
    #[command(flatten)]
    place: Where,
    /// Labels that certificates must have, such as `team=web,tier!=test`
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// How to print it
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Go on printing what changes, until interrupted
    #[arg(short, long)]
    watch: bool,
    /// Leave the headings out
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// More columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// KIND/NAME, a line for each
    Name,
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
        let selector = self.selector.as_deref().map(selector::parse).transpose()?;
        let named = wanted.iter().any(|(_, name)| name.is_some());
        if named && selector.is_some() {
            let problem = "a selector chooses among all; it cannot stand beside names";
            return Err(Complaint::Usage(problem.to_owned()).into());
        }
        let found = self.find(session, &wanted, selector.as_ref()).await?;
        let around = Around { now: now(), issuers: issuers(session, &found).await? };
        let mut shown = Shown::default();
        match self.output {
            Some(Output::Json) => print(&output::json(&document(&found, named)))?,
            Some(Output::Yaml) => print(&output::yaml(&document(&found, named)))?,
            _ => self.tables(session, &found, &around, &mut shown)?,
        }
        if !self.watch {
            return Ok(());
        }
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.tick().await;
        loop {
            tick.tick().await;
            let found = self.find(session, &wanted, selector.as_ref()).await?;
            let around = Around { now: now(), issuers: issuers(session, &found).await? };
            for Found { kind, items } in &found {
                for item in items.iter().filter(|item| shown.is_news(*kind, item)) {
                    let line = match self.output {
                        Some(Output::Json) => output::json(item),
                        Some(Output::Yaml) => format!("---\n{}", output::yaml(item)),
                        _ => self.table(
                            *kind,
                            std::slice::from_ref(item),
                            &around,
                            false,
                            found.len() > 1,
                        ),
                    };
                    print(&line)?;
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
                None => selected(session, *kind, namespace.as_deref(), selector).await?,
            };
            match found.iter_mut().find(|known| known.kind == *kind) {
                Some(known) => known.items.extend(items),
                None => found.push(Found { kind: *kind, items }),
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
        let between = if self.output == Some(Output::Name) { "" } else { "\n" };
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
        if self.output == Some(Output::Name) {
            return items
                .iter()
                .map(|item| format!("{}/{}\n", kind.full(), name_of(item)))
                .collect::<Vec<_>>()
                .concat();
        }
        let wide = self.output == Some(Output::Wide);
        let columns: Vec<_> =
            columns(kind).iter().filter(|(_, only_wide, _)| wide || !only_wide).collect();
        let with_namespace = self.place_is_everywhere() && kind.is_namespaced();
        let mut header: Vec<&str> = if with_namespace { vec!["NAMESPACE"] } else { Vec::new() };
        header.extend(columns.iter().map(|(name, ..)| *name));
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

/// All resources of a kind that a selector chooses. Only certificates have labels; a resource of a
/// certificate is chosen with it.
pub(super) async fn selected(
    session: &Session,
    kind: Kind,
    namespace: Option<&str>,
    selector: Option<&Selector>,
) -> anyhow::Result<Vec<Value>> {
    let Some(selector) = selector else { return session.list(kind, namespace, &[]).await };
    let label = selector.for_server();
    let query: Vec<_> = label.iter().map(|label| ("label", label.as_str())).collect();
    let mut certificates = session.list(Kind::Certificate, namespace, &query).await?;
    certificates.retain(|one| selector.fits(one));
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

/// Names of issuers, if a column shows them.
async fn issuers(session: &Session, found: &[Found]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut names = BTreeMap::new();
    let has =
        |kind| found.iter().any(|found: &Found| found.kind == kind && !found.items.is_empty());
    if has(Kind::Request) {
        for one in session.list(Kind::Certificate, None, &[]).await? {
            let path = format!("/certificates/{}", text(&one, "/id"));
            names.insert(path, text(&one, "/issuerRef/name"));
        }
    }
    if has(Kind::Order) {
        for one in session.client.list("/issuers", &[]).await? {
            names.insert(format!("/issuers/{}", text(&one, "/id")), text(&one, "/name"));
        }
    }
    Ok(names)
}

fn name_of(item: &Value) -> String {
    let name = text(item, "/name");
    if name.is_empty() { text(item, "/id") } else { name }
}

/// Prints one named resource alone, everything else as a list.
fn document(found: &[Found], named: bool) -> Value {
    let mut items = found.iter().flat_map(|found| {
        found.items.iter().map(|item| {
            let mut item = item.clone();
            if let Value::Object(map) = &mut item {
                map.entry("kind").or_insert(found.kind.title().into());
            }
            item
        })
    });
    match (named, items.clone().count()) {
        (true, 1) => items.next().unwrap_or_default(),
        _ => json!({"kind": "List", "items": items.collect::<Vec<_>>()}),
    }
}
