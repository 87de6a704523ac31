//! A double of Cloudflare: its v4 DNS API as strict as the documentation, and the DNS of its zones.
//!
//! What the API writes is what the DNS answers, over UDP and TCP on one port of 127.0.0.1. Every
//! name below a zone that has no address of its own is at 127.0.0.1, so that a CA under test finds
//! a web server there.

mod api;
mod dns;
mod gate;
mod records;
mod state;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use self::dns::Authority;
pub use self::state::{Calls, Names, StoredRecord};
use self::state::{Shared, ZoneData};

/// The token that the double accepts.
const TOKEN: &str = "double-token-0123456789abcdefghijklmnopqr";

/// A running double; it ends when dropped.
pub struct Cloudflare {
    state: Arc<Shared>,
    api: SocketAddr,
    dns: SocketAddr,
    token: &'static str,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Cloudflare {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Cloudflare {
    /// Starts with these zones, active and covered by the token.
    pub async fn start(zones: &[&str]) -> Self {
        let state = Arc::new(Shared::with_zones(zones));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = listener.local_addr().unwrap();
        let router = api::router(Arc::clone(&state));
        let http = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });

        let (udp, tcp) = bind_both().await;
        let dns = udp.local_addr().unwrap();
        let mut server = Server::new(Authority(Arc::clone(&state)));
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(10), 64);
        let names = tokio::spawn(async move { drop(server.block_until_done().await) });

        Self { state, api, dns, token: TOKEN, tasks: vec![http, names] }
    }

    /// Base URL of the API.
    pub fn base_url(&self) -> String {
        format!("http://{}/client/v4", self.api)
    }

    /// Where the DNS listens, UDP and TCP.
    pub fn dns_addr(&self) -> SocketAddr {
        self.dns
    }

    /// The token that it accepts.
    pub fn token(&self) -> &'static str {
        self.token
    }

    /// The id of a zone.
    pub fn zone_id(&self, zone: &str) -> String {
        self.zone(zone, |zone| zone.id.clone())
    }

    /// The TXT records of a zone, in the order of writing.
    pub fn records(&self, zone: &str) -> Vec<StoredRecord> {
        self.zone(zone, |zone| {
            zone.records.iter().filter(|record| record.kind == "TXT").cloned().collect()
        })
    }

    /// How often each kind of call was made since the last [`Self::forget_calls`].
    pub fn calls(&self) -> Calls {
        self.state.lock().calls
    }

    /// Starts counting calls anew.
    pub fn forget_calls(&self) {
        let mut state = self.state.lock();
        (state.calls, state.called) = (Calls::default(), Vec::new());
    }

    /// When each of these calls came.
    pub fn called(&self) -> Vec<tokio::time::Instant> {
        self.state.lock().called.clone()
    }

    /// Adds a TXT record that somebody else wrote; returns its id.
    pub fn seed_txt(&self, zone: &str, name: &str, value: &str, comment: Option<&str>) -> String {
        let mut state = self.state.lock();
        let id = state.next_id();
        let record = StoredRecord {
            id: id.clone(),
            kind: "TXT".to_owned(),
            name: name.to_owned(),
            content: format!("\"{value}\""),
            ttl: 60,
            comment: comment.map(ToOwned::to_owned),
            written_at: None,
        };
        state.zone_named(zone).records.push(record);
        id
    }

    /// Removes a TXT record behind everybody's back.
    pub fn remove_record(&self, zone: &str, id: &str) {
        self.zone(zone, |zone| zone.records.retain(|record| record.id != id));
    }

    /// Sets a CNAME in the DNS.
    pub fn set_cname(&self, name: &str, target: &str) {
        self.state.lock().cnames.insert(name.to_owned(), target.to_owned());
    }

    /// Sets the CAA records of a name, as zone files have them: flags, tag and value.
    pub fn set_caa(&self, name: &str, records: &[(u8, &str, &str)]) {
        let owned = |(flags, tag, value): &(u8, &str, &str)| {
            (*flags, (*tag).to_owned(), (*value).to_owned())
        };
        let records = records.iter().map(owned).collect();
        self.state.lock().caa.insert(name.to_owned(), records);
    }

    /// How often somebody asked for the CAA records of a name.
    pub fn caa_asked(&self, name: &str) -> u32 {
        self.state.lock().caa_asked.get(name).copied().unwrap_or_default()
    }

    /// Whether the signatures of a name are bogus for its resolver, which validates.
    pub fn set_bogus(&self, name: &str) {
        self.state.lock().bogus.insert(name.to_owned());
    }

    /// Has the questions for a name answered with SERVFAIL.
    pub fn answer_nothing(&self, name: &str) {
        self.state.lock().unanswered.insert(name.to_owned());
    }

    /// Sets the addresses of a name; none at all is possible too.
    pub fn set_addresses(&self, name: &str, addresses: &[IpAddr]) {
        self.state.lock().addresses.insert(name.to_owned(), addresses.to_vec());
    }

    /// Has a name move: each question for its IPv4 address is answered with the next of these.
    pub fn set_moving(&self, name: &str, addresses: &[IpAddr]) {
        self.state.lock().moving.insert(name.to_owned(), addresses.iter().copied().collect());
    }

    /// How often somebody asked for the IPv4 address of a name.
    pub fn asked(&self, name: &str) -> u32 {
        self.state.lock().asked.get(name).copied().unwrap_or_default()
    }

    /// Adds a name server to a zone; `ns.ZONE` at 127.0.0.1 is always there.
    pub fn add_nameserver(&self, zone: &str, server: &str, address: IpAddr) {
        self.zone(zone, |zone| zone.more_servers.push(server.to_owned()));
        self.set_addresses(server, &[address]);
    }

    /// Records appear in the DNS so long after they were written; also those that were written already.
    pub fn set_dns_delay(&self, delay: Duration) {
        self.state.lock().dns_delay = delay;
    }

    /// What is written does not appear in the DNS, until [`Self::show_records`].
    pub fn hide_records(&self) {
        self.set_dns_delay(Duration::MAX);
    }

    /// Whatever is written can be seen at once.
    pub fn show_records(&self) {
        self.set_dns_delay(Duration::ZERO);
    }

    /// The token is not accepted any more, or is again.
    pub fn revoke_token(&self, revoked: bool) {
        self.state.lock().faults.revoked = revoked;
    }

    /// The token may see the zone, but not edit its records.
    pub fn forbid_edits(&self, zone: &str) {
        self.zone(zone, |zone| zone.editable = false);
    }

    /// The token may edit the zone's records again.
    pub fn allow_edits(&self, zone: &str) {
        self.zone(zone, |zone| zone.editable = true);
    }

    /// The token may not list zones.
    pub fn forbid_zone_listing(&self) {
        self.state.lock().zones_readable = false;
    }

    /// Gives a zone another id, as when it was removed and added again.
    pub fn recreate_zone(&self, zone: &str) {
        let mut state = self.state.lock();
        let id = state.next_id();
        let zone = state.zone_named(zone);
        zone.id = id;
        zone.records.clear();
    }

    /// Adds a zone.
    pub fn add_zone(&self, name: &str) {
        let mut state = self.state.lock();
        let id = state.next_id();
        state.zones.push(ZoneData::new(id, name));
    }

    /// The next calls are refused with 429 and this `Retry-After`.
    pub fn limit_next(&self, calls: u32, retry_after: &str) {
        self.state.lock().faults.limited = (calls, retry_after.to_owned());
    }

    /// The next writing calls do their work and then answer 500.
    pub fn fail_after_writing(&self, calls: u32) {
        self.state.lock().faults.lost_answers = calls;
    }

    /// After so many more calls everything is refused with 429 for a time, as Cloudflare does it.
    pub fn block_after(&self, calls: u32, time: Duration) {
        self.state.lock().faults.block = Some((calls, time));
    }

    /// The zone holds no more records than this.
    pub fn set_room(&self, zone: &str, records: usize) {
        self.zone(zone, |zone| zone.room = records);
    }

    /// The next calls are refused so, with a status and a code.
    pub fn refuse_next(&self, refusals: impl IntoIterator<Item = (u16, u32)>) {
        self.state.lock().faults.refusals.extend(refusals);
    }

    /// Every record is refused so from now on; none with `None`.
    pub fn refuse_records(&self, refusal: Option<(u16, u32)>) {
        self.state.lock().faults.no_record = refusal;
    }

    /// How names are written in answers from now on.
    pub fn write_names(&self, names: Names) {
        self.state.lock().names = names;
    }

    /// From now on, answers have odd members that nobody needs.
    pub fn answer_oddly(&self) {
        self.state.lock().odd = true;
    }

    /// Records that were ever written through the API.
    pub fn written(&self) -> u32 {
        self.state.lock().written
    }

    /// How often a record was refused because it is there already.
    pub fn twins(&self) -> u32 {
        self.state.lock().twins
    }

    /// The next calls are answered 502 in HTML, and do nothing.
    pub fn answer_html(&self, calls: u32) {
        self.state.lock().faults.html = calls;
    }

    fn zone<T>(&self, name: &str, f: impl FnOnce(&mut ZoneData) -> T) -> T {
        f(self.state.lock().zone_named(name))
    }
}

/// One port for both transports: the kernel gives one for UDP, and TCP may have it taken.
async fn bind_both() -> (UdpSocket, TcpListener) {
    for _ in 0..50 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            return (udp, tcp);
        }
    }
    panic!("no port is free for both UDP and TCP");
}
