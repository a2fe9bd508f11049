//! The options of `anyloop bench`.

use std::time::Duration;

use anyloop::ClientConfig;
use anyloop::tls::ClientTls;

use crate::client_tls;
use crate::compression::Compression;
use crate::route_flags;
use crate::values::{self, Seconds, Timeout, Url};

/// The rounds of each URL, if two are compared.
pub(super) const ROUNDS: u32 = 4;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// The URL of an echo: ws:// or wss://[USER:PASSWORD@]HOST[:PORT][/PATH]. Two URLs are compared.
    #[arg(required = true, num_args = 1..=2, value_name = "URL")]
    pub(super) urls: Vec<Url>,
    /// Number of connections, 1 to 100000.
    #[arg(long, short, value_name = "N", default_value = "1")]
    #[arg(value_parser = values::number::<u32>(1, 100_000))]
    pub(super) connections: u32,
    /// Size of a message, in bytes, up to 64 MiB.
    #[arg(long, short, value_name = "BYTES", default_value = "64")]
    #[arg(value_parser = parse_size)]
    pub(super) size: usize,
    /// Send binary messages instead of text.
    #[arg(long)]
    pub(super) binary: bool,
    /// Messages that each connection has in flight: it sends the next one when an answer arrives.
    #[arg(long, value_name = "N", default_value = "1", conflicts_with = "rate")]
    #[arg(value_parser = values::number::<u32>(1, 100_000))]
    depth: u32,
    /// Send this many messages a second, on all connections together, whether or not answers arrive.
    #[arg(long, value_name = "N")]
    #[arg(value_parser = parse_rate)]
    rate: Option<f64>,
    /// How long to send to each URL.
    #[arg(long, short, value_name = "S", default_value = "5")]
    duration: Seconds,
    /// Number of threads, 1 to 1024. Each has some of the connections.
    #[arg(long, value_name = "N", default_value = "1")]
    #[arg(value_parser = values::number::<u16>(1, 1024))]
    threads: u16,
    /// Print the results as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Time limit for an opening handshake, counted from the TCP connection.
    #[arg(long, value_name = "S", default_value = "5")]
    handshake_timeout: Timeout,
    #[command(flatten)]
    compression: Compression,
    #[command(flatten)]
    pub(super) tls: client_tls::Options,
    #[command(flatten)]
    pub(super) route: route_flags::Options,
}

/// When the next message is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// When an answer arrives: this many are in flight on each connection.
    Depth(u32),
    /// On time: this many a second on all connections.
    Rate(f64),
}

impl Options {
    pub(super) fn pace(&self) -> Pace {
        self.rate.map_or(Pace::Depth(self.depth), Pace::Rate)
    }

    /// How long a round sends.
    pub(super) fn time(&self) -> Duration {
        match self.urls.len() {
            1 => self.duration.0,
            _ => self.duration.0 / ROUNDS,
        }
    }

    /// A thread without a connection would have nothing to do.
    pub(super) fn threads(&self) -> u32 {
        u32::from(self.threads).min(self.connections)
    }

    pub(super) fn config(&self, tls: Option<ClientTls>) -> ClientConfig {
        let config = ClientConfig::new()
            .open_timeout(self.handshake_timeout.0)
            .max_message_size(self.size.max(1 << 20) as u64)
            // No limit is needed: a depth bounds the messages in flight, and a rate waits for `drained`.
            .max_send_buffer(usize::MAX);
        let config = self.compression.of_client(config);
        match tls {
            Some(tls) => config.tls(tls),
            None => config,
        }
    }
}

fn parse_size(text: &str) -> Result<usize, &'static str> {
    let size = text.parse().ok().filter(|size| *size <= 64 << 20);
    size.ok_or("not a number of bytes from 0 to 67108864")
}

fn parse_rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e8).contains(rate));
    rate.ok_or("not a number of messages a second from 0.001 to 100000000")
}
