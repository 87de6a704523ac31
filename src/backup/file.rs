//! The file: lines of JSON, compressed by gzip.
//!
//! The first line is the [`Manifest`], which says how many rows of which tables follow; then comes a line for each row,
//! table by table, and as the last line the checksum of all of these.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read as _, Write};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;

/// The version of the format.
pub(super) const FORMAT: u32 = 1;

/// Much longer than any row: whatever claims more is no backup, and is not read into memory.
const LONGEST_LINE: u64 = 64 << 20;

/// The first bytes of whatever gzip has packed.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The version of the file's format.
    pub(super) certwright_backup: u32,
    /// The program that made it.
    pub version: String,
    /// The version of the database's schema.
    pub schema: i64,
    /// `sqlite` or `postgres`.
    pub database: String,
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Base64 of what the master key is told by; none if nothing was ever sealed.
    pub(super) master_key_check: Option<String>,
    /// Each behind those that its rows refer to.
    pub tables: Vec<TableRows>,
}

/// A table in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRows {
    pub name: String,
    pub columns: Vec<String>,
    pub rows: u64,
}

/// What every version of the manifest has.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Format {
    certwright_backup: u32,
}

#[derive(Serialize, Deserialize)]
struct End {
    sha256: String,
}

/// Why a file is not taken for a backup.
#[derive(Debug, Error)]
pub enum FileError {
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    #[error(
        "it is none, or damaged or incomplete from its beginning: `certwright backup FILE` makes such files; nothing was \
         restored"
    )]
    Foreign,
    #[error("it has the format of a newer certwright ({0}): install that one")]
    NewerFormat(u32),
    #[error("it is damaged or incomplete ({0}): use another one; nothing was restored")]
    Damaged(String),
}

impl Manifest {
    /// The rows of all tables.
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|table| table.rows).sum()
    }
}

/// Writes a backup.
pub(super) struct Writer<W: Write> {
    lines: BufWriter<GzEncoder<W>>,
    hash: Context,
}

impl<W: Write> Writer<W> {
    pub(super) fn begin(file: W, manifest: &Manifest) -> io::Result<Self> {
        let lines = BufWriter::new(GzEncoder::new(file, Compression::fast()));
        let mut writer = Self { lines, hash: Context::new(&SHA256) };
        writer.row(&serde_json::to_string(manifest)?)?;
        Ok(writer)
    }

    pub(super) fn row(&mut self, row: &str) -> io::Result<()> {
        for part in [row.as_bytes(), b"\n"] {
            self.hash.update(part);
            self.lines.write_all(part)?;
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<W> {
        let end = End { sha256: hexadecimal(&self.hash) };
        writeln!(self.lines, "{}", serde_json::to_string(&end)?)?;
        self.lines.into_inner().map_err(io::IntoInnerError::into_error)?.finish()
    }
}

/// Reads a backup in its order: as many rows as the manifest says, then the end.
pub(super) struct Reader<R: BufRead> {
    lines: BufReader<GzDecoder<R>>,
    hash: Context,
    manifest: Manifest,
}

impl Reader<BufReader<File>> {
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        Self::new(BufReader::new(File::open(path).map_err(FileError::Unreadable)?))
    }
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(mut file: R) -> Result<Self, FileError> {
        if !file.fill_buf().map_err(FileError::Unreadable)?.starts_with(&GZIP) {
            return Err(FileError::Foreign);
        }
        let mut lines = BufReader::new(GzDecoder::new(file));
        let mut hash = Context::new(&SHA256);
        let mut line = String::new();
        read_line(&mut lines, &mut line)?;
        let Format { certwright_backup: format } =
            serde_json::from_str(&line).map_err(|_| FileError::Foreign)?;
        if format > FORMAT {
            return Err(FileError::NewerFormat(format));
        }
        let manifest = serde_json::from_str(&line).map_err(|error| damaged(&error))?;
        hash.update(line.as_bytes());
        hash.update(b"\n");
        Ok(Self { lines, hash, manifest })
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Reads the next row into `row`.
    pub(super) fn row(&mut self, row: &mut String) -> Result<(), FileError> {
        read_line(&mut self.lines, row)?;
        self.hash.update(row.as_bytes());
        self.hash.update(b"\n");
        Ok(())
    }

    /// Makes sure that the file is whole.
    pub(super) fn end(mut self) -> Result<Manifest, FileError> {
        let mut line = String::new();
        read_line(&mut self.lines, &mut line)?;
        let end: End = serde_json::from_str(&line).map_err(|error| damaged(&error))?;
        if end.sha256 != hexadecimal(&self.hash) {
            return Err(damaged(&"its checksum is another one"));
        }
        // gzip's own checksum comes behind the last byte.
        match self.lines.read(&mut [0]) {
            Ok(0) => Ok(self.manifest),
            Ok(_) => Err(damaged(&"something follows its end")),
            Err(error) => Err(failed(error)),
        }
    }
}

fn read_line<R: BufRead>(
    lines: &mut BufReader<GzDecoder<R>>,
    line: &mut String,
) -> Result<(), FileError> {
    line.clear();
    lines.take(LONGEST_LINE).read_line(line).map_err(failed)?;
    match line.pop() {
        Some('\n') => Ok(()),
        _ => Err(damaged(&"it ends too early")),
    }
}

fn failed(error: io::Error) -> FileError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof => damaged(&error),
        _ => FileError::Unreadable(error),
    }
}

fn damaged(why: &dyn std::fmt::Display) -> FileError {
    FileError::Damaged(why.to_string())
}

fn hexadecimal(hash: &Context) -> String {
    let hash = hash.clone().finish();
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn manifest(rows: u64) -> Manifest {
        let table = TableRows { name: "t".into(), columns: vec!["a".into()], rows };
        Manifest {
            certwright_backup: FORMAT,
            version: "1.2.3".into(),
            schema: 7,
            database: "sqlite".into(),
            created_at: datetime!(2026-11-27 20:00 UTC),
            master_key_check: None,
            tables: vec![table],
        }
    }

    fn written(manifest: &Manifest, rows: &[&str]) -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), manifest).unwrap();
        for row in rows {
            writer.row(row).unwrap();
        }
        writer.end().unwrap()
    }

    fn read(file: &[u8]) -> Result<Vec<String>, FileError> {
        let mut reader = Reader::new(file)?;
        let mut rows = Vec::new();
        for _ in 0..reader.manifest().rows() {
            let mut row = String::new();
            reader.row(&mut row)?;
            rows.push(row);
        }
        reader.end()?;
        Ok(rows)
    }

    #[test]
    fn what_was_written_is_read() {
        let rows = [r#"{"a":1}"#, r#"{"a":"two"}"#];
        let file = written(&manifest(2), &rows);
        assert_eq!(read(&file).unwrap(), rows);
        assert_eq!(*Reader::new(&*file).unwrap().manifest(), manifest(2));
    }

    #[test]
    fn a_file_that_was_cut_off_anywhere_is_refused() {
        let file = written(&manifest(2), &[r#"{"a":1}"#, r#"{"a":"two"}"#]);
        for length in 0..file.len() {
            let refused = read(&file[..length]).unwrap_err();
            assert!(
                matches!(refused, FileError::Damaged(_) | FileError::Foreign),
                "{length}: {refused}"
            );
        }
    }

    #[test]
    fn a_file_of_which_a_byte_was_changed_never_brings_other_rows() {
        let rows = [r#"{"a":1}"#, r#"{"a":"two"}"#];
        let whole = written(&manifest(2), &rows);
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut file = whole.clone();
            file[at] ^= 0x10;
            match read(&file) {
                Err(_) => refused += 1,
                // Not every bit of gzip's frame means something.
                Ok(read) => assert_eq!(read, rows, "byte {at}"),
            }
        }
        assert!(refused > whole.len() * 9 / 10, "{refused} of {}", whole.len());
    }

    #[test]
    fn more_or_fewer_rows_than_the_manifest_says_are_refused() {
        for count in [0, 1, 3] {
            let file = written(&manifest(count), &[r#"{"a":1}"#, r#"{"a":2}"#]);
            assert!(matches!(read(&file), Err(FileError::Damaged(_))), "{count}");
        }
    }

    #[test]
    fn another_file_and_a_newer_format_are_told_apart() {
        assert!(matches!(read(b"SQLite format 3\0"), Err(FileError::Foreign)));
        let newer = Manifest { certwright_backup: FORMAT + 1, ..manifest(0) };
        assert!(matches!(read(&written(&newer, &[])), Err(FileError::NewerFormat(2))));
        let refused = read(&written(&manifest(1), &[])).unwrap_err().to_string();
        assert!(refused.contains("use another one"), "{refused}");
    }
}
