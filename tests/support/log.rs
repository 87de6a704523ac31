//! What the service logs on the thread of a test.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, Once};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::layer::SubscriberExt as _;

/// What this thread logs, as far as storage tells it: certificates, issuers and webhooks in trouble or out of it.
pub struct Log {
    written: Written,
    _here: DefaultGuard,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has all threads listen. While a single subscriber is known, a place in the code that is first reached on a thread
/// without one is taken for one that nobody listens to, on all threads.
fn listen_everywhere() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let nobody = tracing_subscriber::registry().with(LevelFilter::INFO);
        tracing::subscriber::set_global_default(nobody).unwrap();
    });
}

impl Log {
    pub fn begin() -> Self {
        listen_everywhere();
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO);
        Self { written, _here: tracing::subscriber::set_default(lines.finish()) }
    }

    /// Line by line.
    pub fn lines(&self) -> Vec<String> {
        self.lines_of("storage::tables::log")
    }

    /// The lines of a module.
    pub fn lines_of(&self, module: &str) -> Vec<String> {
        let text = String::from_utf8(self.written.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(module)).map(str::to_owned).collect()
    }

    /// Level, code and message of each.
    pub fn told(&self) -> Vec<String> {
        let told = |line: &String| {
            let (head, rest) = line.split_once(" certwright::storage::tables::log: ").unwrap();
            let level = head.rsplit(' ').next().unwrap();
            let code =
                rest.split(" code=\"").nth(1).map_or("-", |rest| rest.split('"').next().unwrap());
            // Fields follow the message.
            let fields = [" certificate=", " issuer=", " webhook="];
            let end =
                fields.iter().filter_map(|field| rest.find(field)).min().unwrap_or(rest.len());
            format!("{level} {code} {}", &rest[..end])
        };
        self.lines().iter().map(told).collect()
    }
}
