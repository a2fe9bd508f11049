//! The history of what was typed, in a file: an entry is a line, with escapes for line feeds and backslashes.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The number of entries that are remembered.
pub(super) const ENTRIES: usize = 1000;

/// A file with more entries than this is written anew, with the last [`ENTRIES`].
const MAX_FILE_ENTRIES: usize = 4 * ENTRIES;

/// The longest entry that the file keeps, in bytes.
const MAX_ENTRY: usize = 64 * 1024;

/// The file of a history. It is made with the first entry, and only its owner may read it.
pub(super) struct History {
    path: PathBuf,
    file: Option<File>,
}

/// Where the history is, by the XDG Base Directory Specification: `anyloop/history` in `$XDG_STATE_HOME`, by default
/// `~/.local/state`.
pub(super) fn default_path() -> Option<PathBuf> {
    let absolute = |path: PathBuf| Some(path).filter(|path| path.is_absolute());
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).and_then(absolute);
    let home = || env::var_os("HOME").map(PathBuf::from).and_then(absolute);
    Some(state.or_else(|| Some(home()?.join(".local/state")))?.join("anyloop/history"))
}

impl History {
    /// The history of a file, and its last entries. A file that cannot be read has none.
    pub(super) fn open(path: &Path) -> (Self, Vec<String>) {
        let content = fs::read(path).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines: Vec<_> = content.lines().collect();
        let last = &lines[lines.len().saturating_sub(ENTRIES)..];
        let this = Self { path: path.into(), file: None };
        if lines.len() > MAX_FILE_ENTRIES {
            let _ = this.replace(last); // a long history is no error
        }
        (this, last.iter().copied().map(unescape).collect())
    }

    /// Appends an entry.
    pub(super) fn append(&mut self, entry: &str) -> io::Result<()> {
        if entry.len() > MAX_ENTRY {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            file => {
                if let Some(folder) = self.path.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                }
                let opened =
                    OpenOptions::new().append(true).create(true).mode(0o600).open(&self.path)?;
                file.insert(opened)
            }
        };
        file.write_all(format!("{}\n", escape(entry)).as_bytes()) // one write: others may append as well
    }

    /// Replaces the file by one with these lines, in one step: another command may read it.
    fn replace(&self, lines: &[&str]) -> io::Result<()> {
        let new = self.path.with_extension(format!("{}", std::process::id()));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = file.write_all((lines.join("\n") + "\n").as_bytes());
        written
            .and_then(|()| fs::rename(&new, &self.path))
            .inspect_err(|_| _ = fs::remove_file(&new))
    }
}

fn escape(entry: &str) -> String {
    entry.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(line: &str) -> String {
    let mut entry = String::with_capacity(line.len());
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        let unescaped = match c {
            '\\' => rest.next().map(|c| match c {
                'n' => '\n',
                'r' => '\r',
                c => c,
            }),
            c => Some(c),
        };
        entry.extend(unescaped);
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn folder(name: &str) -> PathBuf {
        let path = env::temp_dir().join(format!("anyloop-history-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn entries_come_back_in_order_and_only_their_owner_may_read_them() {
        let folder = folder("order");
        let path = folder.join("state/history");
        let (mut history, entries) = History::open(&path);
        assert_eq!(entries, [""; 0]);
        let typed = ["one", "{\n  \"a\": \"\\n\"\r\n}", "κόσμε"];
        for entry in typed {
            history.append(entry).expect("the file can be written");
        }
        assert_eq!(History::open(&path).1, typed);
        let mode =
            |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&folder.join("state"))), (0o600, 0o700));
        fs::remove_dir_all(folder).expect("the folder can be removed");
    }

    #[test]
    fn a_long_file_is_shortened() {
        let folder = folder("long");
        fs::create_dir_all(&folder).expect("the folder can be made");
        let path = folder.join("history");
        let numbers: Vec<_> = (0..=MAX_FILE_ENTRIES).map(|n| n.to_string()).collect();
        fs::write(&path, numbers.join("\n") + "\n").expect("the file can be written");
        assert_eq!(History::open(&path).1, numbers[numbers.len() - ENTRIES..]);
        let content = fs::read_to_string(&path).expect("the file can be read");
        assert_eq!(content.lines().count(), ENTRIES);
        fs::remove_dir_all(folder).expect("the folder can be removed");
    }
}
