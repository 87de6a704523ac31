//! Enums whose variants have words, in the database and for clients.

/// Gives an enum its variants (`ALL`), their words (`as_str`) and the way back (`parse`).
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        impl $name {
            /// Every variant, as they stand in the declaration.
            pub const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            $(#[$doc])*
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// Reads what [`Self::as_str`] wrote.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|one| one.as_str() == text)
            }
        }
    };
}
pub(crate) use words;
