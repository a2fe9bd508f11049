//! Sends a file as one binary message, in constant memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use anyloop::endpoint::Handle;
use anyloop::proto::Kind;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::handler::ConnectHandler;
use super::link::Link;
use super::screen::Screen;

/// The payload of a frame. A file of at most this size is one frame.
const PIECE: usize = 256 * 1024;

/// A larger file has a progress bar.
const LARGE: u64 = 4 << 20;

/// Sends a file, and returns its size when the transport has taken all of it.
pub(super) fn send(
    path: &Path,
    connection: &Handle<ConnectHandler>,
    link: &Arc<Link>,
    screen: &Arc<Screen>,
) -> Result<u64, String> {
    let unreadable = |error| unreadable(path, &error);
    let mut file = open(path)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut piece = read_piece(&mut file).map_err(unreadable)?;
    let mut sent = piece.len() as u64;
    if piece.len() < PIECE {
        link.send(connection, piece).map_err(|error| format!("not sent: {error}"))?;
        link.await_sent();
        return Ok(sent);
    }
    let bar = Bar::new(size, screen);
    let mut writer = connection.begin(Kind::Binary);
    loop {
        // The end of a pipe is known only when nothing more comes.
        let next = read_piece(&mut file).map_err(unreadable)?;
        let last = next.is_empty();
        link.send_piece(&mut writer, piece, last).map_err(|error| format!("not sent: {error}"))?;
        link.await_room();
        bar.show(sent.saturating_sub(link.waiting() as u64));
        if last {
            break;
        }
        sent += next.len() as u64;
        piece = next;
    }
    link.await_sent();
    Ok(sent)
}

/// Opens a file that can be sent. The error says why not.
pub(super) fn open(path: &Path) -> Result<File, String> {
    let opened = File::open(path).and_then(|file| Ok((file.metadata()?.is_dir(), file)));
    match opened.map_err(|error| unreadable(path, &error))? {
        (true, _) => Err(format!("cannot read {}: it is a directory", path.display())),
        (false, file) => Ok(file),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("cannot read {}: {error}", path.display())
}

/// Reads a full piece, or less at the end.
fn read_piece(file: &mut File) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    file.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

/// A progress bar on standard error, if that is a terminal and the file is large. It is erased when this is dropped.
struct Bar<'s> {
    bar: Option<ProgressBar>,
    screen: &'s Screen,
}

impl<'s> Bar<'s> {
    fn new(size: u64, screen: &'s Screen) -> Self {
        let bar = (size >= LARGE).then(|| {
            let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
            let template = "sending {bar:24} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left{wide_msg}\x1b[G";
            let style = ProgressStyle::with_template(template);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        screen.set_bar(bar.clone());
        Self { bar, screen }
    }

    fn show(&self, sent: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(sent);
        }
    }
}

impl Drop for Bar<'_> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            self.screen.set_bar(None);
            bar.finish_and_clear();
        }
    }
}
