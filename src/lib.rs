//! certwright: certificate issuance as an HTTP API.
//!
//! The layers, from the inside out; `tests/integration/architecture.rs` holds who may use whom:
//!
//! * [`domain`] and [`clock`]: what the service knows, as values and pure state machines
//! * [`secret`]: secrets in memory and sealed at rest
//! * [`telemetry`]: the log, the metrics and the traces, which every layer writes to
//! * `validation`, `view`: faults of what clients write, and the shapes of what they write and see
//! * [`storage`]: everything it remembers, on SQLite or PostgreSQL
//! * `acme`: signatures, nonces and problem documents, for a client and a server of ACME
//! * [`ca`], [`solver`], [`oidc`], [`outbound`]: the outside world, one library each
//! * [`heavy`]: what keeps a core busy, beside the threads that answer
//! * [`health`]: whether this instance can work
//! * [`api`], [`worker`]: what drives it, clients from one side and time from the other
//! * [`server`], [`server_certificate`]: connections of clients, how many, and their TLS
//! * [`client`]: the API from its other side
//! * [`yaml`], `manifest`: YAML with its lines, and cert-manager's manifests in it
//! * `fuzzing`: what strangers send, for tests and fuzzers
//! * [`config`], [`bootstrap`], [`reseal`], [`audit`], [`backup`], [`cli`], [`service`]: how it is put together, and kept

#[macro_use]
mod failpoint;

mod acme;
pub mod api;
pub mod audit;
pub mod backup;
pub mod bootstrap;
pub mod ca;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod domain;
#[cfg(feature = "failpoints")]
pub mod fuzzing;
mod hangup;
pub mod health;
pub mod heavy;
mod manifest;
pub mod oidc;
pub mod outbound;
pub mod pki;
pub mod reseal;
pub mod secret;
pub mod server;
pub mod server_certificate;
pub mod service;
pub mod shutdown;
pub mod solver;
pub mod storage;
mod systemd;
pub mod telemetry;
pub mod transit;
mod validation;
pub mod verify;
mod view;
pub mod worker;
pub mod yaml;
