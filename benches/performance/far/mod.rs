//! A CA that is far away and takes its time, beside the floor at the same distance.

mod cell;
mod names;
pub mod proxy;
mod validation;

use std::time::Duration;

use super::Options;
use super::database::Kind;
use super::ground::Ground;
use super::report::{Report, Target};
use super::scale::mass_renewal;
use cell::Cell;
use proxy::Distance;
use validation::Span;

/// From one side of the Atlantic to a CA on the other that is quick.
const LATENCY: Duration = Duration::from_millis(40);
const VALIDATION: Span = Span::millis(500, 2000);

/// Around half of the world to one that is slow.
const LONG_LATENCY: Duration = Duration::from_millis(120);
const LONG_VALIDATION: Span = Span::millis(3000, 10_000);

/// With several names nothing but their number may make a difference.
const FIXED_VALIDATION: Span = Span::millis(1000, 1000);

const NAMES: usize = 25;
const RENEWALS: usize = 2000;
const RETRY_AFTER: Duration = Duration::from_secs(3);

/// What of `far` is to be measured; all that is promised, and some more, when nothing is given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of far")]
pub struct Choice {
    /// Added to every request [default: 40ms]
    #[arg(long, value_parser = humantime::parse_duration)]
    latency: Option<Duration>,
    /// How long a validation takes, drawn for each name [default: 500ms-2s]
    #[arg(long, value_name = "LEAST-MOST")]
    validation: Option<Span>,
    /// Certificates on their way at the same time [default: 1,32,128,256]
    #[arg(long, value_delimiter = ',')]
    at_a_time: Vec<usize>,
    /// One certificate with so many names beside one with a single name; validations take 1s
    #[arg(long)]
    names: Option<usize>,
    /// What the CA says with everything that is not done yet
    #[arg(long, value_parser = humantime::parse_duration)]
    retry_after: Option<Duration>,
    /// Few cells, once: three to four minutes
    #[arg(long)]
    quick: bool,
}

/// What is measured.
struct Plan {
    cells: Vec<Cell>,
    /// Names of a certificate, how far away the CA is, and how often.
    names: Option<(usize, Distance, usize)>,
    renewals: Option<(usize, Distance)>,
}

pub async fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let plan = Plan::of(options);
    for cell in &plan.cells {
        cell.measure(report).await;
    }
    if let Some((count, distance, runs)) = plan.names {
        names::measure(count, distance, runs, report).await;
    }
    if let Some((count, distance)) = plan.renewals {
        let title = format!("{distance}, renewing {count}");
        let ground = Ground::far(distance).await;
        let rate = mass_renewal(&ground, count, Kind::Sqlite, &title, report).await?;
        let title = format!("{title}: certificates/s");
        report.promise(title, "/s", vec![rate], Target::AtLeast(60.0));
    }
    Ok(())
}

impl Plan {
    fn of(options: &Options) -> Self {
        let choice = &options.far;
        let is_chosen = choice.latency.is_some()
            || choice.validation.is_some()
            || !choice.at_a_time.is_empty()
            || choice.names.is_some()
            || choice.retry_after.is_some()
            || options.renewals.is_some()
            || !options.databases.is_empty();
        match (choice.quick, is_chosen) {
            (true, _) => Self::quick(options),
            (false, true) => Self::chosen(options),
            (false, false) => Self::promised(options),
        }
    }

    /// What is promised, and what else is told of.
    fn promised(options: &Options) -> Self {
        let near = Distance::of(LATENCY, VALIDATION);
        let far = Distance::of(LONG_LATENCY, LONG_VALIDATION);
        let cell = |distance, at_a_time| Cell::of(distance, at_a_time, options.certificates);
        // Fewer rounds where one takes ten seconds: it all takes long enough.
        let slow =
            |at_a_time| Cell::of(far, at_a_time, options.certificates.or(Some(3 * at_a_time)));
        let mut cells: Vec<_> = [1, 32, 128, 256].map(|at| cell(near, at)).into();
        cells.extend([32, 128, 256].map(slow));
        for cell in &mut cells {
            cell.runs = options.runs;
        }
        cells.push(Cell { kind: Kind::Postgres, ..cell(near, 128) });
        cells.push(cell(Distance { retry_after: Some(RETRY_AFTER), ..near }, 32));
        Self {
            cells,
            names: Some((NAMES, Distance::of(LATENCY, FIXED_VALIDATION), options.runs)),
            renewals: Some((RENEWALS, near)),
        }
    }

    /// Enough to see whether a change is worth the whole measurement.
    fn quick(options: &Options) -> Self {
        let near = Distance::of(LATENCY, VALIDATION);
        let far = Distance::of(LONG_LATENCY, LONG_VALIDATION);
        let cell = |distance, at_a_time, certificates| {
            Cell::of(distance, at_a_time, options.certificates.or(Some(certificates)))
        };
        Self {
            cells: vec![
                cell(near, 1, 8),
                cell(near, 32, 96),
                cell(near, 128, 256),
                cell(far, 32, 64),
            ],
            names: Some((NAMES, Distance::of(LATENCY, FIXED_VALIDATION), 2)),
            renewals: None,
        }
    }

    fn chosen(options: &Options) -> Self {
        let choice = &options.far;
        let distance = |validation| Distance {
            latency: choice.latency.unwrap_or(LATENCY),
            validation: choice.validation.unwrap_or(validation),
            retry_after: choice.retry_after,
        };
        let names = choice.names.map(|names| (names, distance(FIXED_VALIDATION), options.runs));
        let renewals = options.renewals.map(|count| (count, distance(VALIDATION)));
        let mut cells = Vec::new();
        if names.is_none() && renewals.is_none() {
            let one = [Kind::Sqlite];
            let kinds = if options.databases.is_empty() { &one } else { &*options.databases };
            let at_a_time =
                if choice.at_a_time.is_empty() { &[1, 32, 128, 256] } else { &*choice.at_a_time };
            for &kind in kinds {
                cells.extend(at_a_time.iter().map(|&at_a_time| Cell {
                    kind,
                    runs: options.runs,
                    ..Cell::of(distance(VALIDATION), at_a_time, options.certificates)
                }));
            }
        }
        Self { cells, names, renewals }
    }
}
