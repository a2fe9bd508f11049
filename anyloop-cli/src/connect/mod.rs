//! `anyloop connect`: a WebSocket client.

mod conversation;
mod input;
mod print;
mod refusal;
mod terminal;

use std::io::{self, IsTerminal};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyloop::endpoint::ClientSettings;
use anyloop::net::{Error, Net};
use anyloop::proto::Config;
use anyloop::proto::handshake::ClientOptions;
use anyloop::proto::handshake::http::HeaderValue;
use anyloop::{Client, EventLoop};

use self::conversation::{Closed, Conversation};
use self::input::Input;
use self::print::Printer;
use crate::stop::Stop;
use crate::values::{Header, Origin, Timeout, Url, Wait};

/// An answer that comes later than this after the last line is not waited for.
const WAIT: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to connect to: ws://HOST[:PORT][/PATH].
    url: Url,
    /// Send every message back, and read no input: a peer for conformance suites.
    #[arg(long)]
    echo: bool,
    /// Connect to a Unix socket, instead of the URL's host and port.
    #[cfg(unix)]
    #[arg(long, value_name = "PATH")]
    unix: Option<std::path::PathBuf>,
    /// Send a header field with the request (repeatable).
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<Header>,
    /// Ask for a subprotocol (repeatable, the best first).
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Pass for a web page of this origin.
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<Origin>,
    /// The largest message that is received, and the longest line that is sent.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_message: u64,
    /// After the end of the input, close when nothing has come for this long; 0: at once; "forever":
    /// stay until the server closes.
    ///
    /// By default it waits for 1 second, so that answers that are on their way are printed; at a
    /// terminal it closes at once. Where the input is /dev/null it stays for ever, to print what a
    /// server sends by itself.
    #[arg(long, value_name = "S")]
    wait: Option<Wait>,
    /// How long the opening handshake may take, after the server is connected to.
    #[arg(long, value_name = "S", default_value = "5")]
    handshake_timeout: Timeout,
    /// How long the closing handshake may take.
    #[arg(long, value_name = "S", default_value = "5")]
    close_timeout: Timeout,
}

/// Talks to the server until the connection is over.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    let (tell, told) = mpsc::channel();
    let input = Arc::new(Input::new(options.max_message));
    let typed = io::stdin().is_terminal();
    let printer = Printer::new(typed && io::stdout().is_terminal() && !options.echo);
    let event_loop = EventLoop::new()?;
    let conversation = Conversation {
        input: (!options.echo).then(|| input.clone()),
        printer: printer
            .map_err(|e| Stop::failed(format!("cannot write to standard output: {e}")))?,
        wait: options.wait.unwrap_or_else(default_wait),
        heard: None,
        outcome: tell,
        event_loop: event_loop.clone(),
        #[cfg(unix)]
        signals: None,
        interrupted: false,
    };
    let handler = move || conversation.clone();
    let client = Client::<Net, _>::with_factory(settings(options)?, handler);
    client.set_event_loop(&event_loop)?;
    let request = client.request(options.url.0.clone())?;
    #[cfg(unix)]
    let request = match &options.unix {
        Some(path) => request.to_unix(path),
        None => request,
    };
    request.connect().map_err(|error| match error {
        Error::Request(_) => Stop::usage(error.to_string()),
        error => error.into(),
    })?;
    client.run()?;
    input.failure()?; // how it ended comes of that
    let closed = told.try_recv();
    let closed = closed.unwrap_or_else(|_| Err(Stop::failed("the connection ended untold")))?;
    match closed == Closed::BySignal || options.echo || typed {
        true => Ok(()), // what was not typed yet, or is not wanted any more, is not lost
        false => input.loss(),
    }
}

/// How long to wait after the end of the input, unless it is said.
fn default_wait() -> Wait {
    match io::stdin() {
        stdin if stdin.is_terminal() => Wait::For(Duration::ZERO),
        stdin if is_null(&stdin) => Wait::Forever,
        _ => Wait::For(WAIT),
    }
}

/// Whether it is /dev/null: there is no input, and never was.
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

fn settings(options: &Options) -> Result<ClientSettings, Stop> {
    let mut connection = Config::default();
    connection.max_message_size = options.max_message;
    connection.close_timeout = options.close_timeout.0;

    let mut handshake = ClientOptions::default();
    handshake.open_timeout = options.handshake_timeout.0;
    handshake.connection = Arc::new(connection);
    handshake.subprotocols.clone_from(&options.subprotocol);
    for Header(name, value) in &options.header {
        handshake.headers.append(name, value.clone());
    }
    if let Some(Origin(origin)) = &options.origin {
        let origin = HeaderValue::from_str(origin);
        handshake.origin = Some(origin.map_err(|error| Stop::usage(error.to_string()))?);
    }

    let mut settings = ClientSettings::from(handshake);
    // Who sends here waits, an echo above the high mark and input by itself; nothing is to be lost.
    settings.backlog.cap = usize::MAX;
    Ok(settings)
}
