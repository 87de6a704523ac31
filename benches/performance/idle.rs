//! Nothing to do costs nothing.

use std::time::Duration;

use super::Options;
use super::database;
use super::ground::Ground;
use super::report::{Report, Target};
use super::service::Service;

pub async fn measure(
    ground: &Ground,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let sqlite = database::sqlite();
    let postgres = database::postgres().await;
    let services = [
        ("SQLite", Service::ready(ground, &sqlite.url).await),
        ("PostgreSQL", Service::ready(ground, &postgres.url).await),
    ];
    eprintln!("idle, for {} s", options.idle);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before: Vec<_> = services.iter().map(|(_, service)| service.cpu_ticks()).collect();
    tokio::time::sleep(Duration::from_secs(options.idle)).await;
    for ((name, service), before) in services.iter().zip(before) {
        // A tick is a hundredth of a second, and so a percent of one.
        let percent = (service.cpu_ticks() - before) as f64 / options.idle as f64;
        let (cpu, memory) = (vec![percent], vec![service.rss()]);
        let title = |what: &str| format!("idle, {name}: {what}");
        if *name == "SQLite" {
            report.promise(title("CPU"), "%", cpu, Target::AtMost(0.05));
            report.promise(title("memory"), "MiB", memory, Target::AtMost(25.0));
        } else {
            report.add(title("CPU"), "%", cpu);
            report.add(title("memory"), "MiB", memory);
        }
    }
    Ok(())
}
