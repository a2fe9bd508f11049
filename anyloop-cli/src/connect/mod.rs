//! `anyloop connect`: a WebSocket client.

mod handler;
mod input;
mod print;
mod terminal;

use std::io::{self, IsTerminal};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyloop::http::HeaderValue;
use anyloop::net::{Client, Error};
use anyloop::{ClientConfig, EventLoop};

use self::handler::{Closed, ConnectHandler};
use self::input::Input;
use self::print::Printer;
use crate::client_tls;
use crate::compression::Compression;
use crate::route_flags;
use crate::stop::{Stop, chain};
use crate::values::{Header, Origin, Timeout, Url, Wait};

/// The default of `--wait`.
const WAIT: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The URL to connect to: ws://HOST[:PORT][/PATH], or wss:// for TLS.
    url: Url,
    /// Send every message back, and read no input. For conformance suites.
    #[arg(long)]
    echo: bool,
    /// Connect to this Unix socket instead of the URL's host and port.
    #[cfg(unix)]
    #[arg(long, value_name = "PATH")]
    unix: Option<std::path::PathBuf>,
    /// Send a header field with the request (repeatable).
    #[arg(long, value_name = "NAME: VALUE")]
    header: Vec<Header>,
    /// Offer a subprotocol (repeatable, in order of preference).
    #[arg(long, value_name = "NAME")]
    subprotocol: Vec<String>,
    /// Send this Origin, as a web page would.
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<Origin>,
    /// The largest message that is accepted, and the longest line that is sent.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_message: u64,
    /// After the end of the input, close after this long without input from the server. 0 closes at
    /// once, "forever" waits until the server closes.
    ///
    /// The default is 1, so that answers on their way are printed; 0 if the input is a terminal; and
    /// "forever" if the input is /dev/null, to print what a server sends by itself.
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
    route: route_flags::Options,
    #[command(flatten)]
    redirects: route_flags::Redirects,
}

/// Runs the client until the connection has ended.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    let (sender, outcome) = mpsc::channel();
    let input = Arc::new(Input::new(options.max_message));
    let typed = io::stdin().is_terminal();
    let printer = Printer::new(typed && io::stdout().is_terminal() && !options.echo);
    let event_loop = EventLoop::new()?;
    let handler = ConnectHandler {
        input: (!options.echo).then(|| input.clone()),
        printer: printer
            .map_err(|e| Stop::failed(format!("cannot write to standard output: {e}")))?,
        wait: options.wait.unwrap_or_else(default_wait),
        last_message: None,
        outcome: sender,
        event_loop: event_loop.clone(),
        #[cfg(unix)]
        signals: None,
        interrupted: false,
    };
    let factory = move || handler.clone();
    let mut client = Client::with_factory_on(&event_loop, config(options)?, factory);
    options.route.overrides().apply(&mut client);
    let request = client.request(options.url.0.clone())?;
    #[cfg(unix)]
    let request = match &options.unix {
        Some(path) => request.to_unix(path),
        None => request,
    };
    request.connect().map_err(|error| match error {
        Error::Request(_) => Stop::usage(chain(&error)),
        error => error.into(),
    })?;
    client.run();
    input.failure()?; // the cause, if it has ended the connection
    let closed = outcome.try_recv();
    let closed = closed
        .unwrap_or_else(|_| Err(Stop::failed("the connection ended without being reported")))?;
    match closed == Closed::BySignal || options.echo || typed {
        true => Ok(()), // unsent input is no loss here
        false => input.loss(),
    }
}

/// The default of `--wait` for this input.
fn default_wait() -> Wait {
    match io::stdin() {
        stdin if stdin.is_terminal() => Wait::For(Duration::ZERO),
        stdin if is_null(&stdin) => Wait::Forever,
        _ => Wait::For(WAIT),
    }
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

fn config(options: &Options) -> Result<ClientConfig, Stop> {
    let mut config = ClientConfig::new()
        .max_message_size(options.max_message)
        .open_timeout(options.handshake_timeout.0)
        .close_timeout(options.close_timeout.0)
        // No message is lost: the echo pauses above the high-water mark, and the input waits by itself.
        .max_backlog(usize::MAX);
    for name in &options.subprotocol {
        config = config.subprotocol(name);
    }
    for Header(name, value) in &options.header {
        config = config.header(name.clone(), value.clone());
    }
    if let Some(Origin(origin)) = &options.origin {
        let origin = HeaderValue::from_str(origin);
        config = config.origin(origin.map_err(|error| Stop::usage(error.to_string()))?);
    }
    if let Some(tls) = options.tls.tls(options.url.0.secure())? {
        config = config.tls(tls);
    }
    let config = config.proxy(options.route.proxies()?).redirects(options.redirects.most());
    Ok(options.compression.of_client(config))
}
