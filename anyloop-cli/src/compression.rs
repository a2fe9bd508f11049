//! The options of permessage-deflate.

use anyloop::prelude::*;

use crate::values;

#[derive(clap::Args)]
pub(crate) struct Compression {
    /// How messages are compressed, if the peer agrees (permessage-deflate).
    ///
    /// "pooled" keeps the last 1 KiB of each connection, so that messages which resemble each other
    /// become small. "no-takeover" compresses each message by itself. "dedicated" gives each connection
    /// a compressor of its own, of 165 KB.
    #[arg(long, value_name = "MODE", default_value = "pooled")]
    deflate: Mode,
    /// The effort of compressing, 1 (fast) to 9 (small).
    #[arg(long, value_name = "N", default_value = "6")]
    #[arg(value_parser = values::number::<u8>(1, 9))]
    deflate_level: u8,
    /// Do not compress messages.
    #[arg(long, conflicts_with_all = ["deflate", "deflate_level"])]
    no_deflate: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Mode {
    Pooled,
    NoTakeover,
    Dedicated,
}

impl Compression {
    pub(crate) fn deflate(&self) -> Option<Deflate> {
        let deflate = match self.deflate {
            Mode::Pooled => Deflate::pooled(),
            Mode::NoTakeover => Deflate::no_takeover(),
            Mode::Dedicated => Deflate::dedicated(),
        };
        (!self.no_deflate).then(|| deflate.level(self.deflate_level))
    }

    /// Adds the compression to the configuration of a server.
    pub(crate) fn of_server(&self, config: ServerConfig) -> ServerConfig {
        match self.deflate() {
            Some(deflate) => config.deflate(deflate),
            None => config,
        }
    }

    /// Adds the compression to the configuration of a client.
    pub(crate) fn of_client(&self, config: ClientConfig) -> ClientConfig {
        match self.deflate() {
            Some(deflate) => config.deflate(deflate),
            None => config,
        }
    }
}
