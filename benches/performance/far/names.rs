//! A certificate with many names beside one with a single name: authorizations go side by side.

use super::super::against;
use super::super::database::Kind;
use super::super::ground::{Ground, ZONE};
use super::super::issuance::settle;
use super::super::numbers::millis;
use super::super::report::{Report, Target};
use super::super::service::Service;
use super::proxy::Distance;

pub async fn measure(count: usize, distance: Distance, runs: usize, report: &mut Report) {
    let (ground, database) = (Ground::far(distance).await, Kind::Sqlite.empty().await);
    let service = Service::ready(&ground, &database.url).await;
    let [mut one, mut many] = [Vec::new(), Vec::new()];
    // The first pair opens connections and fills caches, and does not count.
    for run in 0..=runs {
        eprintln!("far, {distance}, {count} names, run {run} of {runs}");
        for (names, took) in [(1, &mut one), (count, &mut many)] {
            let names: Vec<_> =
                (0..names).map(|n| format!("{n}-of-{names}-{run}.{ZONE}")).collect();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            took.push(service.issue_for(&names).await.0);
            settle(&ground).await;
        }
    }
    let [one, many] = [one, many].map(|took| millis(&took[1..]));
    let ratios = against::ratios(&many, &one);
    report.add(format!("{distance}: one name"), "ms", one);
    report.add(format!("{distance}: {count} names"), "ms", many);
    let title = format!("{distance}: {count} names / one name");
    report.promise(title, "", ratios, Target::AtMost(1.15));
}
