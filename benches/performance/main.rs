//! `make bench`: what certwright costs, beside the least that the same work can cost on this machine.
//!
//! Nothing here is a test, and no number means anything by itself: a test CA, a load generator and
//! PostgreSQL share the processors with what is measured. What counts are ratios between things that
//! were measured in turn, in one run; docs/performance.md explains them.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that fails must stop")]
#![expect(clippy::disallowed_methods, reason = "clients and measurements do wait")]
#![expect(clippy::cast_precision_loss, reason = "counts and times are far below 2^52")]

mod against;
mod api;
mod bare;
mod database;
mod far;
mod floor;
mod ground;
mod idle;
mod inputs;
mod issuance;
mod numbers;
mod peers;
mod policies;
mod replicas;
mod report;
mod scale;
mod service;
mod stormy;
#[path = "../../tests/support/mod.rs"]
#[expect(dead_code, unused_macros, unused_imports, reason = "the tests use the rest")]
mod support;
mod watched;

use std::path::PathBuf;

// `support::fixtures` names it as the library does.
use certwright::domain;
use clap::{Parser, Subcommand, ValueEnum};

use database::Kind;
use ground::Ground;
use report::Report;

/// Measures certwright; `make bench` runs everything.
#[derive(Debug, Parser)]
pub struct Options {
    /// What to measure; everything when nothing is given
    #[arg(value_enum)]
    sections: Vec<Section>,
    /// Repetitions, of which the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Certificates in each run: 1000, but for far, where it is four times as many as at a time and at least 20
    #[arg(long)]
    certificates: Option<usize>,
    /// Certificates on their way at the same time
    #[arg(long, default_value_t = 32)]
    concurrency: usize,
    /// The databases that certificates are issued with: both, but for far, where it is SQLite
    #[arg(long, value_enum, value_delimiter = ',')]
    databases: Vec<Kind>,
    /// Certificates issued each alone, in each run
    #[arg(long, default_value_t = 5)]
    singles: usize,
    /// Seconds of load on each endpoint
    #[arg(long, default_value_t = 5)]
    load: u64,
    /// Sizes of the database
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    sizes: Vec<usize>,
    /// Certificates that are to be renewed at once: 10,000, but for far, where it is 2,000
    #[arg(long)]
    renewals: Option<usize>,
    /// Seconds of doing nothing
    #[arg(long, default_value_t = 60)]
    idle: u64,
    /// Another build of certwright: both are measured by turns, at least seven pairs, and their ratios printed.
    /// For issuance, stormy and api
    #[arg(long, value_name = "BINARY")]
    against: Option<PathBuf>,
    /// Where the numbers go as JSON
    #[arg(long, default_value = "target/bench/performance.json")]
    json: PathBuf,
    #[command(flatten)]
    far: far::Choice,
    #[command(subcommand)]
    inner: Option<Inner>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// A CA that is far away and takes seconds to validate, beside a loop around instant-acme.
    Far,
    /// From POST to issued, on both databases, beside a loop around instant-acme.
    Issuance,
    /// Two replicas on one PostgreSQL.
    Replicas,
    /// What else issues certificates.
    Peers,
    /// Requests per second, beside a handler with one query.
    Api,
    /// A name, by many policies.
    Policies,
    /// Up to a million certificates, and a mass renewal.
    Scale,
    /// Doing nothing.
    Idle,
    /// A CA that refuses three requests in ten.
    Stormy,
    /// Requests that are made to cost more than their size.
    Inputs,
    /// Metrics and logs, beside neither.
    Watched,
}

/// Parts of the measurement that run in a process of their own.
#[derive(Debug, Subcommand)]
enum Inner {
    /// Serve single queries, for comparison
    #[command(hide = true)]
    Bare { database: String },
}

impl Options {
    fn certificates(&self) -> usize {
        self.certificates.unwrap_or(1000)
    }

    fn databases(&self) -> &[Kind] {
        if self.databases.is_empty() { &[Kind::Sqlite, Kind::Postgres] } else { &self.databases }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    if let Some(Inner::Bare { database }) = &options.inner {
        return bare::serve(database).await;
    }
    if !options.bench {
        println!("this is no test; `make bench` measures");
        return Ok(());
    }
    let wanted = |section| options.sections.is_empty() || options.sections.contains(&section);
    let mut report = Report::begin();
    let ground = Ground::start().await;
    if let Some(other) = &options.against {
        anyhow::ensure!(other.is_file(), "--against: there is no program at {}", other.display());
        let known = [Section::Issuance, Section::Stormy, Section::Api];
        let unknown = options.sections.iter().find(|section| !known.contains(section));
        anyhow::ensure!(unknown.is_none(), "--against compares issuance, stormy and api only");
        if wanted(Section::Issuance) {
            against::issuance(&options, other, &mut report).await;
        }
        if wanted(Section::Stormy) {
            stormy::by_turns(&options, other, &mut report).await;
        }
        if wanted(Section::Api) {
            api::by_turns(&ground, &options, other, &mut report).await?;
        }
        return report.end(&options.json);
    }
    if wanted(Section::Far) {
        far::measure(&options, &mut report).await?;
    }
    if wanted(Section::Issuance) {
        issuance::measure(&options, &mut report).await?;
    }
    if wanted(Section::Replicas) {
        replicas::measure(&options, &mut report).await?;
    }
    if wanted(Section::Peers) {
        peers::measure(&ground, &mut report).await?;
    }
    if wanted(Section::Api) {
        api::measure(&ground, &options, &mut report).await?;
    }
    if wanted(Section::Policies) {
        policies::measure(&options, &mut report);
    }
    if wanted(Section::Scale) {
        scale::measure(&ground, &options, &mut report).await?;
    }
    if wanted(Section::Idle) {
        idle::measure(&ground, &options, &mut report).await?;
    }
    if wanted(Section::Stormy) {
        stormy::measure(&options, &mut report).await;
    }
    if wanted(Section::Inputs) {
        inputs::measure(&options, &mut report).await;
    }
    if wanted(Section::Watched) {
        watched::measure(&options, &mut report).await;
    }
    report.end(&options.json)
}
