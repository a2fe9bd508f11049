//! Tests of the open connection through its public interface, with frames as bytes.
//!
//! `anyloop_testkit::frames` builds and parses frames without the code under test. [`subject`] is one
//! connection under test, which receives such frames. [`pair`] connects a client and a server by
//! simulated links. [`heap`] counts the allocations of a thread.

mod heap;
mod pair;
mod subject;

mod closing;
mod control;
#[cfg(feature = "deflate")]
mod deflate;
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
