//! Sends a file as one binary message, in constant memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use anyloop::Handler;
use anyloop::endpoint::Handle;
use anyloop::proto::Kind;

use super::link::Link;
use super::print::Printer;
use super::progress::Progress;

/// The payload of a frame. A file of at most this size is one frame.
const PIECE: usize = 256 * 1024;

/// A file of at least this size has a progress bar.
const LARGE: u64 = 4 << 20;

/// Sends a file, and tells a person when the transport has taken all of it. The error says why the file is not sent.
pub(super) fn send<H: Handler>(
    path: &Path,
    connection: &Handle<H>,
    link: &Arc<Link<H>>,
    printer: &Printer,
) -> Result<(), String> {
    let mut file = open(path)?;
    let lost_before = link.lost();
    let size = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    let progress = (size >= LARGE).then(|| Progress::sending(size, &printer.screen));
    let mut reader = PieceReader { file: &mut file, path };
    let mut piece = reader.read()?;
    let mut read = piece.len() as u64;
    if piece.len() < PIECE {
        link.send(connection, piece).map_err(|error| format!("not sent: {error}"))?;
    } else {
        let mut writer = connection.begin(Kind::Binary);
        loop {
            // The end of a pipe is known only when nothing more comes.
            let next = reader.read()?;
            let last = next.is_empty();
            let sent = link.send_piece(&mut writer, piece, last);
            sent.map_err(|error| format!("not sent: {error}"))?;
            link.await_room();
            if let Some(progress) = &progress {
                progress.show(read.saturating_sub(link.waiting() as u64));
            }
            if last {
                break;
            }
            read += next.len() as u64;
            piece = next;
        }
    }
    link.await_sent();
    drop(progress);
    match link.lost() == lost_before {
        true => printer.sent("binary", read, &path.display().to_string()),
        false => printer.note(&format!("{} was not sent: the connection ended", path.display())),
    }
    Ok(())
}

/// Opens a file that can be sent. The error says why not.
pub(super) fn open(path: &Path) -> Result<File, String> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.is_dir(), file)));
    match opened.map_err(|error| unreadable(path, &error))? {
        (true, _) => Err(format!("cannot read {}: it is a directory", path.display())),
        (false, file) => Ok(file),
    }
}

/// Whether this is the regular file at the path, by whatever name it was opened.
#[cfg(unix)]
pub(super) fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let (Ok(file), Ok(other)) = (file.metadata(), path.metadata()) else { return false };
    file.is_file() && (file.dev(), file.ino()) == (other.dev(), other.ino())
}

/// The system does not tell.
#[cfg(not(unix))]
pub(super) const fn is_at(_: &File, _: &Path) -> bool {
    false
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// Reads a file in pieces.
struct PieceReader<'f> {
    file: &'f mut File,
    path: &'f Path,
}

impl PieceReader<'_> {
    /// Reads a full piece, or less at the end.
    fn read(&mut self) -> Result<Vec<u8>, String> {
        let mut piece = Vec::with_capacity(PIECE);
        let read = self.file.take(PIECE as u64).read_to_end(&mut piece);
        read.map(|_| piece).map_err(|error| unreadable(self.path, &error))
    }
}
