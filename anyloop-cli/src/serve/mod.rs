//! `anyloop serve`: a WebSocket server.

mod broadcast;
mod listen;
mod route;

use std::io::Write;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use anyloop::endpoint::{Overflow, ServerSettings};
use anyloop::net::LocalAddress;
use anyloop::proto::Config;
use anyloop::proto::handshake::{OriginPolicy, ServerOptions};

use self::listen::Listen;
use self::route::RouteServer;
#[cfg(unix)]
use crate::signals;
use crate::stdio;
use crate::stop::Stop;
use crate::values::{Origin, Timeout};

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
    /// The largest message that is accepted.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
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
    /// Number of threads that serve. One serves some hundred thousand messages a second.
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZero<usize>,
    /// Accept web pages of this origin only (repeatable). Without this option, pages of every site may
    /// connect.
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<Origin>,
}

/// Serves until a signal arrives.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    #[cfg(unix)]
    raise_descriptor_limit();
    let server = route::server(settings(options));
    listen(options, &server)?;
    #[cfg(unix)]
    let _watch = signals::on_signal(&server.event_loop()?, {
        let server = Arc::downgrade(&server);
        move || {
            if let Some(server) = server.upgrade() {
                server.stop_listening();
                server.shut_down();
            }
        }
    })?;
    server.start_accept()?;
    announce(&server.local_addresses());
    let event_loop = server.event_loop()?;
    thread::scope(|scope| {
        for n in 1..options.threads.get() {
            let thread = thread::Builder::new().name(format!("serve {n}"));
            thread.spawn_scoped(scope, || event_loop.run())?;
        }
        event_loop.run();
        Ok(())
    })
}

fn settings(options: &Options) -> ServerSettings {
    let mut connection = Config::default();
    connection.max_message_size = options.max_message;
    connection.close_timeout = options.close_timeout.0;
    connection.ping_interval = options.ping_interval.0;
    connection.pong_timeout = options.ping_timeout.0;
    connection.idle_timeout = options.idle_timeout.0;
    let origins = match options.origin.as_slice() {
        [] => OriginPolicy::Any,
        origins => OriginPolicy::only(origins.iter().map(|Origin(origin)| origin)),
    };
    let mut handshake = ServerOptions::new(origins);
    handshake.open_timeout = options.handshake_timeout.0;
    handshake.connection = Arc::new(connection);

    let mut settings = ServerSettings::from(handshake);
    settings.keep_handshake = false;
    // An echo stops reading above the high-water mark and never reaches the cap. A subscriber of a
    // broadcast must be able to queue the largest message on top of a backlog that is not slow yet.
    let largest = usize::try_from(options.max_message).unwrap_or(usize::MAX);
    settings.backlog.cap = largest.saturating_add(2 * settings.backlog.high);
    settings.backlog.overflow = Overflow::Close;
    settings
}

/// Listens on the addresses of the options and on inherited sockets; without any, on 127.0.0.1:9002.
fn listen(options: &Options, server: &RouteServer) -> Result<(), Stop> {
    listen::listen(&options.listen, server)?;
    #[cfg(unix)]
    {
        for path in &options.unix {
            server.listen_unix(path)?;
        }
        listen::inherit(server)?;
    }
    if !server.is_listening() {
        listen::listen(&[Listen::default()], server)?;
    }
    Ok(())
}

/// Prints the addresses. Output that cannot be written is not an error.
fn announce(addresses: &[LocalAddress]) {
    let Ok(mut stdout) = stdio::output() else { return };
    for address in addresses {
        let address = match address {
            LocalAddress::Tcp(address) => format!("ws://{address}"),
            #[cfg(unix)]
            LocalAddress::Unix(Some(path)) => format!("ws+unix:{}", path.display()),
            other => other.to_string(),
        };
        let _ = stdout.write_all(format!("listening on {address}\n").as_bytes());
    }
    let _ = stdout.flush();
}

/// Raises the soft limit of descriptors to the hard one, since each connection is a descriptor. The usual
/// soft limit of 1024 exists for programs that use `select`.
#[cfg(unix)]
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // without it, fewer connections fit
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

    fn settings_of(arguments: &[&str]) -> ServerSettings {
        let words = ["anyloop"].iter().chain(arguments);
        settings(&Arguments::try_parse_from(words).expect("they are right").options)
    }

    #[test]
    fn options_become_settings_and_0_is_no_limit() {
        let defaults = ServerOptions::new(OriginPolicy::Any);
        let same = format!("{:?}", settings_of(&[]).handshake);
        assert_eq!(same, format!("{defaults:?}"), "the defaults are those of the library");

        let off = ["handshake-timeout", "close-timeout", "ping-interval", "ping-timeout"];
        let off: Vec<_> = off.iter().map(|name| format!("--{name}=0")).collect();
        let off: Vec<_> = off.iter().map(String::as_str).collect();
        let handshake = settings_of(&off).handshake;
        let connection = &handshake.connection;
        assert_eq!(handshake.open_timeout, None);
        assert_eq!((connection.close_timeout, connection.idle_timeout), (None, None));
        assert_eq!((connection.ping_interval, connection.pong_timeout), (None, None));

        let settings = settings_of(&["--idle-timeout", "1.5", "--max-message", "50000000"]);
        let connection = &settings.handshake.connection;
        assert_eq!(connection.idle_timeout, Some(Duration::from_millis(1500)));
        assert_eq!(connection.max_message_size, 50_000_000);
        assert!(settings.backlog.cap > 50_000_000 + settings.backlog.high, "it can be echoed");
    }
}
