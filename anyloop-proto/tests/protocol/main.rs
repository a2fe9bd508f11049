//! The open connection, tested from outside: through its public interface and in bytes.
//!
//! `anyloop_testkit::frames` builds and parses frames by hand, so that the code under test is not its own
//! judge. [`subject`] is one connection under test, fed with such frames. [`pair`] joins a client and a
//! server by simulated links. [`heap`] counts what a thread allocates.

mod heap;
mod pair;
mod subject;

mod closing;
mod control;
mod extension;
mod fast_path;
mod frames;
mod limits;
mod memory;
mod messages;
mod pool;
mod properties;
mod scenarios;
mod sending;
mod streaming;
mod timers;
mod utf8;
