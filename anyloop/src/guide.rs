//! Compiles what the guide in docs/ shows, and runs what ends by itself.

#[doc = include_str!("../docs/authentication.md")]
struct Authentication;

#[doc = include_str!("../docs/broadcasting.md")]
struct Broadcasting;

#[cfg(feature = "deflate")]
#[doc = include_str!("../docs/compression.md")]
struct Compression;

#[doc = include_str!("../docs/debugging.md")]
struct Debugging;

#[doc = include_str!("../docs/from-tungstenite.md")]
struct FromTungstenite;

#[doc = include_str!("../docs/handlers.md")]
struct Handlers;

#[doc = include_str!("../docs/http.md")]
struct Http;

#[doc = include_str!("../docs/io-strategy.md")]
struct IoStrategy;

#[doc = include_str!("../docs/limits.md")]
struct Limits;

#[cfg(feature = "router")]
#[doc = include_str!("../docs/logging.md")]
struct Logging;

#[doc = include_str!("../docs/migration.md")]
struct Migration;

#[doc = include_str!("../docs/proxies.md")]
struct Proxies;

#[doc = include_str!("../docs/run.md")]
struct Run;

#[doc = include_str!("../docs/subprotocols.md")]
struct Subprotocols;

#[cfg(unix)]
#[doc = include_str!("../docs/systemd.md")]
struct Systemd;

#[doc = include_str!("../docs/threads.md")]
struct Threads;

#[cfg(feature = "tls")]
#[doc = include_str!("../docs/tls.md")]
struct Tls;
