//! Log lines in JSON, with the causes of errors, which the library leaves out.

use std::error::Error;
use std::fmt;

use serde::Serializer as _;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::trace;

/// One JSON object a line: time, level, the event's own fields, its trace, its target and its innermost span.
///
/// An error has its causes beside it, as `error.sources`: the outermost first.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonLines;

impl<S> FormatEvent<S, JsonFields> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = Fields(Vec::new());
        line.put("timestamp", time);
        line.put("level", event.metadata().level().as_str());
        event.record(&mut line);
        if let Some(trace) = trace::current() {
            line.put("trace_id", trace.id.to_string());
        }
        line.put("target", event.metadata().target());
        if let Some(span) = context.lookup_current() {
            let extensions = span.extensions();
            let known = extensions.get::<FormattedFields<JsonFields>>();
            let known = known.and_then(|fields| serde_json::from_str::<Value>(fields).ok());
            let mut fields = match known {
                Some(Value::Object(fields)) => fields,
                _ => Map::new(),
            };
            fields.insert("name".to_owned(), span.metadata().name().into());
            line.put("span", fields);
        }
        writeln!(writer, "{}", line.text().map_err(|_| fmt::Error)?)
    }
}

/// Fields in the order of reading.
struct Fields(Vec<(String, Value)>);

impl Fields {
    fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.0.push((name.strip_prefix("r#").unwrap_or(name).to_owned(), value.into()));
    }

    fn text(self) -> serde_json::Result<String> {
        let mut text = Vec::new();
        serde_json::Serializer::new(&mut text).collect_map(self.0)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put(field.name(), value.to_string());
        let mut sources: Vec<Value> = Vec::new();
        let mut source = value.source();
        while let Some(cause) = source {
            sources.push(cause.to_string().into());
            source = cause.source();
        }
        if !sources.is_empty() {
            self.put(&format!("{}.sources", field.name()), sources);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry::Registry;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the step failed")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("the database refused")]
    struct Middle(#[source] io::Error);

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: impl FnOnce()) -> Vec<Value> {
        let lines = Lines::default();
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer::<Registry>()
            .with_writer(move || writer.clone())
            .json()
            .event_format(JsonLines);
        tracing::subscriber::with_default(Registry::default().with(layer), log);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn a_line_has_every_cause_of_an_error() {
        let error = Outer(Middle(io::Error::other("invalid byte sequence\nfor encoding")));

        let lines = logged(|| {
            let span = tracing::info_span!("request", path = "/apply", tries = 2);
            let _within = span.enter();
            tracing::error!(error = &error as &dyn Error, id = %7, well = false, "a step failed");
        });

        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!(line["error"], "the step failed");
        let causes = ["the database refused", "invalid byte sequence\nfor encoding"];
        assert_eq!(line["error.sources"], json!(causes));
        assert_eq!(line["message"], "a step failed");
        assert_eq!(
            (&line["level"], &line["id"], &line["well"]),
            (&json!("ERROR"), &json!("7"), &json!(false))
        );
        assert_eq!(line["span"], json!({"name": "request", "path": "/apply", "tries": 2}));
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }

    #[test]
    fn an_error_without_causes_has_none_beside_it() {
        let lines = logged(|| {
            tracing::warn!(error = &io::Error::other("alone") as &dyn Error, "it failed");
        });

        assert_eq!(lines[0]["error"], "alone");
        assert_eq!(lines[0].get("error.sources"), None);
        assert_eq!(lines[0].get("span"), None);
    }
}
