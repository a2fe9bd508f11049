//! `anyloop connect`: a WebSocket client.

mod command;
#[cfg(unix)]
mod editor;
mod file;
mod handler;
#[cfg(unix)]
mod history;
mod input;
mod json;
#[cfg(unix)]
mod line;
mod link;
mod messages;
mod print;
mod retry;
mod screen;

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use std::{process, thread};

use anyloop::http::{HeaderValue, header};
use anyloop::net::{Client, Error};
use anyloop::{ClientConfig, EventLoop};
use base64::prelude::{BASE64_STANDARD, Engine};

use self::handler::{Closed, ConnectHandler, Outcome};
use self::input::{Input, Source};
use self::link::Link;
use self::messages::{Messages, Outgoing};
use self::print::Printer;
use self::retry::Backoff;
use crate::client_tls;
use crate::compression::Compression;
use crate::error::{CliError, chain};
use crate::route_flags;
use crate::values::{Cookie, Credentials, Header, Origin, Timeout, Url, Wait};

/// The default of `--wait`.
const WAIT: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The URL to connect to: ws://HOST[:PORT][/PATH], or wss:// for TLS.
    url: Url,
    /// Send every message back, and read no input. For conformance suites.
    #[arg(long, conflicts_with_all = ["subscribe", "text", "binary", "once", "exit_after", "json"])]
    echo: bool,
    /// Read no input, and print messages until the server closes.
    #[arg(long)]
    subscribe: bool,
    #[command(flatten)]
    messages: Messages,
    /// Close after the first message that arrives, as --exit-after 1.
    #[arg(long, conflicts_with = "exit_after")]
    once: bool,
    /// Close when this many messages have arrived.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    exit_after: Option<u64>,
    /// Print a text message that is JSON with a line for each element.
    #[arg(long)]
    json: bool,
    /// Connect again when the connection is lost or cannot be made, after 0.5 s, 1 s, 2 s, up to 30 s.
    ///
    /// A server asks for that by the codes 1001 and 1011 to 1014, or by 408, 425, 429 and 5xx in the opening
    /// handshake. Messages that were under way are lost; the exit status is then 1.
    #[arg(long)]
    reconnect: bool,
    /// Neither read nor write the history of what is typed, $XDG_STATE_HOME/anyloop/history.
    #[arg(long)]
    no_history: bool,
    /// Connect to this Unix socket instead of the URL's host and port.
    #[cfg(unix)]
    #[arg(long, value_name = "PATH")]
    unix: Option<std::path::PathBuf>,
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
    /// The largest message that is accepted, and the longest line that is sent.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_message: u64,
    /// After the end of the input, close after this long without input from the server. 0 closes at
    /// once, "forever" waits until the server closes.
    ///
    /// The default is 1, so that answers on their way are printed; 0 if the input is a terminal; and
    /// "forever" with --subscribe, --once and --exit-after, or if the input is /dev/null and no message is given.
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

/// Runs the client until the connection has ended, or the last one with `--reconnect`.
pub(crate) fn run(options: &Options) -> Result<(), CliError> {
    options.check_files()?;
    let (sender, outcomes) = mpsc::channel();
    let link = Arc::new(Link::default());
    let printer = Printer::new(options.is_typed(), options.json);
    let printer =
        printer.map_err(|e| CliError::failed(format!("cannot write to standard output: {e}")))?;
    let event_loop = EventLoop::new()?;
    let input = options.input(&link, &printer, &event_loop);
    let handler = options.handler(&link, &printer, &event_loop, sender);
    let factory = move || handler.clone();
    let mut client = Client::with_factory_on(&event_loop, config(options)?, factory);
    options.route.overrides().apply(&mut client);
    let connect = || {
        let request = client.request(options.url.0.clone())?;
        #[cfg(unix)]
        let request = match &options.unix {
            Some(path) => request.to_unix(path),
            None => request,
        };
        request.connect().map(|_| ()).map_err(|error| match error {
            Error::Request(_) => CliError::usage(chain(&error)),
            error => error.into(),
        })
    };
    let (event_loop, link, printer) = (&event_loop, &link, &printer);
    let run = move || {
        let outcome = follow(options, event_loop, link, printer, &outcomes, connect);
        link.finish();
        printer.screen.finish();
        link.failure()?; // the cause, if it has ended the connection
        exit_result(options, link, outcome?)
    };
    match options.is_typed() {
        _ if options.echo => run(),
        false => {
            thread::spawn(move || input.send_all()); // it may be blocked when the connection ends
            run()
        }
        // The system tells the main thread that the window has another size.
        true => thread::scope(|scope| {
            scope.spawn(move || {
                process::exit(run().map_or_else(|stop| stop.report().into(), |()| 0))
            });
            input.send_all();
            Ok(())
        }),
    }
}

/// Connects, again and again with `--reconnect`, and returns how the last connection ended.
fn follow(
    options: &Options,
    event_loop: &EventLoop,
    link: &Link,
    printer: &Printer,
    outcomes: &Receiver<Outcome>,
    connect: impl Fn() -> Result<(), CliError>,
) -> Result<Result<Closed, CliError>, CliError> {
    let mut backoff = Backoff::new();
    loop {
        connect()?;
        event_loop.run();
        event_loop.reset()?;
        let Ok(Outcome { result, was_open, is_temporary }) = outcomes.try_recv() else {
            return Err(CliError::failed("the input ended before the connection was open again"));
        };
        if !options.reconnect || !is_temporary || link.is_closing() {
            return Ok(result);
        }
        let delay = backoff.next(was_open);
        let why = result.as_ref().err().map_or("the connection ended", CliError::why);
        printer.warn(&format!("trying again in {} s: {why}", delay.as_secs_f64()));
        event_loop.set_timer(delay, || ());
        event_loop.run_for(delay); // a signal, or the end of what is typed, stops it
        event_loop.reset()?;
        if link.is_closing() {
            return Ok(result);
        }
    }
}

/// Whether the command did what it was to do.
fn exit_result(
    options: &Options,
    link: &Link,
    outcome: Result<Closed, CliError>,
) -> Result<(), CliError> {
    let closed = outcome?;
    let received = link.received();
    match options.exit_after() {
        _ if closed == Closed::BySignal || options.echo || options.is_typed() => Ok(()), // unsent input is no loss
        Some(all) if received < all => Err(CliError::failed(format!(
            "the connection closed after {received} of {all} messages"
        ))),
        Some(_) => Ok(()),
        None if options.reads_terminal() => Ok(()),
        None => link.loss(),
    }
}

impl Options {
    fn input(&self, link: &Arc<Link>, printer: &Printer, event_loop: &EventLoop) -> Input {
        Input {
            link: link.clone(),
            printer: printer.clone(),
            event_loop: event_loop.clone(),
            messages: self.messages.0.clone(),
            source: self.source(),
            longest: self.max_message,
            reconnects: self.reconnect,
        }
    }

    fn handler(
        &self,
        link: &Arc<Link>,
        printer: &Printer,
        event_loop: &EventLoop,
        outcome: Sender<Outcome>,
    ) -> ConnectHandler {
        ConnectHandler {
            link: link.clone(),
            printer: printer.clone(),
            echo: self.echo,
            wait: self.wait.unwrap_or_else(|| self.default_wait()),
            exit_after: self.exit_after(),
            last_message: None,
            pings: Vec::new(),
            opened: None,
            outcome,
            event_loop: event_loop.clone(),
            #[cfg(unix)]
            signals: Arc::default(),
        }
    }

    /// Whether a person types and sees the messages.
    fn is_typed(&self) -> bool {
        let for_program = self.echo || self.subscribe || self.exit_after().is_some();
        !for_program && io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    fn reads_terminal(&self) -> bool {
        !self.subscribe && io::stdin().is_terminal()
    }

    fn exit_after(&self) -> Option<u64> {
        if self.once { Some(1) } else { self.exit_after }
    }

    fn source(&self) -> Source {
        match () {
            () if self.subscribe => Source::None,
            () if self.is_typed() => {
                #[cfg(unix)]
                let history = (!self.no_history).then(history::default_path).flatten();
                #[cfg(not(unix))]
                let history = None;
                Source::Typed { history }
            }
            () => Source::Lines,
        }
    }

    /// The default of `--wait`.
    fn default_wait(&self) -> Wait {
        match io::stdin() {
            _ if self.subscribe || self.exit_after().is_some() => Wait::Forever,
            stdin if stdin.is_terminal() => Wait::For(Duration::ZERO),
            stdin if is_null(&stdin) && self.messages.0.is_empty() => Wait::Forever,
            _ => Wait::For(WAIT),
        }
    }

    /// Whether the files to send can be opened: it is known before the server is.
    fn check_files(&self) -> Result<(), CliError> {
        for message in &self.messages.0 {
            if let Outgoing::File(path) = message {
                file::open(path).map_err(|why| CliError::usage(format!("--binary: {why}")))?;
            }
        }
        Ok(())
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

fn config(options: &Options) -> Result<ClientConfig, CliError> {
    let mut config = ClientConfig::new()
        .max_message_size(options.max_message)
        .open_timeout(options.handshake_timeout.0)
        .close_timeout(options.close_timeout.0)
        // No message is lost: the echo pauses above the high-water mark, and the input waits by itself.
        .max_send_buffer(usize::MAX);
    for name in &options.subprotocol {
        config = config.subprotocol(name);
    }
    for Header(name, value) in &options.header {
        config = config.header(name.clone(), value.clone());
    }
    if !options.cookie.is_empty() {
        let cookies: Vec<_> = options.cookie.iter().map(|Cookie(cookie)| cookie.as_str()).collect();
        let value = HeaderValue::from_str(&cookies.join("; "));
        let value = value.map_err(|error| CliError::usage(error.to_string()))?;
        config = config.header(header::COOKIE, value);
    }
    if let Some(Credentials(credentials)) = &options.user {
        let value = format!("Basic {}", BASE64_STANDARD.encode(credentials));
        let value = HeaderValue::from_str(&value);
        let value = value.map_err(|error| CliError::usage(error.to_string()))?;
        config = config.header(header::AUTHORIZATION, value);
    }
    if let Some(Origin(origin)) = &options.origin {
        let origin = HeaderValue::from_str(origin);
        config = config.origin(origin.map_err(|error| CliError::usage(error.to_string()))?);
    }
    let redirects = options.redirects.most();
    if let Some(tls) = options.tls.tls(options.url.0.secure(), redirects > 0)? {
        config = config.tls(tls);
    }
    let config = config.proxy(options.route.proxies()?).redirects(redirects);
    Ok(options.compression.of_client(config))
}
