//! What is later than it should be: certificates without a successor or never issued, queues that nobody works on, and
//! limits that are nearly used up.

use time::{Duration, OffsetDateTime};

use super::report::Report;
use crate::cli::output::now;
use crate::domain::issuer::Issuer;
use crate::storage::figures::{self, Due};
use crate::storage::{Db, rate_limits};

// As deploy/prometheus/alerts.yaml has them.
const LONG_UNISSUED: Duration = Duration::HOUR;
const LONG_DUE: Duration = Duration::minutes(5);
const LITTLE_LEFT: f64 = 0.2;

/// Certificates and queues.
pub(super) async fn examine(db: &Db, report: &mut Report) -> anyhow::Result<()> {
    let mut read = db.read().await?;
    let expiring = figures::expiring(&mut read).await?;
    let in_states = figures::certificates(&mut read, now()).await?;
    let queues = figures::queues(&mut read, now()).await?;
    drop(read);
    nearing_their_end(&expiring, report)?;
    never_issued(figures::unissued_since(&in_states), now(), report)?;
    waiting(&queues, now(), report)
}

fn nearing_their_end(expiring: &[(String, u64)], report: &mut Report) -> anyhow::Result<()> {
    const WHAT: &str = "certificates, ends";
    const NEXT: &str = "`certwright get certificates -A --sort-by=.status.notAfter` has the soonest first, `certwright describe certificate NAME` says what keeps one from being renewed";
    for (stage, count) in expiring {
        let text = format!(
            "{count} were not renewed in time, and less than a {stage} of their life is left: {NEXT}"
        );
        if stage == "twentieth" { report.fail(WHAT, &text) } else { report.warn(WHAT, &text) }?;
    }
    if expiring.is_empty() { report.ok(WHAT, "all are renewed in time") } else { Ok(()) }
}

fn never_issued(
    since: Option<OffsetDateTime>,
    now: OffsetDateTime,
    report: &mut Report,
) -> anyhow::Result<()> {
    const WHAT: &str = "certificates, wanted";
    match since.map(|since| now - since).filter(|age| *age > LONG_UNISSUED) {
        None => report.ok(WHAT, "none has been waited for longer than an hour"),
        Some(age) => report.warn(WHAT, &format!("one was asked for {} ago and is not there: `certwright get certificates -A` shows which are not ready, `certwright status certificate NAME` what each waits for", in_words(age))),
    }
}

fn waiting(queues: &[Due], now: OffsetDateTime, report: &mut Report) -> anyhow::Result<()> {
    let mut is_well = true;
    for due in queues {
        let Some(age) = due.since.map(|since| now - since).filter(|age| *age > LONG_DUE) else {
            continue;
        };
        is_well = false;
        report.fail(&format!("queue `{}`", due.queue), &format!("{} rows are due, the first for {}, and nobody works on them: does the service run? `systemctl status certwright`, then `journalctl -u certwright`", due.rows, in_words(age)))?;
    }
    if is_well { report.ok("queues", "all work is taken up") } else { Ok(()) }
}

/// What is left of the limits that hold for an issuer.
pub(super) async fn budgets(db: &Db, issuer: &Issuer, report: &mut Report) -> anyhow::Result<()> {
    let spent = rate_limits::spent(&mut db.read().await?, issuer, now()).await?;
    let what = format!("{} {}, limits", issuer.kind.as_str(), issuer.name);
    let mut low = spent
        .iter()
        .map(|(name, limit, until)| (name, limit.remaining(*until, now())))
        .filter(|(_, left)| *left < LITTLE_LEFT)
        .peekable();
    if low.peek().is_none() {
        return report.ok(&what, "more than a fifth of each is left");
    }
    low.try_for_each(|(name, left)| {
        let percent = (left * 100.0).max(0.0);
        report.warn(&what, &format!("{percent:.0} % of `{name}` are left: `certwright describe {} {}` shows when there is more; renewals that the CA exempts go on", issuer.kind.as_str().to_lowercase(), issuer.name))
    })
}

fn in_words(age: Duration) -> String {
    match age.whole_hours() {
        0 => format!("{} min", age.whole_minutes()),
        hours @ 1..48 => format!("{hours} h"),
        hours => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: OffsetDateTime = datetime!(2026-11-24 12:00 UTC);

    #[test]
    fn what_is_about_to_end_or_lies_untouched_is_a_failure() {
        let queue = |minutes| {
            let since = Some(NOW - Duration::minutes(minutes));
            [Due { queue: "order".into(), rows: 3, since }]
        };
        let failed = |examine: &dyn Fn(&mut Report) -> anyhow::Result<()>| {
            let mut report = Report::default();
            examine(&mut report).unwrap();
            (report.all, report.failed)
        };

        assert_eq!(failed(&|report| nearing_their_end(&[], report)), (1, 0));
        let stages = [("third".to_owned(), 2), ("twentieth".to_owned(), 1)];
        assert_eq!(failed(&|report| nearing_their_end(&stages, report)), (2, 1));
        for (minutes, fails) in [(4, 0), (6, 1)] {
            assert_eq!(failed(&|report| waiting(&queue(minutes), NOW, report)), (1, fails));
        }
    }

    #[test]
    fn an_age_is_told_in_the_unit_that_fits() {
        let ages = [Duration::minutes(90), Duration::minutes(59), Duration::hours(49)];
        assert_eq!(ages.map(in_words), ["1 h", "59 min", "2 days"]);
    }
}
