//! Entries of the audit log: who did what, from where, on what, and with which outcome; and the chain over them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use aws_lc_rs::hmac;
use serde_json::json;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::id::AuditId;
use super::principal::{PrincipalKind, PrincipalRef};
use super::words::words;
use serde::{Deserialize, Serialize};

words! {
    /// How it ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
    #[schema(as = AuditOutcome)]
    pub serde enum Outcome {
        /// It was done.
        Allowed = "allowed",
        /// The caller was not authenticated, or lacks the right.
        Refused = "refused",
        /// The service could not do it, or does not know whether it was done.
        Failed = "failed",
    }
}

/// A request, as its entries tell of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Call {
    /// The client's address.
    pub from: Option<IpAddr>,
    /// The collection that the request's address begins with: `certificates`; empty for `/apply`.
    pub collection: String,
    /// What is done there: `create`, `rotate`.
    pub verb: String,
    /// `collection/id`, as far as the request's address says it; else empty.
    pub resource: String,
    pub request_id: String,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: Uuid,
    pub at: OffsetDateTime,
    /// `None`: nobody was authenticated.
    pub principal: Option<PrincipalRef>,
    /// The client's address.
    pub from: Option<String>,
    /// `certificates.create`.
    pub action: String,
    /// `certificates/<id>`; empty: none.
    pub resource: String,
    /// Empty: none.
    pub namespace: String,
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub request_id: String,
    /// Times that it happened; what is refused again and again is counted.
    pub count: i64,
}

impl Entry {
    /// Of what no request asked for: a command at the database itself, or the service.
    pub fn without_request(
        kind: PrincipalKind,
        name: &str,
        action: &str,
        reason: String,
        at: OffsetDateTime,
    ) -> Self {
        Self {
            id: AuditId::generate(at).0,
            at,
            principal: Some(PrincipalRef { kind, id: None, name: name.to_owned() }),
            from: None,
            action: action.to_owned(),
            resource: String::new(),
            namespace: String::new(),
            outcome: Outcome::Allowed,
            reason: Some(reason),
            request_id: String::new(),
            count: 1,
        }
    }
}

/// The place of an entry in the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// From 1 on, without a gap.
    pub seq: i64,
    /// The hash of the seal before; of the first one [`BEGINNING`].
    pub previous: Vec<u8>,
    /// HMAC-SHA-256.
    pub hash: Vec<u8>,
}

/// What the first seal has before it.
pub const BEGINNING: [u8; 32] = [0; 32];

/// The last seal that is known: all before it follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub seq: i64,
    pub hash: Vec<u8>,
}

/// As certwright prints heads, and takes them: `1234:9f86…`.
impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, hexadecimal(&self.hash))
    }
}

impl FromStr for Head {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (seq, digits) = text.split_once(':')?;
            let (pairs, []) = digits.as_bytes().as_chunks::<2>() else { return None };
            let byte = |pair: &[u8; 2]| {
                let digit = |at: u8| char::from(at).to_digit(16);
                u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
            };
            let hash: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
            let seq = seq.parse().ok().filter(|seq| *seq >= 0)?;
            (hash.len() == BEGINNING.len()).then_some(Self { seq, hash })
        };
        read()
            .ok_or("a head is written SEQ:HASH, as the log and `certwright audit verify` print it")
    }
}

/// Bytes in hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Where the chain begins, once what is before was removed: the last seal of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    pub head: Head,
    /// When it was removed.
    pub at: OffsetDateTime,
    /// HMAC-SHA-256.
    pub mac: Vec<u8>,
}

/// The key of the chain. Whoever only writes the database cannot make a seal.
pub struct ChainKey(hmac::Key);

impl Head {
    /// The head of an empty log.
    pub fn beginning() -> Self {
        Self { seq: 0, hash: BEGINNING.to_vec() }
    }
}

impl ChainKey {
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The seal of an entry behind `head`.
    pub fn seal(&self, head: &Head, entry: &Entry) -> Seal {
        let seq = head.seq + 1;
        let hash = self.hash(seq, &head.hash, entry);
        Seal { seq, previous: head.hash.clone(), hash }
    }

    /// The checkpoint of a log that begins behind `head` from now on.
    pub fn checkpoint(&self, head: Head, at: OffsetDateTime) -> Checkpoint {
        let tag = hmac::sign(&self.0, checkpoint_text(&head, at).as_bytes());
        Checkpoint { head, at, mac: tag.as_ref().to_vec() }
    }

    /// Whether this key has made the checkpoint.
    pub fn vouches_for(&self, Checkpoint { head, at, mac }: &Checkpoint) -> bool {
        hmac::verify(&self.0, checkpoint_text(head, *at).as_bytes(), mac).is_ok()
    }

    fn hash(&self, seq: i64, previous: &[u8], entry: &Entry) -> Vec<u8> {
        let text = [previous, canonical(seq, entry).as_bytes()].concat();
        hmac::sign(&self.0, &text).as_ref().to_vec()
    }
}

/// All of a checkpoint as one text, which no entry of the chain has.
fn checkpoint_text(head: &Head, at: OffsetDateTime) -> String {
    json!(["checkpoint", head.to_string(), milliseconds(at)]).to_string()
}

fn milliseconds(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// All of an entry as one text; no two entries have the same.
fn canonical(seq: i64, entry: &Entry) -> String {
    let Entry { id, at, principal, from, action, resource, namespace, .. } = entry;
    let Entry { outcome, reason, request_id, count, .. } = entry;
    let milliseconds = milliseconds(*at);
    json!([
        seq,
        id,
        milliseconds,
        principal,
        from,
        action,
        resource,
        namespace,
        outcome,
        reason,
        request_id,
        count
    ])
    .to_string()
}

/// What is wrong with a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Break {
    #[error("seal {0} is missing: entries were removed")]
    Gap(i64),
    #[error("seal {0} does not follow from the one before it: seals were changed or reordered")]
    Unlinked(i64),
    #[error("the entry of seal {0} is missing: it was removed")]
    NoEntry(i64),
    #[error("entry {seq} ({id}) is not what was sealed: it was changed, or sealed by another key")]
    Changed { seq: i64, id: Uuid },
    #[error("the log ends at {ends}, before the known head {known}: its tail was cut off")]
    CutTail { ends: i64, known: i64 },
    #[error(
        "the checkpoint at seal {0}, where a pruned log begins, was not made by `certwright audit prune`, or was changed"
    )]
    Checkpoint(i64),
    #[error("seal {0} is not the known head: the log was written anew")]
    OtherHead(i64),
}

/// Goes along a chain, seal by seal.
pub struct Walk<'k> {
    key: &'k ChainKey,
    head: Head,
    /// The head that somebody has kept elsewhere.
    known: Option<Head>,
}

impl<'k> Walk<'k> {
    /// Begins at the checkpoint, if the beginning was pruned.
    pub fn new(
        key: &'k ChainKey,
        checkpoint: Option<Checkpoint>,
        known: Option<Head>,
    ) -> Result<Self, Break> {
        let Some(checkpoint) = checkpoint else {
            return Ok(Self { key, head: Head::beginning(), known });
        };
        let Head { seq, .. } = checkpoint.head;
        if !key.vouches_for(&checkpoint) {
            return Err(Break::Checkpoint(seq));
        }
        if known.as_ref().is_some_and(|it| it.seq == seq && *it != checkpoint.head) {
            return Err(Break::OtherHead(seq));
        }
        Ok(Self { key, head: checkpoint.head, known })
    }

    /// The last seal so far.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Takes the next seal, with its entry.
    pub fn step(&mut self, seal: &Seal, entry: Option<&Entry>) -> Result<(), Break> {
        let expected = self.head.seq + 1;
        if seal.seq != expected {
            return Err(Break::Gap(expected));
        }
        if seal.previous != self.head.hash {
            return Err(Break::Unlinked(seal.seq));
        }
        let entry = entry.ok_or(Break::NoEntry(seal.seq))?;
        if self.key.seal(&self.head, entry).hash != seal.hash {
            return Err(Break::Changed { seq: seal.seq, id: entry.id });
        }
        if self.known.as_ref().is_some_and(|it| it.seq == seal.seq && it.hash != seal.hash) {
            return Err(Break::OtherHead(seal.seq));
        }
        self.head = Head { seq: seal.seq, hash: seal.hash.clone() };
        Ok(())
    }

    /// The head, at the end of the log.
    pub fn end(self) -> Result<Head, Break> {
        match self.known {
            Some(known) if known.seq > self.head.seq => {
                Err(Break::CutTail { ends: self.head.seq, known: known.seq })
            }
            _ => Ok(self.head),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    type Deed = fn(&mut Vec<(Seal, Entry)>);

    fn entry(n: u128) -> Entry {
        Entry {
            id: Uuid::from_u128(n),
            at: datetime!(2026-11-24 12:00 UTC),
            principal: None,
            from: Some("192.0.2.1".into()),
            action: "certificates.create".into(),
            resource: format!("certificates/{n}"),
            namespace: "default".into(),
            outcome: Outcome::Allowed,
            reason: None,
            request_id: "r".into(),
            count: 1,
        }
    }

    fn chain(key: &ChainKey, length: u128) -> Vec<(Seal, Entry)> {
        let mut head = Head::beginning();
        let sealed = (1..=length).map(|n| {
            let seal = key.seal(&head, &entry(n));
            head = Head { seq: seal.seq, hash: seal.hash.clone() };
            (seal, entry(n))
        });
        sealed.collect()
    }

    fn walk(key: &ChainKey, chain: &[(Seal, Entry)], known: Option<Head>) -> Result<Head, Break> {
        let mut walk = Walk::new(key, None, known)?;
        for (seal, entry) in chain {
            walk.step(seal, Some(entry))?;
        }
        walk.end()
    }

    #[test]
    fn a_whole_chain_ends_at_its_head() {
        let key = ChainKey::new(b"key");
        let chain = chain(&key, 4);
        let head = Head { seq: 4, hash: chain[3].0.hash.clone() };
        assert_eq!(walk(&key, &chain, Some(head.clone())), Ok(head));
        assert_eq!(walk(&key, &[], None), Ok(Head::beginning()));
    }

    #[test]
    fn whatever_was_done_to_a_chain_is_found() {
        let key = ChainKey::new(b"key");
        let whole = chain(&key, 4);
        let head = Head { seq: 4, hash: whole[3].0.hash.clone() };
        let id = Uuid::from_u128(2);
        let deeds: [(Deed, Break); 7] = [
            (|chain| chain[1].1.action = "x".into(), Break::Changed { seq: 2, id }),
            (|chain| chain[1].1.count = 2, Break::Changed { seq: 2, id }),
            (|chain| chain[1].0.hash[0] ^= 1, Break::Changed { seq: 2, id }),
            (|chain| drop(chain.remove(1)), Break::Gap(2)),
            (|chain| chain.swap(1, 2), Break::Gap(2)),
            (|chain| chain[1].0.previous[0] ^= 1, Break::Unlinked(2)),
            (|chain| drop(chain.pop()), Break::CutTail { ends: 3, known: 4 }),
        ];
        for (place, (deed, found)) in deeds.into_iter().enumerate() {
            let mut chain = whole.clone();
            deed(&mut chain);
            assert_eq!(walk(&key, &chain, Some(head.clone())), Err(found), "deed {place}");
        }
        let mut swapped = whole.clone();
        let (second, third) = (swapped[1].1.clone(), swapped[2].1.clone());
        (swapped[1].1, swapped[2].1) = (third, second);
        let found = Break::Changed { seq: 2, id: Uuid::from_u128(3) };
        assert_eq!(walk(&key, &swapped, None), Err(found));
    }

    #[test]
    fn a_pruned_chain_begins_at_its_checkpoint_and_at_no_other() {
        let (key, at) = (ChainKey::new(b"key"), datetime!(2026-11-24 12:00 UTC));
        let whole = chain(&key, 4);
        let head_of = |at: usize| Head { seq: whole[at].0.seq, hash: whole[at].0.hash.clone() };
        let checkpoint = key.checkpoint(head_of(1), at);
        let walk = |checkpoint: &Checkpoint, known: Option<Head>, from: usize| {
            let mut walk = Walk::new(&key, Some(checkpoint.clone()), known)?;
            for (seal, entry) in &whole[from..] {
                walk.step(seal, Some(entry))?;
            }
            walk.end()
        };

        assert_eq!(walk(&checkpoint, None, 2), Ok(head_of(3)));
        assert_eq!(walk(&checkpoint, Some(head_of(1)), 2), Ok(head_of(3)));
        assert_eq!(walk(&checkpoint, Some(head_of(0)), 2), Ok(head_of(3)), "it was pruned");
        let other = Head { seq: 2, hash: vec![7; 32] };
        assert_eq!(walk(&checkpoint, Some(other), 2), Err(Break::OtherHead(2)));
        assert_eq!(
            walk(&checkpoint, None, 3),
            Err(Break::Gap(3)),
            "more than was pruned is missing"
        );
        let moved = Checkpoint { head: head_of(2), ..checkpoint.clone() };
        assert_eq!(walk(&moved, None, 3), Err(Break::Checkpoint(3)));
        let dated = Checkpoint { at: at + time::Duration::days(1), ..checkpoint.clone() };
        assert_eq!(walk(&dated, None, 2), Err(Break::Checkpoint(2)));
        let theirs = ChainKey::new(b"other").checkpoint(head_of(1), at);
        assert_eq!(walk(&theirs, None, 2), Err(Break::Checkpoint(2)));
    }

    #[test]
    fn a_head_is_read_as_it_is_written() {
        let head = Head { seq: 12, hash: (0..32).map(|byte| byte * 7).collect() };
        assert_eq!(head.to_string().parse(), Ok(head));
        for strange in
            ["", "12", "12:", "12:zz", "-1:00", "12:0", &format!("12:{}", "é".repeat(32))]
        {
            assert!(strange.parse::<Head>().is_err(), "{strange}");
        }
    }

    #[test]
    fn nobody_without_the_key_makes_a_chain() {
        let (ours, theirs) = (ChainKey::new(b"key"), ChainKey::new(b"other"));
        let found = walk(&ours, &chain(&theirs, 1), None);
        assert!(matches!(found, Err(Break::Changed { seq: 1, .. })), "{found:?}");
    }

    #[test]
    fn a_log_that_was_written_anew_has_another_head() {
        let key = ChainKey::new(b"key");
        let known = Head { seq: 2, hash: vec![7; 32] };
        assert_eq!(walk(&key, &chain(&key, 3), Some(known)), Err(Break::OtherHead(2)));
    }
}
