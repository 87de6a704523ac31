//! What the double knows.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// A DNS record as the API keeps it.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    pub id: String,
    pub kind: String,
    pub name: String,
    pub content: String,
    pub ttl: u32,
    pub comment: Option<String>,
    /// When it was written through the API; what is there anyhow can be seen at once.
    pub(super) written_at: Option<Instant>,
}

/// How often each kind of call was made; refused ones count, as they do at Cloudflare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    pub zones: u32,
    pub list: u32,
    pub create: u32,
    pub delete: u32,
    pub batch: u32,
    pub verify: u32,
}

impl Calls {
    pub fn total(self) -> u32 {
        self.zones + self.list + self.create + self.delete + self.batch + self.verify
    }
}

pub(super) struct ZoneData {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) editable: bool,
    pub(super) more_servers: Vec<String>,
    /// Records that it may hold.
    pub(super) room: usize,
    pub(super) records: Vec<StoredRecord>,
}

impl ZoneData {
    pub(super) fn new(id: String, name: &str) -> Self {
        let (more_servers, records) = (Vec::new(), Vec::new());
        let room = 3_500;
        Self { id, name: name.to_owned(), editable: true, more_servers, room, records }
    }
}

/// How names are written in answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Names {
    /// A-labels, in lower case.
    #[default]
    Plain,
    /// U-labels; filters know no others.
    International,
    /// In upper case.
    Upper,
    /// With a final dot.
    Absolute,
}

impl Names {
    pub(super) fn written(self, name: &str) -> String {
        match self {
            Self::Plain => name.to_owned(),
            Self::International => idna::domain_to_unicode(name).0,
            Self::Upper => name.to_uppercase(),
            Self::Absolute => format!("{name}."),
        }
    }
}

#[derive(Default)]
pub(super) struct Faults {
    /// Calls to come are refused so, with a status and a code.
    pub(super) refusals: VecDeque<(u16, u32)>,
    /// The token is not accepted any more.
    pub(super) revoked: bool,
    /// Every record is refused so.
    pub(super) no_record: Option<(u16, u32)>,
    pub(super) limited: (u32, String),
    pub(super) lost_answers: u32,
    pub(super) html: u32,
    /// Calls until everything is refused, and for how long then.
    pub(super) block: Option<(u32, Duration)>,
    pub(super) blocked_until: Option<Instant>,
}

pub(super) struct State {
    pub(super) zones: Vec<ZoneData>,
    pub(super) zones_readable: bool,
    pub(super) cnames: HashMap<String, String>,
    /// CAA records: flags, tag and value.
    pub(super) caa: HashMap<String, Vec<(u8, String, String)>>,
    /// Names that are answered with SERVFAIL, unless validation is disabled.
    pub(super) bogus: HashSet<String>,
    /// Names that are answered with SERVFAIL in any case.
    pub(super) unanswered: HashSet<String>,
    /// Questions for the CAA records of a name.
    pub(super) caa_asked: HashMap<String, u32>,
    pub(super) addresses: HashMap<String, Vec<IpAddr>>,
    /// Addresses of names that move with every question for them.
    pub(super) moving: HashMap<String, VecDeque<IpAddr>>,
    /// Questions for the IPv4 addresses of a name.
    pub(super) asked: HashMap<String, u32>,
    pub(super) dns_delay: Duration,
    pub(super) calls: Calls,
    /// When each of them came.
    pub(super) called: Vec<Instant>,
    pub(super) names: Names,
    /// Whether answers have odd members that nobody needs.
    pub(super) odd: bool,
    pub(super) faults: Faults,
    /// Records that were ever written through the API.
    pub(super) written: u32,
    /// Refusals of a record that is there already.
    pub(super) twins: u32,
    last_id: u128,
}

impl State {
    /// Notes a question for IPv4 addresses, and moves a name that moves.
    pub(super) fn note_question(&mut self, name: &str) {
        *self.asked.entry(name.to_owned()).or_default() += 1;
        if let Some(next) = self.moving.get_mut(name).and_then(VecDeque::pop_front) {
            self.addresses.insert(name.to_owned(), vec![next]);
        }
    }

    /// A new id in Cloudflare's form: 32 hexadecimal digits.
    pub(super) fn next_id(&mut self) -> String {
        self.last_id += 1;
        format!("{:032x}", 0xc10d_f1a7_u128 << 96 | self.last_id)
    }

    pub(super) fn zone_named(&mut self, name: &str) -> &mut ZoneData {
        self.zones.iter_mut().find(|zone| zone.name == name).expect("the double has this zone")
    }

    pub(super) fn zone_with_id(&mut self, id: &str) -> Option<&mut ZoneData> {
        self.zones.iter_mut().find(|zone| zone.id == id)
    }

    /// The zone that answers for a name: the longest that holds it.
    pub(super) fn zone_of(&self, name: &str) -> Option<&ZoneData> {
        self.zones
            .iter()
            .filter(|zone| name == zone.name || name.ends_with(&format!(".{}", zone.name)))
            .max_by_key(|zone| zone.name.len())
    }
}

pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn with_zones(names: &[&str]) -> Self {
        let mut state = State {
            zones: Vec::new(),
            zones_readable: true,
            cnames: HashMap::new(),
            caa: HashMap::new(),
            bogus: HashSet::new(),
            unanswered: HashSet::new(),
            caa_asked: HashMap::new(),
            addresses: HashMap::new(),
            moving: HashMap::new(),
            asked: HashMap::new(),
            dns_delay: Duration::ZERO,
            calls: Calls::default(),
            called: Vec::new(),
            names: Names::default(),
            odd: false,
            faults: Faults::default(),
            written: 0,
            twins: 0,
            last_id: 0,
        };
        for name in names {
            let id = state.next_id();
            state.zones.push(ZoneData::new(id, name));
        }
        Self(Mutex::new(state))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}
