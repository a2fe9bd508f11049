//! `anyloop connect`: a WebSocket client.

mod conversation;
mod input;
mod print;

use std::io::{self, IsTerminal};
use std::sync::{Arc, mpsc};

use anyloop::Client;
use anyloop::endpoint::ClientSettings;
use anyloop::net::{Error, Net};
use anyloop::proto::Config;
use anyloop::proto::handshake::ClientOptions;
use anyloop::proto::handshake::http::HeaderValue;

use self::conversation::Conversation;
use self::input::Input;
use self::print::Printer;
use crate::stop::Stop;
use crate::values::{Header, Origin, Timeout, Url};

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
    /// The largest message that is received.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_message: u64,
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
    let input = Arc::new(Input::default());
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal() && !options.echo;
    let conversation = Conversation {
        input: (!options.echo).then(|| input.clone()),
        printer: Printer::new(interactive),
        outcome: tell,
    };
    let handler = move || conversation.clone();
    let client = Client::<Net, _>::with_factory(settings(options)?, handler);
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
    told.try_recv().unwrap_or_else(|_| Err(Stop::failed("the connection ended untold")))?;
    match options.echo || io::stdin().is_terminal() {
        true => Ok(()), // what is not typed yet is not lost
        false => input.loss(),
    }
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
