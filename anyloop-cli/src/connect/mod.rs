//! `anyloop connect`: a WebSocket client.

mod command;
#[cfg(unix)]
mod edited_line;
#[cfg(unix)]
mod editor;
mod file;
mod handler;
#[cfg(unix)]
mod history;
mod input;
mod json;
mod lines;
mod link;
mod log;
mod messages;
mod options;
mod outbox;
mod output;
mod print;
mod progress;
mod prompt;
mod retry;
mod screen;

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::{process, thread};

use anyloop::EventLoop;
use anyloop::net::{Client, Error};

use self::handler::{Closed, ConnectHandler, Outcome};
use self::input::{Input, Source};
use self::link::Link;
pub(crate) use self::options::Options;
use self::output::Output;
use self::print::Printer;
pub(crate) use self::print::count;
use self::prompt::Prompt;
use self::retry::Backoff;
use crate::error::{CliError, chain};

type ConnectClient = Client<HandlerFactory>;
type HandlerFactory = Box<dyn Fn() -> ConnectHandler + Send + Sync>;

/// Runs the client until the connection has ended, or the last one with `--reconnect`.
pub(crate) fn run(options: &Options) -> Result<(), CliError> {
    options.check_files()?;
    #[cfg(unix)]
    crate::signals::ignore_size_limit();
    let config = options.config()?;
    let printer = Printer::new(options.is_typed(), options.json);
    let printer =
        printer.map_err(|e| CliError::failed(format!("cannot write to standard output: {e}")))?;
    log::begin(&printer.screen, options.is_typed());
    let (sender, outcomes) = mpsc::channel();
    let session = Session {
        options,
        event_loop: EventLoop::new()?,
        link: Arc::default(),
        output: Output::open(options, &printer.screen)?,
        printer,
    };
    let (input, handler) = (session.input(), session.handler(sender));
    let factory: HandlerFactory = Box::new(move || handler.clone());
    let mut client = Client::with_factory_on(&session.event_loop, config, factory);
    options.route.overrides().apply(&mut client);
    let run = move || session.run(&client, &outcomes);
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

/// What all connections of the command have in common.
struct Session<'o> {
    options: &'o Options,
    event_loop: EventLoop,
    link: Arc<Link<ConnectHandler>>,
    printer: Printer,
    /// Where messages are written instead of being printed.
    output: Option<Arc<Output>>,
}

impl Session<'_> {
    fn input(&self) -> Input {
        let options = self.options;
        let source = match () {
            () if options.subscribe => Source::None,
            () if options.is_typed() => Source::Prompt(Prompt {
                link: self.link.clone(),
                printer: self.printer.clone(),
                output: self.output.clone(),
                max_line: options.max_line(),
                #[cfg(unix)]
                keeps_history: !options.no_history,
            }),
            () => Source::Lines { max_line: options.max_line() },
        };
        Input {
            link: self.link.clone(),
            printer: self.printer.clone(),
            event_loop: self.event_loop.clone(),
            messages: options.messages.0.clone(),
            source,
            reconnects: options.reconnect,
        }
    }

    fn handler(&self, outcome: Sender<Outcome>) -> ConnectHandler {
        ConnectHandler {
            link: self.link.clone(),
            printer: self.printer.clone(),
            output: self.output.clone(),
            echo: self.options.echo,
            wait: self.options.wait(),
            exit_after: self.options.exit_after(),
            may_follow: self.options.may_follow(),
            last_message: None,
            pings: Vec::new(),
            opened: None,
            outcome,
            event_loop: self.event_loop.clone(),
            #[cfg(unix)]
            reconnects: self.options.reconnect,
        }
    }

    /// Runs all connections, and returns whether the command did what it was to do.
    fn run(self, client: &ConnectClient, outcomes: &Receiver<Outcome>) -> Result<(), CliError> {
        #[cfg(unix)]
        if self.options.reconnect {
            handler::watch_signals(&self.link, &self.event_loop, &self.printer);
        }
        let ended = self.connect_to_the_end(client, outcomes);
        self.link.finish();
        self.printer.losses(self.link.take_losses());
        self.printer.screen.finish();
        // The failure is the cause, if it has ended the connection.
        let result = self.link.check_failure().and(ended);
        let result = match &self.output {
            Some(output) => output.with_part(result),
            None => result,
        };
        self.check(result?)
    }

    /// Connects, again and again with `--reconnect`, and returns how the last connection ended.
    fn connect_to_the_end(
        &self,
        client: &ConnectClient,
        outcomes: &Receiver<Outcome>,
    ) -> Result<Closed, CliError> {
        let mut backoff = Backoff::new();
        loop {
            self.connect(client)?;
            self.event_loop.run();
            self.event_loop.reset()?;
            self.printer.losses(self.link.take_losses());
            let Ok(Outcome { result, open_for, is_temporary }) = outcomes.try_recv() else {
                return Err(closed_between());
            };
            if open_for.is_none() && self.link.is_closing() {
                return Err(closed_between());
            }
            if !self.options.reconnect || !is_temporary || self.link.is_closing() {
                return result;
            }
            if self.output.as_ref().is_some_and(|output| !output.remove_part()) {
                return result;
            }
            let delay = backoff.next(open_for);
            let why = result.as_ref().err().map_or("the connection ended", CliError::why);
            self.printer
                .event_or_report(&format!("trying again in {} s: {why}", delay.as_secs_f64()));
            self.event_loop.set_timer(delay, || ());
            self.event_loop.run_for(delay); // a signal, or the end of what is typed, stops it
            self.event_loop.reset()?;
            if self.link.is_closing() {
                return Err(closed_between());
            }
        }
    }

    /// Begins to connect.
    fn connect(&self, client: &ConnectClient) -> Result<(), CliError> {
        let request = client.request(self.options.url.0.clone())?;
        #[cfg(unix)]
        let request = match &self.options.unix {
            Some(path) => request.to_unix(path),
            None => request,
        };
        request.connect().map(|_| ()).map_err(|error| match error {
            Error::Request(_) => CliError::usage(chain(&error)),
            error => error.into(),
        })
    }

    /// Whether the command did what it was to do, when the last connection was closed without a failure.
    fn check(&self, closed: Closed) -> Result<(), CliError> {
        let received = self.link.received();
        match self.options.exit_after() {
            _ if closed == Closed::BySignal || self.options.echo => Ok(()),
            Some(1) if received == 0 => {
                Err(CliError::failed("the connection closed before a message arrived"))
            }
            Some(all) if received < all => Err(CliError::failed(format!(
                "the connection closed after {received} of {}",
                count(all, "message")
            ))),
            // Input of a person that is not sent is no loss.
            _ if self.options.is_typed() => Ok(()),
            Some(_) => self.link.check_all_arrived(),
            None if self.options.reads_terminal() => Ok(()),
            None => self.link.check_all_sent().and_then(|()| self.link.check_all_arrived()),
        }
    }
}

/// What is said when a person or a signal ends the command between two connections.
fn closed_between() -> CliError {
    CliError::failed("closed while there was no connection")
}
