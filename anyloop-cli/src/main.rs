//! The `anyloop` command.

mod arguments;
mod bench;
mod client_tls;
mod clock;
mod color;
mod compression;
mod connect;
#[cfg(unix)]
mod descriptors;
mod error;
mod escape;
mod generate;
mod logging;
mod peer;
mod pipe;
mod refusal;
mod route_flags;
mod serve;
#[cfg(unix)]
mod signals;
mod stdio;
mod values;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::compression::Compression;
use self::error::CliError;
use self::values::Url;

/// WebSockets on the command line.
#[derive(Parser)]
#[command(name = "anyloop", version, after_help = AFTER_HELP_ALL)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    color: color::Options,
}

const AFTER_HELP_ALL: &str = "\
Examples:
  anyloop serve
      An echo on ws://127.0.0.1:9002, and a page at http://127.0.0.1:9002.
  anyloop connect ws://127.0.0.1:9002
      Talk to it.
  anyloop bench ws://127.0.0.1:9002
      Measure it.";

const AFTER_HELP_SERVE: &str = "\
Examples:
  anyloop serve --listen 8080 -v
      On port 8080 of all addresses, with a log of the connections.
  anyloop serve --dir public --tls-self-signed
      The files of a directory, and WebSockets beside them, over TLS.
  anyloop serve --unix /run/anyloop.sock --origin https://example.com
      On a Unix socket behind a proxy, for the pages of one site.

Exit status:
  0  after a signal
  1  it cannot listen or serve
  2  wrong arguments, or a file that they name cannot be opened

Times are in seconds and may have fractions. 0 turns a limit off.";

const AFTER_HELP_CONNECT: &str = "\
Examples:
  anyloop connect wss://example.com/chat -H 'Authorization: Bearer TOKEN'
      Talk to a server. /help lists what can be typed beside messages.
  anyloop connect ws://127.0.0.1:9002 --text hello --once
      Send a message, print the first answer, and close.
  anyloop connect ws://127.0.0.1:9002/stats --subscribe --exit-after 3 --json
      Print three messages; those that are JSON are indented.
  anyloop connect wss://example.com/export --once --output export.bin
      Write the first message to a file while it arrives, with a progress bar.
  anyloop connect ws://127.0.0.1:9002/broadcast --reconnect <lines >answers
      Send each line of a file, and connect again when the connection is lost.

Exit status:
  0  both sides closed the connection, the server with code 1000 or without a
     code, and all of the input was sent; or a signal ended the command, and
     the server closed too
  1  the connection opened and ended otherwise, input or output failed, fewer
     messages arrived than --once or --exit-after say, or the file of --output
     ends with a part of a message; or --reconnect was ended by a signal or a
     person while there was no connection
  2  wrong arguments, or a file that they name cannot be opened
  3  no connection to the server, or its certificate is not accepted
  4  the opening handshake failed: the server refused it, for example

Times are in seconds and may have fractions. 0 turns a limit off; --wait 0 does
not wait.";

const AFTER_HELP_PIPE: &str = "\
Example:
  socat TCP-LISTEN:9003,bind=127.0.0.1,reuseaddr,fork EXEC:'anyloop pipe'
      A server on port 9003.

Exit status:
  0  the connection closed without a failure
  1  the connection, input or output failed
  2  wrong arguments";

const AFTER_HELP_BENCH: &str = "\
Examples:
  anyloop bench ws://127.0.0.1:9002/echo
      One message in flight: the time of a round trip.
  anyloop bench ws://127.0.0.1:9002/echo -c 100 --depth 16
      As fast as the server answers on 100 connections: its throughput.
  anyloop bench ws://127.0.0.1:9002/echo -c 100 --rate 20000 -d 30
      The latency that users see at 20000 messages a second.
  anyloop bench ws://127.0.0.1:9002/echo ws://127.0.0.1:9003/ --json
      Two servers compared, for a program.

Exit status:
  0  all messages came back; or a signal ended it, and those until then did
  1  an answer was wrong or is missing, a connection ended before its time, or
     output failed
  2  wrong arguments, or a file that they name cannot be opened
  3  no connection to the server
  4  an opening handshake failed: the server refused it, for example

Times are in seconds and may have fractions.";

const AFTER_HELP_COMPLETIONS: &str = "\
Examples:
  anyloop completions bash >~/.local/share/bash-completion/completions/anyloop
  anyloop completions zsh >\"${fpath[1]}/_anyloop\"
  anyloop completions fish >~/.config/fish/completions/anyloop.fish";

#[derive(Subcommand)]
enum Command {
    /// Serve WebSockets until a signal arrives.
    ///
    /// The path of the request selects the service: / and /echo send every message back. /broadcast
    /// sends every message to all connections of that path, the sender included. /stats sends the
    /// server's counters once a second, as a line of JSON; its messages and bytes are up to a second old.
    ///
    /// A browser that opens / gets a page that uses these services and draws the counters. With --origin,
    /// the page can connect only if its own origin, http://ADDR:PORT (https with TLS), is among those
    /// given.
    ///
    /// On /broadcast, publishers wait up to 2 seconds for a subscriber that reads too slowly. After
    /// that the subscriber is closed with 1008 when its send buffer reaches the limit.
    ///
    /// Prints a line for each address that it listens on: "listening on ws://ADDR:PORT", or "listening on
    /// ws+unix:PATH"; with TLS, wss:// and wss+unix:. It always serves the sockets that it has inherited (LISTEN_FDS,
    /// as in systemd's socket activation). Without --listen, --unix and inherited sockets it listens on 127.0.0.1:9002.
    ///
    /// The first signal closes all connections with 1001, and the command ends with status 0 when they
    /// have closed, at the latest after the close timeout. A second SIGINT or SIGTERM ends it at once. SIGHUP is the
    /// signal of a terminal that is closed, and nohup makes the command ignore it. With --tls-cert it reads the
    /// certificate again. Elsewhere than on Linux, and without --tls-cert, it ends the command at once.
    #[command(after_help = AFTER_HELP_SERVE)]
    Serve(serve::Options),
    /// Connect to a server, send each line of standard input, and print each message.
    ///
    /// After the end of the input it closes with 1000 when no message has arrived for a second (or for what
    /// --wait says), and prints messages until the server has closed too. Without --text, --binary and
    /// --wait, and with /dev/null as its input, it stays until the server closes. The first SIGINT
    /// (Ctrl-C), SIGTERM or, on Linux, SIGHUP (a terminal that is closed) closes with 1001; a second SIGINT or SIGTERM
    /// ends the command at once.
    ///
    /// Lines are sent as text messages, without the line end. Text is printed unchanged, but a terminal
    /// gets control characters escaped, and those that change the order of what it shows (U+202E, for example). In
    /// binary messages, bytes that are not printable ASCII are printed as \xNN. --output writes messages to a file
    /// instead, unchanged.
    ///
    /// At a terminal, lines are edited, and kept in a history. A pasted text is one message; escape sequences in it are
    /// damaged, so send such a text by --binary or a pipe. Messages appear above the line that is being typed, with the
    /// time, the direction (> sent, < received), the kind and the size. Pings of the server are answered, and not
    /// shown. /help lists commands; //TEXT sends /TEXT. Ctrl-C clears the line, or closes with 1000 if it is empty;
    /// Ctrl-D closes, too.
    #[command(after_help = AFTER_HELP_CONNECT)]
    Connect(Box<connect::Options>),
    /// Measure the throughput and latency of an echo.
    ///
    /// Opens the connections, sends for some time, and prints the messages per second and the latencies
    /// with their histogram: each row is a range of latencies, with its lower end and its share of the answers. Each
    /// answer is compared with its message. Two URLs take turns in eight rounds, so that a change of the machine's
    /// speed meets both.
    ///
    /// With --depth, a connection sends its next message when an answer arrives, and the latency counts
    /// from when the message was sent. While a server stalls, few messages are sent to it, so few latencies
    /// show the stall. With --rate, the latency counts from when the message should have been sent, even if
    /// an earlier one still waits: there is no coordinated omission.
    ///
    /// Messages are words of English, so they compress. The first SIGINT (Ctrl-C), SIGTERM or, on Linux,
    /// SIGHUP (a terminal that is closed) ends it early, and prints what was measured; a second SIGINT or SIGTERM ends
    /// the command at once.
    #[command(after_help = AFTER_HELP_BENCH)]
    Bench(Box<bench::Options>),
    /// Speak WebSocket over standard input and output, and send every message back.
    ///
    /// Standard input and output carry the bytes that a socket would carry: connect them by a pipe, by
    /// socat, or by a program of your own. Either may be non-blocking. The command has the server's
    /// role, unless --client is given.
    #[command(after_help = AFTER_HELP_PIPE)]
    Pipe {
        /// Take the client's role, and request this ws:// URL.
        #[arg(long, value_name = "URL")]
        client: Option<Url>,
        #[command(flatten)]
        compression: Compression,
    },
    /// Print a shell's completion script.
    #[command(after_help = AFTER_HELP_COMPLETIONS)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, anyloop.1 and one for each command.
    Man {
        /// The directory to write them to. Without it, anyloop.1 is printed.
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    match arguments::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(error.report()),
    }
}

fn run(Arguments { command, color }: Arguments) -> Result<(), CliError> {
    color.apply();
    match command {
        Command::Serve(options) => serve::run(&options),
        Command::Connect(options) => connect::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Pipe { client, compression } => pipe::run(client.as_ref(), &compression),
        Command::Completions { shell } => generate::completions(shell),
        Command::Man { dir } => generate::manual(dir.as_deref()),
    }
}
