//! `anyloop serve`: a WebSocket server.

mod broadcast;
mod files;
mod listen;
mod log;
mod page;
mod route;
mod status;
mod tls;
mod traffic;

#[cfg(unix)]
use std::io;
use std::io::Write;
use std::thread;

#[cfg(unix)]
use anyloop::endpoint::EndpointHandle;
#[cfg(unix)]
use anyloop::event_loop::Watch;
use anyloop::net::{Error, LocalAddress};
use anyloop::prelude::*;
#[cfg(unix)]
use anyloop::tls::ServerTls;

use self::files::Files;
use self::listen::{Listen, Listener};
use self::status::Status;
use crate::compression::Compression;
use crate::error::CliError;
#[cfg(unix)]
use crate::signals;
use crate::stdio;
use crate::values::{self, Origin, Timeout};

/// The high-water mark of a connection's send buffer, in bytes.
const HIGH_WATER_MARK: usize = 1 << 20;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Listen on this address (repeatable).
    ///
    /// The host is a name, an IPv4 address, or an IPv6 address in brackets, with a zone if it needs one
    /// ([fe80::1%eth0]:9002). A port alone means every address of this machine. Port 0 picks a free one.
    ///
    /// Addresses of a name that this machine does not have are skipped, and reported on standard error.
    /// [::] is IPv6 alone.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<Listen>,
    /// Listen on a Unix socket (repeatable).
    #[cfg(unix)]
    #[arg(long, value_name = "PATH")]
    unix: Vec<std::path::PathBuf>,
    /// The largest message that is accepted. A larger one closes its connection with 1009.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20, value_parser = values::bytes)]
    max_message: u64,
    /// Time limit for an opening handshake.
    #[arg(long, value_name = "S", default_value = "5")]
    handshake_timeout: Timeout,
    /// Time limit for a closing handshake.
    #[arg(long, value_name = "S", default_value = "5")]
    close_timeout: Timeout,
    /// Ping a client after this long without input.
    #[arg(long, value_name = "S", default_value = "20")]
    ping_interval: Timeout,
    /// Time limit for the answer to such a ping.
    #[arg(long, value_name = "S", default_value = "20")]
    ping_timeout: Timeout,
    /// Close a connection after this long without a frame. Answers to pings do not count.
    #[arg(long, value_name = "S", default_value = "0")]
    idle_timeout: Timeout,
    /// Number of threads that serve, 1 to 1024. One serves some hundred thousand messages a second.
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = values::number::<u16>(1, 1024))]
    threads: u16,
    /// Accept web pages of this origin only (repeatable). Without this option, pages of every site may
    /// connect.
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<Origin>,
    /// Serve the files of this directory over HTTP, beside the services. Its index.html replaces the page at /.
    ///
    /// Browsers keep the files, and ask each time whether they have changed.
    ///
    /// Other methods than GET and HEAD are answered with 405, or 404 if there is no such file. The paths of the
    /// services are not files: a file named echo, broadcast or stats at the top is not served. Hidden files are not
    /// served, nor what a link leads to outside of the directory.
    #[arg(long, value_name = "PATH")]
    dir: Option<std::path::PathBuf>,
    /// Log connections and HTTP requests to standard error; twice (-vv) frames, too.
    ///
    /// The frames are the messages, received (<) and sent (>), and the pings and pongs that are received, each with its
    /// size and the beginning of its payload. The line of a connection that has ended has the codes and reasons of the
    /// Closes of both sides, the first one first.
    ///
    /// If RUST_LOG is set, it selects the lines, and -v has no effect: anyloop=debug shows those of -vv and of the
    /// library, anyloop=debug,anyloop::serve=off the library's alone.
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    compression: Compression,
    #[command(flatten)]
    tls: tls::Options,
}

/// Serves until a signal arrives.
pub(crate) fn run(options: &Options) -> Result<(), CliError> {
    #[cfg(unix)]
    crate::descriptors::raise_limit();
    let mut status = Status::new();
    log::begin(options.verbose, status.bar());
    let event_loop = EventLoop::new().map_err(Error::EventLoop)?;
    // A log names the path when a connection closes.
    let config = config(options).keep_handshake(log::has_connections());
    let server = route::server(&event_loop, config, options.files()?);
    let self_signed = options.tls.self_signed(&options.listen)?;
    let tls = options.tls.tls(self_signed.as_ref())?;
    listen(options, Listener { server: &server, tls: tls.as_ref() })?;
    if let Some(self_signed) = self_signed {
        self_signed.announce()?;
    }
    #[cfg(unix)]
    let _watch = {
        let reloaded = tls.as_ref().filter(|_| options.tls.has_files());
        watch_signals(&event_loop, server.handle(), reloaded)?
    };
    server.start_accept()?;
    announce(&server.local_addresses(), tls.is_some());
    status.begin(server.handle());
    thread::scope(|scope| {
        for n in 1..options.threads {
            let thread = thread::Builder::new().name(format!("serve {n}"));
            thread.spawn_scoped(scope, || event_loop.run())?;
        }
        event_loop.run();
        Ok(())
    })
}

/// The first SIGINT or SIGTERM shuts the server down. SIGHUP reads the files of `reloaded` again; without it,
/// SIGHUP on Linux shuts the server down, too.
#[cfg(unix)]
fn watch_signals<H: Handler>(
    event_loop: &EventLoop,
    server: EndpointHandle<H>,
    reloaded: Option<&ServerTls>,
) -> io::Result<Watch> {
    let Some(tls) = reloaded.cloned() else {
        return signals::on_signal_or_hang_up(event_loop, move |_| server.shut_down());
    };
    let hang_ups = signals::on_hang_up(event_loop, move || tls::reload(&tls))?;
    signals::on_signal(event_loop, move |_| {
        hang_ups.cancel(); // it would keep the loop running
        server.shut_down();
    })
}

impl Options {
    /// The files to serve, if any.
    fn files(&self) -> Result<Option<Files>, CliError> {
        let Some(path) = &self.dir else { return Ok(None) };
        Files::new(path).map(Some).map_err(|error| {
            CliError::usage(format!("--dir: cannot serve {}: {error}", path.display()))
        })
    }
}

fn config(options: &Options) -> ServerConfig {
    let origins = match options.origin.as_slice() {
        [] => OriginPolicy::Any,
        origins => OriginPolicy::only(origins.iter().map(|Origin(origin)| origin)),
    };
    let largest = usize::try_from(options.max_message).unwrap_or(usize::MAX);
    let config = ServerConfig::new(origins)
        .max_message_size(options.max_message)
        .open_timeout(options.handshake_timeout.0)
        .close_timeout(options.close_timeout.0)
        .ping_interval(options.ping_interval.0)
        .pong_timeout(options.ping_timeout.0)
        .idle_timeout(options.idle_timeout.0)
        .keep_handshake(false)
        // An echo stops reading above the high-water mark, so it never reaches the maximum. A subscriber
        // of a broadcast needs space for the largest message on top of a send buffer below that mark.
        .high_water_mark(HIGH_WATER_MARK)
        .max_send_buffer(largest.saturating_add(2 * HIGH_WATER_MARK))
        .overflow(Overflow::Close);
    options.compression.of_server(config)
}

/// Listens on the addresses of the options and on inherited sockets; without any, on 127.0.0.1:9002.
fn listen(options: &Options, listener: Listener<'_>) -> Result<(), CliError> {
    listen::listen(&options.listen, listener)?;
    #[cfg(unix)]
    {
        for path in &options.unix {
            listener.listen_unix(path).map_err(|error| listen::failed(&error))?;
        }
        listen::inherit(listener)?;
    }
    if !listener.server.is_listening() {
        listen::listen(&[Listen::default()], listener)?;
    }
    Ok(())
}

/// Prints the addresses. Output that cannot be written is not an error.
fn announce(addresses: &[LocalAddress], secure: bool) {
    let Ok(mut stdout) = stdio::output() else { return };
    let scheme = if secure { "wss" } else { "ws" };
    for address in addresses {
        let address = match address {
            LocalAddress::Tcp(address) => format!("{scheme}://{address}"),
            #[cfg(unix)]
            LocalAddress::Unix(Some(path)) => format!("{scheme}+unix:{}", path.display()),
            other => other.to_string(),
        };
        let _ = stdout.write_all(format!("listening on {address}\n").as_bytes());
    }
    let _ = stdout.flush();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::time::Duration;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }

    fn config_of(arguments: &[&str]) -> ServerConfig {
        let words = ["anyloop"].iter().chain(arguments);
        config(&Arguments::try_parse_from(words).expect("they are right").options)
    }

    /// The library's defaults, except for the largest message, the send buffer, `keep_handshake` and compression.
    fn expected(max_message: usize) -> ServerConfig {
        ServerConfig::new(OriginPolicy::Any)
            .max_message_size(max_message as u64)
            .keep_handshake(false)
            .max_send_buffer(max_message + 2 * HIGH_WATER_MARK)
            .overflow(Overflow::Close)
            .deflate(Deflate::pooled())
    }

    /// A configuration has no `PartialEq`, so the debug output is compared.
    fn assert_same(left: &ServerConfig, right: &ServerConfig) {
        assert_eq!(format!("{left:?}"), format!("{right:?}"));
    }

    #[test]
    fn without_options_the_defaults_are_those_of_the_library() {
        assert_same(&config_of(&[]), &expected(16 << 20));
    }

    #[test]
    fn options_become_settings_and_0_is_no_limit() {
        let off = ["handshake-timeout", "close-timeout", "ping-interval", "ping-timeout"];
        let off: Vec<_> = off.iter().map(|name| format!("--{name}=0")).collect();
        let off: Vec<_> = off.iter().map(String::as_str).collect();
        let without_limits = expected(16 << 20)
            .open_timeout(None)
            .close_timeout(None)
            .ping_interval(None)
            .pong_timeout(None);
        assert_same(&config_of(&off), &without_limits);

        let options = ["--idle-timeout", "1.5", "--max-message", "50000000"];
        let changed = expected(50_000_000).idle_timeout(Duration::from_millis(1500));
        assert_same(&config_of(&options), &changed);
    }
}
