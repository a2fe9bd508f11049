//! The lines of the library, if `RUST_LOG` selects some.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;

use super::screen::Screen;
use crate::logging;

/// Begins to log to standard error; above the line that is typed, if that is on the same terminal.
pub(super) fn begin(screen: &Arc<Screen>, is_typed: bool) {
    let (screen, is_typed) = (screen.clone(), is_typed && io::stderr().is_terminal());
    logging::begin(None, move || Lines { screen: screen.clone(), is_typed });
}

struct Lines {
    screen: Arc<Screen>,
    is_typed: bool,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.is_typed {
            true => self.screen.show(String::from_utf8_lossy(line).trim_end())?,
            false => self.screen.write_error(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
