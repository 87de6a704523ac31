//! The process itself, under the names that Prometheus' own libraries give it.

use procfs::process::{LimitValue, Process};
use time::{Duration, OffsetDateTime};

use super::Gauges;
use crate::clock::{Clock as _, SystemClock};

/// Reads what `/proc` says. What cannot be read is left out.
pub(super) fn measure(gauges: &Gauges) {
    let Ok(process) = Process::myself() else { return };
    if let Ok(stat) = process.stat() {
        let ticks = u32::try_from(procfs::ticks_per_second()).unwrap_or(100).max(1);
        let cpu = as_float(stat.utime + stat.stime) / f64::from(ticks);
        gauges.set_total("process_cpu_seconds_total", "User and system CPU time spent.", cpu);
        let resident = as_float(stat.rss * procfs::page_size());
        gauges.set_one("process_resident_memory_bytes", "Resident memory.", resident);
        gauges.set_one("process_virtual_memory_bytes", "Virtual memory.", as_float(stat.vsize));
        gauges.set_one("process_threads", "Threads.", as_float(stat.num_threads.unsigned_abs()));
        let started = booted_at() + as_float(stat.starttime) / f64::from(ticks);
        let help = "When the process started, since the Unix epoch.";
        gauges.set_one("process_start_time_seconds", help, started);
    }
    if let Ok(open) = process.fd_count() {
        gauges.set_one("process_open_fds", "Open file descriptors.", as_float(open as u64));
    }
    if let Ok(LimitValue::Value(most)) =
        process.limits().map(|limits| limits.max_open_files.soft_limit)
    {
        gauges.set_one("process_max_fds", "File descriptors that may be open.", as_float(most));
    }
}

/// When the machine was started, in seconds since the Unix epoch. `/proc/stat` has it too, which the unit hides.
fn booted_at() -> f64 {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since = Duration::new(since.tv_sec, i32::try_from(since.tv_nsec).unwrap_or_default());
    (SystemClock.now() - since - OffsetDateTime::UNIX_EPOCH).as_seconds_f64()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' values are floats")]
fn as_float(value: u64) -> f64 {
    value as f64
}
