//! Traces (W3C Trace Context, level 1): which work belongs together, wherever and whenever it is done.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use uuid::Uuid;

/// A place in a trace: the span that whatever is done next belongs to. It is written as a `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    pub id: TraceId,
    pub span: SpanId,
    /// Whether its spans are sent to the collector.
    pub is_sampled: bool,
}

/// The name of a trace, 32 hexadecimal digits, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(u128);

/// The name of a span within its trace, 16 hexadecimal digits, never all zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(u64);

/// A text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("it is no traceparent of W3C Trace Context")]
pub struct NoTrace;

const SAMPLED: u8 = 1;

impl Trace {
    /// A new trace with the name of its first span; `ratio` of them are sampled.
    pub fn begin(ratio: f64) -> Self {
        let id = TraceId::random();
        Self { id, span: SpanId::random(), is_sampled: id.is_within(ratio) }
    }

    /// The same trace, at this span.
    #[must_use]
    pub fn at(self, span: SpanId) -> Self {
        Self { span, ..self }
    }
}

impl TraceId {
    fn random() -> Self {
        Self(Uuid::new_v4().as_u128())
    }

    /// Whether a trace of this name is among `ratio` of all, by the end of it: each process decides alike.
    fn is_within(self, ratio: f64) -> bool {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        f64::from(u32::from_be_bytes([a, b, c, d])) < ratio * (f64::from(u32::MAX) + 1.0)
    }
}

impl SpanId {
    /// A name that no other span has.
    pub fn random() -> Self {
        Self::of(Uuid::new_v4())
    }

    /// The span that stands for a resource: the random end of its identifier, so that every process knows it.
    pub fn of(resource: Uuid) -> Self {
        Self(resource.as_u64_pair().1.max(1))
    }
}

impl From<TraceId> for u128 {
    fn from(id: TraceId) -> Self {
        id.0
    }
}

impl From<SpanId> for u64 {
    fn from(id: SpanId) -> Self {
        id.0
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, span, is_sampled } = self;
        write!(f, "00-{id}-{span}-{:02x}", u8::from(*is_sampled) * SAMPLED)
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Trace {
    type Err = NoTrace;

    fn from_str(text: &str) -> Result<Self, NoTrace> {
        let mut parts = text.splitn(5, '-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits).ok_or(NoTrace)?;
            let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let value = part.bytes().all(is_hex).then(|| u128::from_str_radix(part, 16).ok());
            value.flatten().ok_or(NoTrace)
        };
        let (version, id, span, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        // A later version may say more, behind another hyphen.
        if version == 0xff || (version == 0 && parts.next().is_some()) || id == 0 || span == 0 {
            return Err(NoTrace);
        }
        Ok(Self {
            id: TraceId(id),
            span: SpanId(u64::try_from(span).map_err(|_| NoTrace)?),
            is_sampled: flags & u128::from(SAMPLED) != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    #[test]
    fn a_traceparent_reads_back_the_same() {
        for flags in ["00", "01"] {
            let text = format!("00-{ID}-{SPAN}-{flags}");
            assert_eq!(text.parse::<Trace>().unwrap().to_string(), text);
        }
        let begun = Trace::begin(1.0);
        assert_eq!(begun.to_string().parse(), Ok(begun));
    }

    #[test]
    fn a_later_version_is_understood_as_far_as_it_is_known() {
        for text in [format!("cc-{ID}-{SPAN}-03"), format!("01-{ID}-{SPAN}-01-what-comes")] {
            assert_eq!(text.parse::<Trace>().unwrap().to_string(), format!("00-{ID}-{SPAN}-01"));
        }
    }

    #[test]
    fn what_is_no_traceparent_begins_no_trace() {
        let upper = ID.to_uppercase();
        for text in [
            String::new(),
            format!("ff-{ID}-{SPAN}-01"),
            format!("00-{ID}-{SPAN}-01-more"),
            format!("00-{ID}-{SPAN}"),
            format!("00-{upper}-{SPAN}-01"),
            format!("00-{ID}-{SPAN}-+1"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{ID}-{}-01", "0".repeat(16)),
            format!("00-{ID}0-{SPAN}-01"),
            format!(" 00-{ID}-{SPAN}-01"),
        ] {
            assert_eq!(text.parse::<Trace>(), Err(NoTrace), "{text:?}");
        }
    }

    #[test]
    fn so_many_traces_are_sampled_as_the_ratio_says() {
        let sampled = |ratio| (0..1_000).filter(|_| Trace::begin(ratio).is_sampled).count();

        assert_eq!(sampled(0.0), 0);
        assert_eq!(sampled(1.0), 1_000);
        assert!((300..700).contains(&sampled(0.5)));
    }
}
