//! The options of `anyloop connect`, and what follows from them.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyloop::ClientConfig;
use anyloop::http::{HeaderValue, header};
use base64::prelude::{BASE64_STANDARD, Engine};

use super::file;
use super::messages::{Messages, Outgoing};
use crate::client_tls;
use crate::compression::Compression;
use crate::error::CliError;
use crate::route_flags;
use crate::values::{self, Cookie, Credentials, Header, Origin, Timeout, Url, Wait};

/// The default of `--max-message`, in bytes.
const MAX_MESSAGE: u64 = 16 << 20;

/// The default of `--wait` if the input is neither a terminal nor /dev/null.
const WAIT: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The URL to connect to: ws://[USER:PASSWORD@]HOST[:PORT][/PATH], or wss:// for TLS.
    #[arg(value_parser = Url::or_socket)]
    pub(super) url: Url,
    /// Send every message back, and read no input. For conformance suites.
    #[arg(long, conflicts_with_all = ["subscribe", "text", "binary", "once", "exit_after", "json", "output"])]
    pub(super) echo: bool,
    /// Read no input, and print messages until the server closes.
    #[arg(long)]
    pub(super) subscribe: bool,
    #[command(flatten)]
    pub(super) messages: Messages,
    /// Close after the first message that arrives, as --exit-after 1.
    #[arg(long, conflicts_with = "exit_after")]
    once: bool,
    /// Close when this many messages have arrived. At a terminal, lines are typed at the prompt until then, unless
    /// --text, --binary or --output is given.
    #[arg(long, value_name = "N", value_parser = values::number::<u64>(1, u64::MAX))]
    exit_after: Option<u64>,
    /// Print a text message that is JSON with a line for each element.
    #[arg(long, conflicts_with = "output")]
    pub(super) json: bool,
    /// Write the messages that arrive to this file, unchanged and one after the other, instead of printing them. "-"
    /// is standard output. Not with --json or --echo.
    ///
    /// They are written while they arrive, in constant memory, so a message may have any size. Of a compressed message
    /// the first 64 KiB, as compressed, wait for more or for the end; with --no-deflate nothing waits. Nothing is added
    /// between the messages. The file is created, or emptied if it exists, when the connection opens: if none opens,
    /// nothing changes. A file that cannot be written is refused at the start. If the connection ends inside of a
    /// message, the file keeps the part that has arrived, and the exit status is 1; --reconnect removes the part from a
    /// regular file and goes on; from standard output or a pipe it cannot, and ends. With "-" at a terminal, control
    /// characters of messages are not escaped. Standard error shows a progress bar if it is a terminal. Where messages
    /// are typed, a line above that of the prompt shows once a second how much of a message has arrived.
    #[arg(long, short, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Connect again when the connection is lost or cannot be made, after 0.5 s, 1 s, 2 s, up to 30 s.
    ///
    /// The times begin anew after a connection that lasted for 10 s. A server asks for another one by the codes 1001
    /// and 1011 to 1014, or by 408, 425, 429 and 5xx in the opening handshake. What was sent on a connection that
    /// failed may be lost: the exit status is then 1, except after a signal or where messages are typed. --text and
    /// --binary are sent once, not again on the next connection. Lines of a program wait for the next connection. A
    /// line that a person types without a connection is not sent, and the screen says so; after a loss it also names
    /// what was typed and not sent, and what may be lost, since nothing has arrived after it.
    #[arg(long)]
    pub(super) reconnect: bool,
    /// Neither read nor write the history of what is typed, $XDG_STATE_HOME/anyloop/history.
    #[arg(long)]
    pub(super) no_history: bool,
    /// Connect to this Unix socket instead of the URL's host and port.
    #[cfg(unix)]
    #[arg(long, value_name = "PATH")]
    pub(super) unix: Option<PathBuf>,
    /// Send a header field with the request (repeatable).
    #[arg(long, short = 'H', value_name = "NAME: VALUE")]
    header: Vec<Header>,
    /// Send a cookie (repeatable).
    #[arg(long, value_name = "NAME=VALUE")]
    cookie: Vec<Cookie>,
    /// Authenticate by HTTP's Basic scheme. Other users of this machine may see the password in the list of processes.
    #[arg(long, value_name = "USER:PASSWORD")]
    user: Option<Credentials>,
    /// Offer a subprotocol (repeatable, in order of preference).
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Send this Origin, as a web page would.
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<Origin>,
    /// The largest message that is accepted, and the longest line that is sent: 16777216 by default; with --output,
    /// lines are limited by that, and messages are not.
    #[arg(long, value_name = "BYTES", value_parser = values::bytes)]
    max_message: Option<u64>,
    /// After the end of the input, close after this long without input from the server. 0 closes at
    /// once, "forever" waits until the server closes.
    ///
    /// The default is 1, so that answers on their way are printed; 0 if the input is a terminal; and
    /// "forever" with --subscribe, with --once and --exit-after except at the prompt, or if the input is /dev/null and
    /// no message is given.
    #[arg(long, value_name = "S")]
    wait: Option<Wait>,
    /// Time limit for the opening handshake, counted from the TCP connection.
    #[arg(long, value_name = "S", default_value = "5")]
    handshake_timeout: Timeout,
    /// Time limit for the closing handshake.
    #[arg(long, value_name = "S", default_value = "5")]
    close_timeout: Timeout,
    #[command(flatten)]
    compression: Compression,
    #[command(flatten)]
    tls: client_tls::Options,
    #[command(flatten)]
    pub(super) route: route_flags::Options,
    #[command(flatten)]
    redirects: route_flags::Redirects,
}

impl Options {
    /// Whether a person types, and sees the messages.
    pub(super) fn is_typed(&self) -> bool {
        // With the number of messages to wait for, and those to send or the file to write, nothing is left to type.
        let has_purpose = !self.messages.0.is_empty() || self.output.is_some();
        let leaves_nothing = self.exit_after().is_some() && has_purpose;
        let for_program = self.echo || self.subscribe || leaves_nothing;
        let shows_messages = io::stdout().is_terminal() && !self.writes_to_stdout();
        !for_program && io::stdin().is_terminal() && shows_messages
    }

    pub(super) fn reads_terminal(&self) -> bool {
        !self.subscribe && io::stdin().is_terminal()
    }

    /// Whether `--output` names standard output. Opened by its path, a file would be emptied.
    pub(super) fn writes_to_stdout(&self) -> bool {
        self.output
            .as_ref()
            .is_some_and(|path| path.as_os_str() == "-" || path == Path::new("/dev/stdout"))
    }

    /// After how many messages the connection is closed.
    pub(super) fn exit_after(&self) -> Option<u64> {
        if self.once { Some(1) } else { self.exit_after }
    }

    /// The longest line that is sent, in bytes.
    pub(super) fn max_line(&self) -> u64 {
        self.max_message.unwrap_or(MAX_MESSAGE)
    }

    /// The largest message that is accepted, in bytes.
    fn max_received(&self) -> u64 {
        let default = if self.output.is_some() { u64::MAX } else { MAX_MESSAGE };
        self.max_message.unwrap_or(default)
    }

    /// How long to stay connected after the end of the input.
    pub(super) fn wait(&self) -> Wait {
        match (self.wait, io::stdin()) {
            (Some(wait), _) => wait,
            _ if self.subscribe => Wait::Forever,
            _ if self.exit_after().is_some() && !self.is_typed() => Wait::Forever,
            (_, stdin) if stdin.is_terminal() => Wait::For(Duration::ZERO),
            (_, stdin) if is_null(&stdin) && self.messages.0.is_empty() => Wait::Forever,
            _ => Wait::For(WAIT),
        }
    }

    /// Whether `--location` was not given, and would make the connection follow redirects.
    pub(super) fn may_follow(&self) -> bool {
        #[cfg(unix)]
        if self.unix.is_some() {
            return false; // a Unix socket follows none
        }
        self.redirects.most() == 0
    }

    /// Whether the files to send can be read: it is known before the server is.
    pub(super) fn check_files(&self) -> Result<(), CliError> {
        for message in &self.messages.0 {
            let Outgoing::File(path) = message else { continue };
            let file = file::open(path);
            let file = file.map_err(|why| CliError::usage(format!("--binary: {why}")))?;
            if self.output.as_ref().is_some_and(|output| file::is_at(&file, output)) {
                let path = path.display();
                return Err(CliError::usage(format!(
                    "--output would overwrite {path}, which --binary sends"
                )));
            }
        }
        match &self.output {
            Some(output) if !self.subscribe && stdin_is_at(output) => Err(CliError::usage(
                format!("--output would overwrite {}, which is standard input", output.display()),
            )),
            _ => Ok(()),
        }
    }

    /// The configuration of the client.
    pub(super) fn config(&self) -> Result<ClientConfig, CliError> {
        let mut config = ClientConfig::new()
            .streaming(self.output.is_some())
            .max_message_size(self.max_received())
            .open_timeout(self.handshake_timeout.0)
            .close_timeout(self.close_timeout.0)
            // No message is lost: the echo pauses above the high-water mark, and the input waits by itself.
            .max_send_buffer(usize::MAX);
        for name in &self.subprotocol {
            config = config.subprotocol(name);
        }
        self.check_fields()?;
        for Header(name, value) in &self.header {
            if *name != header::COOKIE {
                config = config.header(name, value);
            }
        }
        if let Some(cookies) = self.cookies() {
            config = config.header(header::COOKIE, field_value(&cookies)?);
        }
        if let Some(Credentials(credentials)) = &self.user {
            let value = format!("Basic {}", BASE64_STANDARD.encode(credentials));
            config = config.header(header::AUTHORIZATION, field_value(value.as_bytes())?);
        }
        if let Some(Origin(origin)) = &self.origin {
            config = config.origin(field_value(origin.as_bytes())?);
        }
        let redirects = self.redirects.most();
        if let Some(tls) = self.tls.tls(self.url.0.secure(), redirects > 0)? {
            config = config.tls(tls);
        }
        let config = config.proxy(self.route.proxies()?).redirects(redirects);
        Ok(self.compression.of_client(config))
    }

    /// Refuses a field of `--header` that has an option of its own, and a second `Authorization`: a request has one.
    fn check_fields(&self) -> Result<(), CliError> {
        let has = |field| self.header.iter().filter(move |Header(name, _)| *name == field);
        for (field, name, option) in [
            (header::ORIGIN, "Origin", "--origin"),
            (header::SEC_WEBSOCKET_PROTOCOL, "Sec-WebSocket-Protocol", "--subprotocol"),
        ] {
            if has(field).next().is_some() {
                return Err(CliError::usage(format!("{name} is set by {option}, not by --header")));
            }
        }
        let url = self.url.0.authorization().map(|_| "the URL");
        let user = self.user.as_ref().map(|_| "--user");
        let headers = has(header::AUTHORIZATION).map(|_| "--header");
        let sources: Vec<_> = url.into_iter().chain(user).chain(headers).collect();
        let twice = match sources.as_slice() {
            [] | [_] => return Ok(()),
            [one, other, ..] if one == other => format!("{one} sets Authorization twice"),
            [one, other, ..] => format!("{one} and {other} both set Authorization"),
        };
        Err(CliError::usage(format!("{twice}: leave one out")))
    }

    /// All cookies, of `--header` and of `--cookie`: a request has one field for them (RFC 6265 §5.4).
    fn cookies(&self) -> Option<Vec<u8>> {
        let headers = self.header.iter().filter(|Header(name, _)| name == header::COOKIE);
        let headers = headers.map(|Header(_, value)| without_separators(value.as_bytes()));
        let cookies = self.cookie.iter().map(|Cookie(cookie)| cookie.as_bytes());
        let cookies: Vec<_> = headers.chain(cookies).filter(|value| !value.is_empty()).collect();
        (!cookies.is_empty()).then(|| cookies.join(&b"; "[..]))
    }
}

/// Cookies without spaces and semicolons around them.
fn without_separators(mut cookies: &[u8]) -> &[u8] {
    while let [b' ' | b'\t' | b';', rest @ ..] | [rest @ .., b' ' | b'\t' | b';'] = cookies {
        cookies = rest;
    }
    cookies
}

fn field_value(bytes: &[u8]) -> Result<HeaderValue, CliError> {
    HeaderValue::from_bytes(bytes).map_err(|error| CliError::usage(error.to_string()))
}

/// Whether standard input is the regular file at this path.
#[cfg(unix)]
fn stdin_is_at(path: &Path) -> bool {
    use std::os::fd::AsFd;

    let stdin = io::stdin().as_fd().try_clone_to_owned();
    stdin.is_ok_and(|stdin| file::is_at(&stdin.into(), path))
}

#[cfg(not(unix))]
const fn stdin_is_at(_: &Path) -> bool {
    false
}

/// Whether the input is /dev/null.
#[cfg(unix)]
fn is_null(stdin: &io::Stdin) -> bool {
    use rustix::fs::{FileType, fstat, stat};

    let (Ok(stdin), Ok(null)) = (fstat(stdin), stat("/dev/null")) else { return false };
    let is_device = FileType::from_raw_mode(stdin.st_mode).is_char_device();
    is_device && stdin.st_rdev == null.st_rdev
}

#[cfg(not(unix))]
const fn is_null(_: &io::Stdin) -> bool {
    false
}
