use std::sync::Mutex;

use time::macros::datetime;

use super::*;

/// A provider that creates what it is told to, but for records of one value.
#[derive(Default)]
struct Scripted {
    calls: Mutex<Vec<usize>>,
}

#[derive(Debug, Clone, PartialEq)]
enum Refused {
    OneRecord,
    Later,
    Unanswered,
}

impl Refusal for Refused {
    fn says_record_exists(&self) -> bool {
        false
    }

    fn says_one_record_is_gone(&self) -> bool {
        false
    }

    fn says_zone_is_full(&self) -> bool {
        false
    }

    fn may_concern_one_record(&self) -> bool {
        *self == Self::OneRecord
    }

    fn held_until(self, _until: OffsetDateTime) -> Self {
        self
    }

    fn later(_retry_at: OffsetDateTime, _reason: String) -> Self {
        Self::Later
    }

    fn unanswered(_reason: String) -> Self {
        Self::Unanswered
    }
}

#[async_trait]
impl Records for Scripted {
    type Error = Refused;

    const TOGETHER: usize = 16;

    fn now(&self) -> OffsetDateTime {
        datetime!(2026-01-01 0:00 UTC)
    }

    fn is_short_of_calls(&self) -> bool {
        false
    }

    async fn change(
        &self,
        _zone: &str,
        creates: &[&NewRecord],
        _deletes: &[&str],
    ) -> Result<Vec<Option<String>>, Refused> {
        self.calls.lock().unwrap().push(creates.len());
        if creates.iter().any(|record| record.value == "bad") {
            return Err(Refused::OneRecord);
        }
        Ok(creates.iter().map(|record| Some(record.name.clone())).collect())
    }

    async fn create(&self, zone: &str, record: &NewRecord) -> Result<String, Refused> {
        let created = self.change(zone, &[record], &[]).await?;
        created.into_iter().next().flatten().ok_or(Refused::Unanswered)
    }

    async fn delete(&self, _zone: &str, _id: &str) -> Result<(), Refused> {
        Ok(())
    }

    async fn written(&self, _zone: &str) -> Result<Vec<Record>, Refused> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn one_bad_record_keeps_no_other_of_its_call_from_being_written() {
    let queues = Queues::new(Scripted::default(), Upcoming::default());
    let challenge = ChallengeId(uuid::Uuid::nil());
    let created = futures_util::future::join_all((0..16).map(|n| {
        let value = if n == 5 { "bad" } else { "good" }.to_owned();
        queues.create("zone", NewRecord { name: format!("n{n}"), value, challenge })
    }))
    .await;

    for (n, created) in created.into_iter().enumerate() {
        let expected = if n == 5 { Err(Refused::OneRecord) } else { Ok(format!("n{n}")) };
        assert_eq!(created, expected, "{n}");
    }
    let calls = queues.records.calls.lock().unwrap().clone();
    assert!(calls.len() <= 10, "it is found by halving: {calls:?}");
}

#[tokio::test]
async fn every_zone_of_a_credential_has_a_queue_of_its_own() {
    let queues = Queues::new(Scripted::default(), Upcoming::default());
    let challenge = ChallengeId(uuid::Uuid::nil());
    let record = || NewRecord { name: "n".to_owned(), value: "v".to_owned(), challenge };

    let (one, other) =
        tokio::join!(queues.create("one", record()), queues.create("other", record()));

    assert_eq!((one, other), (Ok("n".to_owned()), Ok("n".to_owned())));
    assert_eq!(*queues.records.calls.lock().unwrap(), [1, 1]);
    assert!(Arc::ptr_eq(&queues.of("one"), &queues.of("one")));
}
