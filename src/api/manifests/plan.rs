//! Plans: reads a stream of manifests, and checks everything that can be checked without the database.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::LeftOut;
use super::adopt::{self, Pair};
use crate::api::auth::Principal;
use crate::api::certificates::validate::{Checked, validate};
use crate::api::issuers::check::check;
use crate::api::problem::{ApiError, Faults, FieldCode, FieldError};
use crate::api::{AppState, field, issuers, policies, secrets};
use crate::domain::id::CertificateId;
use crate::domain::issuer::{Acme, Issuer, Kind as IssuerKind};
use crate::domain::policy::Policy;
use crate::manifest::kind::Kind;
use crate::manifest::read::certificate::{self, Wish};
use crate::manifest::read::{
    Foreign, Object, Stream, issuer, policy, refuse_twins, secret, stream,
};
use crate::secret::Secret;
use crate::storage::secrets::SecretEntry;

/// The endpoint that a stream was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// `POST /apply`.
    Apply,
    /// `POST /import`: like apply, with certificates and account keys that exist.
    Import,
}

/// One object to be applied.
pub(super) struct Item {
    pub(super) object: Object,
    pub(super) wanted: Wanted,
}

/// The specification of one object.
pub(super) enum Wanted {
    /// Credentials: the row, and its values as the JSON object that is sealed.
    Secret(SecretEntry, Zeroizing<Vec<u8>>),
    /// An issuer, perhaps with the key of an account that exists.
    Issuer(Box<Issuer>, Option<Secret<Vec<u8>>>),
    /// A policy.
    Policy(Box<Policy>),
    /// A certificate under this identifier, perhaps with what is there of it already.
    Certificate(CertificateId, Box<Wish>, Box<Checked>, Option<Box<Pair>>),
    /// A certificate with its key, until it is known for which Certificate.
    Pair(SecretEntry, Zeroizing<Vec<u8>>),
}

/// What is to be done with a stream.
pub(super) struct Plan {
    pub(super) items: Vec<Item>,
    pub(super) left_out: Vec<LeftOut>,
    /// Whether an item that turns out not to fit the database is left out; else all are refused with it.
    pub(super) takes_what_it_can: bool,
}

/// Reads a stream. All its faults are reported at once, or with what is left out for them.
pub(super) fn read(
    app: &AppState,
    who: &Principal,
    text: &str,
    namespace: &str,
    (purpose, strict): (Purpose, bool),
) -> Result<Plan, ApiError> {
    let mut faults = Faults::default();
    field::namespace(namespace, &mut faults);
    faults.refuse()?;
    let Stream { mut objects, foreign, mut faults } = stream(text)?;
    refuse_twins(&mut objects, namespace);

    // Lists show objects by identifier. Made here, identifiers have the order of the stream.
    let mut wanted: Vec<Option<Wanted>> = Vec::with_capacity(objects.len());
    for object in &mut objects {
        wanted.push(match object.kind {
            Kind::Issuer | Kind::ClusterIssuer => checked_issuer(app, who, object, namespace)?,
            Kind::Certificate => checked_certificate(app, object, namespace)?,
            Kind::Policy => checked_policy(app, object)?,
            // Secrets, which follow.
            _ => None,
        });
    }
    // The namespace of a Secret depends on who refers to it.
    let homes = Homes::of(wanted.iter().flatten(), &app.cluster_namespace);
    for (object, wanted) in objects.iter_mut().zip(&mut wanted) {
        if object.kind == Kind::Secret {
            let home = homes.home(object, namespace);
            *wanted = checked_secret(app, object, &home)?;
        }
    }
    let mut refused = Vec::new();
    let mut items = Vec::with_capacity(objects.len());
    for (object, wanted) in objects.into_iter().zip(wanted) {
        match wanted {
            Some(wanted) if object.is_sound() => items.push(Item { object, wanted }),
            _ => refused.push(object),
        }
    }
    let takes_what_it_can = purpose == Purpose::Import && !strict;
    match purpose {
        Purpose::Import if takes_what_it_can || refused.is_empty() && faults.is_empty() => {
            items = joined(items, &refused, (namespace, &app.cluster_namespace), app.now());
        }
        // The parts of a pair may be missing, so that joining would add wrong faults.
        Purpose::Import => {}
        Purpose::Apply => items.iter_mut().for_each(Item::refuse_pair),
    }
    refused.extend(items.extract_if(.., |item| !item.object.is_sound()).map(|item| item.object));
    let mut left_out = Vec::new();
    if takes_what_it_can {
        left_out.extend(refused.drain(..).map(LeftOut::of));
        left_out.extend(faults.iter().cloned().map(LeftOut::unnamed));
        faults = Faults::default();
    }
    for mut object in refused {
        faults.take(object.take_faults(), |fault| fault);
    }
    for one in foreign {
        if strict {
            faults.take(one.faults, |fault| fault);
        } else {
            left_out.push(one.into());
        }
    }
    faults.in_order().refuse()?;
    Ok(Plan { items, left_out, takes_what_it_can })
}

impl LeftOut {
    /// An object that is refused.
    pub(super) fn of(mut object: Object) -> Self {
        let faults = object.take_faults().in_order();
        let (is_denied, errors) = (faults.is_denied(), faults.iter().cloned().collect());
        let kind = object.kind.title().to_owned();
        Self { kind, namespace: object.namespace, name: object.name, errors, is_denied }
    }

    /// Something of which it is not known what it is.
    fn unnamed(fault: FieldError) -> Self {
        let (kind, name) = (String::new(), String::new());
        Self { kind, namespace: None, name, errors: vec![fault], is_denied: false }
    }
}

impl From<Foreign> for LeftOut {
    fn from(foreign: Foreign) -> Self {
        let Foreign { kind, namespace, name, faults } = foreign;
        let errors = faults.iter().cloned().collect();
        Self { kind, namespace, name, errors, is_denied: faults.is_denied() }
    }
}

/// Adds the faults of a specification to its manifest; returns other errors.
fn noted<T>(
    object: &mut Object,
    place: fn(&str) -> String,
    read: Result<T, ApiError>,
) -> Result<Option<T>, ApiError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(ApiError::Invalid(errors)) => {
            object.located(errors, place);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn checked_issuer(
    app: &AppState,
    who: &Principal,
    object: &mut Object,
    namespace: &str,
) -> Result<Option<Wanted>, ApiError> {
    let Some(spec) = issuer::read(object, namespace) else { return Ok(None) };
    let checked = noted(object, issuer::place, check(&spec, app, who))?;
    let namespace = spec.namespace();
    Ok(checked.map(|()| Wanted::Issuer(Box::new(issuers::new(app, spec, namespace)), None)))
}

fn checked_policy(app: &AppState, object: &mut Object) -> Result<Option<Wanted>, ApiError> {
    let Some(spec) = policy::read(object) else { return Ok(None) };
    let checked = noted(object, policy::place, policies::check::check(&spec))?;
    Ok(checked.map(|checked| Wanted::Policy(Box::new(policies::new(app, spec.name, checked)))))
}

fn checked_certificate(
    app: &AppState,
    object: &mut Object,
    namespace: &str,
) -> Result<Option<Wanted>, ApiError> {
    let Some(wish) = certificate::read(object, namespace) else { return Ok(None) };
    let checked = noted(object, certificate::place, validate(&wish.spec))?;
    let id = CertificateId::generate(app.now());
    Ok(checked.map(|checked| Wanted::Certificate(id, Box::new(wish), Box::new(checked), None)))
}

fn checked_secret(
    app: &AppState,
    object: &mut Object,
    namespace: &str,
) -> Result<Option<Wanted>, ApiError> {
    let Some((spec, is_pair)) = secret::read(object, namespace) else { return Ok(None) };
    let read = noted(object, secret::place, secrets::new(app, &spec))?;
    let wanted = if is_pair { Wanted::Pair } else { Wanted::Secret };
    Ok(read.map(|(entry, values)| wanted(entry, values)))
}

impl Item {
    /// Refuses a certificate whose Secret is refused.
    fn lacks_its_pair(&mut self, secret: &str) {
        let detail = format!(
            "its Secret `{secret}` cannot be imported, and without it would be issued anew; `certwright apply` it if that is meant"
        );
        self.object.fault("/spec/secretName", FieldCode::Conflicting, detail);
    }

    /// Refuses a key pair in `POST /apply`.
    fn refuse_pair(&mut self) {
        if matches!(self.wanted, Wanted::Pair(..)) {
            let detail = "a certificate with its key is not applied but imported: `certwright import`, or POST /import";
            self.object.fault("/type", FieldCode::Unsupported, detail);
        }
    }
}

/// The Secrets that issuers of the stream refer to.
struct Homes<'a> {
    cluster: BTreeSet<String>,
    namespaced: BTreeSet<(String, String)>,
    cluster_namespace: &'a str,
}

/// Namespaces in which cert-manager usually runs, and keeps the Secrets of its `ClusterIssuer`s.
const CERT_MANAGERS_OWN: [&str; 2] = ["cert-manager", "kube-system"];

impl<'a> Homes<'a> {
    fn of<'w>(wanted: impl Iterator<Item = &'w Wanted>, cluster_namespace: &'a str) -> Self {
        let mut homes =
            Self { cluster: BTreeSet::new(), namespaced: BTreeSet::new(), cluster_namespace };
        for one in wanted {
            let Wanted::Issuer(issuer, _) = one else { continue };
            for name in references(&issuer.acme) {
                match issuer.kind {
                    IssuerKind::ClusterIssuer => _ = homes.cluster.insert(name),
                    IssuerKind::Issuer => {
                        _ = homes.namespaced.insert((issuer.namespace.clone(), name));
                    }
                }
            }
        }
        homes
    }

    /// The namespace of a Secret. A Secret to which only a `ClusterIssuer` of the stream refers goes
    /// to the cluster namespace, as with cert-manager.
    fn home(&self, object: &mut Object, default: &str) -> String {
        let given = object.namespace.clone();
        let stated = given.clone().unwrap_or_else(|| default.to_owned());
        let of_cluster_issuer = self.cluster.contains(&object.name)
            && !self.namespaced.contains(&(stated.clone(), object.name.clone()));
        let may_move = given.as_deref().is_none_or(|given| CERT_MANAGERS_OWN.contains(&given));
        if of_cluster_issuer && may_move && stated != self.cluster_namespace {
            let instead = format!(
                "a ClusterIssuer refers to it, so it is kept in the namespace `{}` (`cluster_resource_namespace`)",
                self.cluster_namespace
            );
            object.warn("metadata.namespace", &instead);
            return self.cluster_namespace.to_owned();
        }
        stated
    }
}

/// The names of the Secrets that an issuer refers to.
pub(super) fn references(acme: &Acme) -> BTreeSet<String> {
    fn gather(value: &Value, names: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.get("name").and_then(Value::as_str) {
                        Some(name) if key.ends_with("SecretRef") => {
                            _ = names.insert(name.to_owned());
                        }
                        _ => gather(value, names),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| gather(item, names)),
            _ => {}
        }
    }
    let mut names = BTreeSet::new();
    gather(&serde_json::to_value(acme).unwrap_or_default(), &mut names);
    names
}

/// Objects that take over the same Secret at most: it is parsed anew for each.
const MOST_USES: usize = 16;

/// Joins certificates with their Secrets, and issuers with their account keys. A Secret
/// that was joined is no item of its own any more. A certificate whose Secret is refused is refused with it: without
/// its pair it would be issued anew.
fn joined(
    mut items: Vec<Item>,
    refused: &[Object],
    (namespace, cluster_namespace): (&str, &str),
    now: OffsetDateTime,
) -> Vec<Item> {
    let secrets: BTreeMap<(String, String), usize> = items
        .iter()
        .enumerate()
        .filter_map(|(place, item)| match &item.wanted {
            Wanted::Secret(entry, _) | Wanted::Pair(entry, _) => {
                Some(((entry.namespace.clone(), entry.name.clone()), place))
            }
            _ => None,
        })
        .collect();
    let refused: BTreeSet<(&str, &str)> = refused
        .iter()
        .filter(|object| object.kind == Kind::Secret)
        .map(|object| (object.namespace.as_deref().unwrap_or(namespace), &*object.name))
        .collect();
    let mut taken = BTreeSet::new();
    let mut uses: BTreeMap<usize, usize> = BTreeMap::new();
    for place in 0..items.len() {
        let Some(key) = needed(&items[place], cluster_namespace) else { continue };
        let is_refused = refused.contains(&(&*key.0, &*key.1));
        if is_refused && matches!(items[place].wanted, Wanted::Certificate(..)) {
            items[place].lacks_its_pair(&key.1);
        }
        let Some(from) = secrets.get(&key).copied() else { continue };
        let count = uses.entry(from).or_default();
        *count += 1;
        if *count > MOST_USES {
            let detail = format!(
                "the Secret `{}` is used by more than {MOST_USES} objects of this import; send some of them by themselves",
                key.1
            );
            items[place].object.fault("/spec", FieldCode::Conflicting, detail);
            continue;
        }
        let Ok([source, target]) = items.get_disjoint_mut([from, place]) else { continue };
        if adopt::take(source, target, now) {
            taken.insert(from);
        } else if matches!(target.wanted, Wanted::Certificate(..)) && !source.object.is_sound() {
            target.lacks_its_pair(&key.1);
        }
    }
    for (place, item) in items.iter_mut().enumerate() {
        let is_left = matches!(item.wanted, Wanted::Pair(..)) && !taken.contains(&place);
        if is_left && item.object.is_sound() {
            let detail =
                "no Certificate of this import that can be taken has it as its `secretName`";
            item.object.fault("/metadata/name", FieldCode::Required, detail);
        }
    }
    let mut place = 0..;
    items.retain(|_| place.next().is_none_or(|place| !taken.contains(&place)));
    items
}

/// The Secret, by namespace and name, whose contents an item takes over if it is in the import.
fn needed(item: &Item, cluster_namespace: &str) -> Option<(String, String)> {
    match &item.wanted {
        Wanted::Certificate(_, wish, checked, _) => {
            Some((checked.namespace.clone(), wish.secret_name.clone()?))
        }
        Wanted::Issuer(issuer, _) => {
            let namespace = issuer.secret_namespace(cluster_namespace).to_owned();
            Some((namespace, issuer.acme.private_key_secret_ref.as_ref()?.name.clone()))
        }
        Wanted::Secret(..) | Wanted::Pair(..) | Wanted::Policy(..) => None,
    }
}
