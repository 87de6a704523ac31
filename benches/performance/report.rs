//! One table for people, and the same as JSON.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};

use super::numbers::median;

/// What was measured so far.
pub struct Report {
    rows: Vec<Row>,
}

struct Row {
    what: String,
    unit: &'static str,
    runs: Vec<f64>,
    target: Option<Target>,
    /// What the number is made of.
    parts: Vec<(&'static str, f64)>,
}

/// What a median has to be.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    fn words(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

impl Report {
    pub fn begin() -> Self {
        Self { rows: Vec::new() }
    }

    /// Notes a number, one value for each run.
    pub fn add(&mut self, what: impl Into<String>, unit: &'static str, runs: Vec<f64>) {
        self.push(Row { what: what.into(), unit, runs, target: None, parts: Vec::new() });
    }

    /// The same with what it is made of.
    pub fn add_up(
        &mut self,
        what: impl Into<String>,
        runs: Vec<f64>,
        parts: Vec<(&'static str, f64)>,
    ) {
        self.push(Row { what: what.into(), unit: "", runs, target: None, parts });
    }

    /// The same for a number that was promised.
    pub fn promise(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        runs: Vec<f64>,
        target: Target,
    ) {
        self.push(Row { what: what.into(), unit, runs, target: Some(target), parts: Vec::new() });
    }

    fn push(&mut self, row: Row) {
        eprintln!("{}", row.line());
        self.rows.push(row);
    }

    /// Prints the table and writes the JSON.
    pub fn end(self, path: &Path) -> anyhow::Result<()> {
        let cores = std::thread::available_parallelism()?.get();
        println!("\nMedians, on {cores} processors:\n");
        for row in &self.rows {
            println!("{}", row.line());
        }
        let rows: Vec<_> = self.rows.iter().map(Row::json).collect();
        let document =
            json!({"processors": cores, "version": env!("CARGO_PKG_VERSION"), "rows": rows});
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, format!("{document:#}\n"))?;
        println!("\nAs JSON: {}", path.display());
        Ok(())
    }
}

impl Row {
    fn line(&self) -> String {
        let value = median(&self.runs);
        let verdict = self.target.map_or_else(String::new, |target| {
            let met = if target.is_met(value) { "met" } else { "NOT MET" };
            format!("{} {met}", target.words())
        });
        let range = match self.runs.len() {
            0 | 1 => String::new(),
            _ => {
                let least = self.runs.iter().copied().fold(f64::INFINITY, f64::min);
                let most = self.runs.iter().copied().fold(0.0, f64::max);
                format!("{} to {}", short(least), short(most))
            }
        };
        let parts: Vec<_> =
            self.parts.iter().map(|(part, value)| format!("{part} {}", short(*value))).collect();
        let remark = if parts.is_empty() { verdict } else { parts.join(", ") };
        format!("{:<66} {:>10} {:<7} {range:<20} {remark}", self.what, short(value), self.unit)
    }

    fn json(&self) -> Value {
        let value = median(&self.runs);
        json!({
            "what": self.what, "unit": self.unit, "median": value, "runs": self.runs,
            "target": self.target.map(Target::words),
            "met": self.target.map(|target| target.is_met(value)),
            "parts": self.parts.iter().copied().collect::<HashMap<_, _>>(),
        })
    }
}

/// With three digits that say something.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
