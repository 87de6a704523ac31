//! Enums whose variants have words, in the database and for clients.

/// Declares an enum with the word of each variant: all of them (`ALL`), the word (`as_str`) and the way back
/// (`parse`). A `serde enum` is written and read by these words too.
macro_rules! words {
    ($(#[$attribute:meta])* $vis:vis serde enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $word:tt),+ $(,)?
    }) => {
        $(#[$attribute])*
        $vis enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }
        $crate::domain::words::words! { @impl $vis $name { $($variant = $word),+ } }
    };
    ($(#[$attribute:meta])* $vis:vis enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $word:tt),+ $(,)?
    }) => {
        $(#[$attribute])*
        $vis enum $name {
            $($(#[$doc])* $variant,)+
        }
        $crate::domain::words::words! { @impl $vis $name { $($variant = $word),+ } }
    };
    (@impl $vis:vis $name:ident { $($variant:ident = $word:tt),+ }) => {
        impl $name {
            /// Every variant, as they stand in the declaration.
            $vis const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The variant's word.
            $vis fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word),+
                }
            }

            /// Reads what [`Self::as_str`] wrote.
            $vis fn parse(text: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|one| one.as_str() == text)
            }
        }
    };
}
pub(crate) use words;
