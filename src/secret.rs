//! Secrets in memory, and sealed at rest.
//!
//! [`Secret`] cannot be printed, compared by accident or serialized. [`Sealer`] turns secrets into
//! envelopes for the database and back.

use zeroize::{Zeroize, Zeroizing};

/// A value that must not be shown: no `Display`, no `Serialize`, and a `Debug` that hides it.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(Zeroizing<T>);

impl<T: Zeroize> Secret<T> {
    /// Takes a value into custody; it is wiped from memory when dropped.
    pub fn new(value: T) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The value itself. Every call is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> std::fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}
