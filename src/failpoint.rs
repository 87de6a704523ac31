//! Places where a test has the program die as by `kill -9`.
//!
//! `failpoint!("after_new_order")` is nothing in a build without the feature `failpoints`. With it,
//! `FAILPOINTS=after_new_order=return` in the environment aborts the process there;
//! `after_new_order=2*off->return` lets the first two pass, and `return(stop)` stops the process there until
//! it gets a SIGCONT. tests/integration/crash has a row for each.

/// Dies here when a test wants it; nothing otherwise.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::reach($name);
    };
}

/// Reads which places a test has chosen.
pub(crate) fn set_up() {
    #[cfg(feature = "failpoints")]
    std::mem::forget(fail::FailScenario::setup());
}

#[cfg(feature = "failpoints")]
pub(crate) fn reach(name: &str) {
    fail::fail_point!(name, |action: Option<String>| match action.as_deref() {
        Some("stop") => stop(),
        _ => std::process::abort(),
    });
}

/// Only a process of ours can stop this one at this very place.
#[cfg(feature = "failpoints")]
fn stop() {
    let stopped = std::process::Command::new("sh").args(["-c", "kill -STOP $PPID"]).status();
    if !stopped.is_ok_and(|status| status.success()) {
        std::process::abort();
    }
}
