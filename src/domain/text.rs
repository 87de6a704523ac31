//! The one rule for text: what may come in, and how the words of others are shown.
//!
//! Text ends up in rows, logs, terminals, headers and mail. A control character breaks some of them
//! (PostgreSQL keeps no NUL, a terminal obeys ESC, a line end begins a new line of a log), and marks
//! of direction make words read otherwise than they are written. Clients are told to leave both out;
//! what others say (a CA, a DNS provider, a webhook's receiver) is cleaned, as nobody can tell them.

use thiserror::Error;

/// Whether a text may have more than one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lines {
    /// A name, a URL, a token: no line ends and no tabs.
    One,
    /// PEM, for example.
    Many,
}

/// A character that has no place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must not hold the {} U+{:04X}", self.kind(), u32::from(*.0))]
pub struct Strange(pub char);

impl Strange {
    fn kind(self) -> &'static str {
        if self.0.is_control() { "control character" } else { "invisible character" }
    }
}

/// Refuses text with a character that has no place in it.
pub fn refuse(text: &str, lines: Lines) -> Result<(), Strange> {
    // Nearly everything that comes in is printable ASCII.
    if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    let goes_on = |c: char| lines == Lines::Many && matches!(c, '\n' | '\r' | '\t');
    match text.chars().find(|c| is_strange(*c) && !goes_on(*c)) {
        Some(strange) => Err(Strange(strange)),
        None => Ok(()),
    }
}

/// The words of others on one line, without strange characters and with at most `most` characters,
/// the ellipsis of what was cut included. `None` if nothing is left to be read.
pub fn foreign_words(text: &str, most: usize) -> Option<String> {
    let mut words = String::new();
    let (mut count, mut space) = (0, false);
    for c in text.chars() {
        if c.is_whitespace() || matches!(c, '\u{2028}' | '\u{2029}') {
            space = count > 0;
            continue;
        }
        if is_strange(c) {
            continue;
        }
        if count + usize::from(space) >= most {
            // Something is left out: the last character makes room for saying so.
            if count >= most {
                words.pop();
            }
            words.truncate(words.trim_end().len());
            words.push('…');
            break;
        }
        if space {
            words.push(' ');
            count += 1;
            space = false;
        }
        words.push(c);
        count += 1;
    }
    (most > 0 && !words.is_empty()).then_some(words)
}

/// Control characters (C0, DEL, C1), marks of direction, separators of lines and paragraphs, and the
/// byte order mark.
fn is_strange(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{061C}'
                | '\u{200B}'
                | '\u{200E}'
                | '\u{200F}'
                | '\u{2028}'
                | '\u{2029}'
                | '\u{202A}'..='\u{202E}'
                | '\u{2060}'..='\u{2069}'
                | '\u{FEFF}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGE: [char; 24] = [
        '\0', '\u{1}', '\u{7}', '\u{8}', '\u{B}', '\u{C}', '\u{1B}', '\u{1F}', '\u{7F}', '\u{80}',
        '\u{85}', '\u{9F}', '\u{61C}', '\u{200E}', '\u{200F}', '\u{2028}', '\u{2029}', '\u{202A}',
        '\u{202E}', '\u{2066}', '\u{2069}', '\u{FEFF}', '\u{9B}', '\u{202C}',
    ];

    #[test]
    fn a_strange_character_is_refused_wherever_it_stands() {
        for strange in STRANGE {
            for text in [format!("{strange}a"), format!("a{strange}b"), format!("ü{strange}")] {
                for lines in [Lines::One, Lines::Many] {
                    assert_eq!(refuse(&text, lines), Err(Strange(strange)), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn line_ends_are_for_text_of_many_lines() {
        for text in ["a\nb", "a\r\nb", "a\tb"] {
            assert_eq!(refuse(text, Lines::Many), Ok(()), "{text:?}");
            assert!(refuse(text, Lines::One).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_words_of_every_language_are_taken() {
        for text in ["", "plain", "a b", "Bücher für alle", "图书 書籍", "كتب", "👩‍👩‍👧", "~!@#$%^&*()"]
        {
            assert_eq!(refuse(text, Lines::One), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn what_is_refused_is_named_by_its_number_only() {
        let told = refuse("secret\0words", Lines::One).unwrap_err().to_string();
        assert_eq!(told, "must not hold the control character U+0000");
        let told = refuse("a\u{202E}b", Lines::One).unwrap_err().to_string();
        assert_eq!(told, "must not hold the invisible character U+202E");
    }

    #[test]
    fn foreign_words_become_one_clean_line() {
        for (text, words) in [
            ("plain words", "plain words"),
            ("  two\r\n\tlines \n", "two lines"),
            ("<b>\u{1b}[31mred\0</b>", "<b>[31mred</b>"),
            ("user\u{202E}gpj.exe", "usergpj.exe"),
            ("a\u{2028}b\u{85}c", "a b c"),
            ("Bücher", "Bücher"),
        ] {
            assert_eq!(foreign_words(text, 100).as_deref(), Some(words), "{text:?}");
        }
    }

    #[test]
    fn foreign_words_are_cut_between_characters_and_say_so() {
        assert_eq!(foreign_words("Bücher", 6).as_deref(), Some("Bücher"));
        assert_eq!(foreign_words("Bücher", 5).as_deref(), Some("Büch…"));
        assert_eq!(foreign_words("ab cd", 4).as_deref(), Some("ab…"));
        assert_eq!(foreign_words("ab cd  \n", 5).as_deref(), Some("ab cd"));
        assert_eq!(foreign_words("ab \0\0\0", 2).as_deref(), Some("ab"));
        assert_eq!(foreign_words("üüü", 1).as_deref(), Some("…"));
        for text in ["a b c d e f", "üü  üü", "    x   y", "\u{1F600}\u{1F600} \u{1F600}"] {
            for most in 1..12 {
                let words = foreign_words(text, most).unwrap();
                assert!(words.chars().count() <= most, "{words:?} of {text:?} within {most}");
            }
        }
    }

    #[test]
    fn nothing_to_read_is_nothing() {
        for text in ["", " \r\n", "\0\u{1b}\u{202E}"] {
            assert_eq!(foreign_words(text, 100), None, "{text:?}");
        }
        assert_eq!(foreign_words("words", 0), None);
    }
}
