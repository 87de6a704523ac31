//! Two replicas on one PostgreSQL share the work.

use std::sync::{Arc, Mutex};

use reqwest::Method;

use super::Options;
use super::database;
use super::ground::Ground;
use super::issuance::{at_once, many, names, settle};
use super::report::{Report, Target};
use super::service::{MASTER_KEY, Service, Setup};

pub async fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let [mut one, mut two, mut twice]: [Vec<f64>; 3] = Default::default();
    let (count, concurrency) = (options.certificates(), options.concurrency);
    for run in 0..options.runs {
        eprintln!("replicas, run {} of {}", run + 1, options.runs);
        // From a CA of its own each, as in `issuance`.
        let (ground, database) = (Ground::start().await, database::postgres().await);
        let only = Arc::new(Service::ready(&ground, &database.url).await);
        many(&ground, &only, concurrency * 10, concurrency).await;
        one.push(many(&ground, &only, count, concurrency).await.rate);
        drop(only);

        let (ground, database) = (Ground::start().await, database::postgres().await);
        let first = Arc::new(Service::ready(&ground, &database.url).await);
        let keys = Some((first.key.as_str(), MASTER_KEY));
        let setup =
            Setup { database: &database.url, ground: Some(&ground), keys, ..Setup::default() };
        let second = Arc::new(Service::start(&setup));
        for replica in [&first, &second] {
            many(&ground, replica, concurrency * 10, concurrency).await;
        }
        let issued = ground.pebble.certificates_issued();
        let services = [first, second];
        let turn = std::sync::atomic::AtomicUsize::new(0);
        let made = Mutex::new(Vec::new());
        let issue = |name: String| {
            let at = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % services.len();
            let (service, made) = (Arc::clone(&services[at]), &made);
            async move {
                let (took, id) = service.issue(&name).await;
                made.lock().unwrap().push(id);
                took
            }
        };
        let (took, _) = at_once(names("shared", count), concurrency, issue).await;
        settle(&ground).await;
        for id in made.into_inner()? {
            let found = services[0].ask(Method::GET, &format!("/certificates/{id}"), None).await;
            assert_eq!(found["status"]["revision"], 1, "{found:#}");
        }
        two.push(count as f64 / took.as_secs_f64());
        twice.push((ground.pebble.certificates_issued() - issued - count) as f64);
    }
    let ratios = two.iter().zip(&one).map(|(two, one)| two / one).collect();
    report.add("one replica, PostgreSQL: certificates/s", "/s", one);
    report.add("two replicas, PostgreSQL: certificates/s", "/s", two);
    report.promise("two replicas: throughput / one's", "", ratios, Target::AtLeast(1.0));
    report.promise("two replicas: certificates issued twice", "", twice, Target::AtMost(0.0));
    Ok(())
}
