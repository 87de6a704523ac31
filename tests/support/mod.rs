//! Doubles of the outside world, for every test of this crate.

pub mod cloudflare;
