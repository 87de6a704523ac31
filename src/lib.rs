//! certwright: certificate issuance as an HTTP API.
//!
//! The layers, from the inside out; `tests/integration/architecture.rs` holds who may use whom:
//!
//! * [`domain`] and [`clock`]: what the service knows, as values and pure state machines
//! * [`secret`]: secrets in memory and sealed at rest
//! * [`storage`]: everything it remembers, on SQLite or PostgreSQL
//! * [`ca`], [`solver`]: the outside world, one library each
//! * [`api`], [`worker`]: what drives it, clients from one side and time from the other
//! * [`config`], [`cli`], [`service`]: how it is put together

pub mod ca;
pub mod clock;
pub mod domain;
pub mod secret;
pub mod solver;
