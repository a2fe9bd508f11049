//! `anyloop serve`: a WebSocket server.

mod broadcast;
mod listen;
mod visitor;

use std::io::Write;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use anyloop::endpoint::{Overflow, ServerSettings};
use anyloop::net::LocalAddress;
use anyloop::proto::Config;
use anyloop::proto::handshake::{OriginPolicy, ServerOptions};

use self::listen::Listen;
use self::visitor::VisitorServer;
#[cfg(unix)]
use crate::signals;
use crate::stdio;
use crate::stop::Stop;
use crate::values::{Origin, Timeout};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Listen on this address (repeatable).
    ///
    /// The host may be a name, an IPv4 address, or an IPv6 address in brackets, with its zone if it has
    /// one ([fe80::1%eth0]:9002). Without a host, that is by a port alone, it is every address of this
    /// machine. Port 0 picks one that is free.
    ///
    /// Addresses of a name that this machine does not have are skipped, and reported on standard error.
    /// [::] is IPv6 alone.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<Listen>,
    /// Listen on a Unix socket (repeatable).
    #[cfg(unix)]
    #[arg(long, value_name = "PATH")]
    unix: Vec<std::path::PathBuf>,
    /// The largest message that is received.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    max_message: u64,
    /// How long an opening handshake may take.
    #[arg(long, value_name = "S", default_value = "5")]
    handshake_timeout: Timeout,
    /// How long a closing handshake may take.
    #[arg(long, value_name = "S", default_value = "5")]
    close_timeout: Timeout,
    /// Ping a client from which nothing has come for this long.
    #[arg(long, value_name = "S", default_value = "20")]
    ping_interval: Timeout,
    /// How long a client may take to answer such a ping.
    #[arg(long, value_name = "S", default_value = "20")]
    ping_timeout: Timeout,
    /// Close a connection from which no frame has come for this long, beside answers to pings.
    #[arg(long, value_name = "S", default_value = "0")]
    idle_timeout: Timeout,
    /// Serve with so many threads. One is enough for some hundred thousand messages a second; more are
    /// for more than that.
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZero<usize>,
    /// Refuse web pages that are not of this origin (repeatable). Without it pages of any site may
    /// connect.
    #[arg(long, value_name = "ORIGIN")]
    origin: Vec<Origin>,
}

/// Serves until a signal ends it.
pub(crate) fn run(options: &Options) -> Result<(), Stop> {
    #[cfg(unix)]
    raise_descriptor_limit();
    let server = visitor::server(settings(options));
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
    // An echo stops reading above the high mark, so it never comes to the cap. A subscriber of a
    // broadcast may be behind by any message, and what is not slow yet.
    let largest = usize::try_from(options.max_message).unwrap_or(usize::MAX);
    settings.backlog.cap = largest.saturating_add(2 * settings.backlog.high);
    settings.backlog.overflow = Overflow::Close;
    settings
}

/// Listens on all that is asked for, and on what was inherited; by default on 127.0.0.1:9002.
fn listen(options: &Options, server: &VisitorServer) -> Result<(), Stop> {
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

/// Says where it listens. That nobody reads it does not matter.
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

/// A connection is a descriptor. The usual soft limit of 1024 is there for programs that use `select`.
#[cfg(unix)]
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }); // it still serves some
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
