//! API keys: which of their values count, and until when.

use time::OffsetDateTime;

use super::id::ApiKeyId;
use super::principal::PrincipalRef;
use super::role::Role;
use super::scope::Scope;

mod value;

pub use value::{Malformed, check_form, generate_key, hash_key, is_weak};

/// An API key. Its values are not here: only their hashes are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub id: ApiKeyId,
    /// The person's name for it; not unique.
    pub name: String,
    pub description: Option<String>,
    pub role: Option<Role>,
    /// Single permissions beside those of the role, such as `certificates:write`; `*` is everything.
    pub permissions: Vec<String>,
    /// Where.
    pub scope: Scope,
    pub expires_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
    /// `None` for a key from before this was kept.
    pub created_by: Option<PrincipalRef>,
    pub rotation: Option<Rotation>,
    /// The day of its last use.
    pub last_used_at: Option<OffsetDateTime>,
}

/// The last change of a key's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    pub rotated_at: OffsetDateTime,
    /// The end of the value before, if it did not end at once.
    pub former_until: Option<OffsetDateTime>,
}

/// Which of a key's two values a client has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    Current,
    /// The one before the last rotation.
    Former,
}

/// Why a value that belongs to a key does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Expired,
    Replaced,
}

impl ApiKey {
    /// A key with these permissions that never expires.
    pub fn new(name: &str, permissions: Vec<String>, scope: Scope, now: OffsetDateTime) -> Self {
        Self {
            id: ApiKeyId::generate(now),
            name: name.to_owned(),
            description: None,
            role: None,
            permissions,
            scope,
            expires_at: None,
            created_at: now,
            created_by: None,
            rotation: None,
            last_used_at: None,
        }
    }

    /// Whether a client that has shown this value is let in.
    pub fn admits(&self, value: Value, now: OffsetDateTime) -> Result<(), Ended> {
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Ended::Expired);
        }
        let former_until = self.rotation.and_then(|rotation| rotation.former_until);
        match value {
            Value::Former if former_until.is_none_or(|end| end <= now) => Err(Ended::Replaced),
            Value::Current | Value::Former => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use time::Duration;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_value_counts_until_the_end_of_the_key_and_a_former_one_until_its_own() {
        use Value::{Current, Former};
        let now = datetime!(2026-11-24 12:00 UTC);
        let (past, future) = (Some(now), Some(now + Duration::seconds(1)));
        let rows = [
            (None, None, Current, Ok(())),
            (future, None, Current, Ok(())),
            (past, None, Current, Err(Ended::Expired)),
            (None, Some(future), Current, Ok(())),
            (None, Some(future), Former, Ok(())),
            (None, Some(past), Former, Err(Ended::Replaced)),
            (None, Some(None), Former, Err(Ended::Replaced)),
            (None, None, Former, Err(Ended::Replaced)),
            (past, Some(future), Former, Err(Ended::Expired)),
        ];
        for (expires_at, former_until, shown, expected) in rows {
            let rotation =
                former_until.map(|former_until| Rotation { rotated_at: now, former_until });
            let key = ApiKey {
                expires_at,
                rotation,
                ..ApiKey::new("ci", vec![], Scope::Everything, now)
            };
            assert_eq!(
                key.admits(shown, now),
                expected,
                "{expires_at:?} {former_until:?} {shown:?}"
            );
        }
    }
}
