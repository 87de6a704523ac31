//! Doubles of the outside world, for every test of this crate.

pub mod cloudflare;
pub mod postgres;
pub mod world;
