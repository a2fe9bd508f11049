//! The event loop and the `net` transport, tested from outside: the contract of `EventLoop`, line by
//! line, with peers made of plain sockets whose bytes are the test's own.
//!
//! The peers, and bounds in time, are those of `anyloop_testkit`. [`harness`] runs a loop until a
//! condition holds; [`wire`] has the bytes that peers send; [`fixture`] is a server under test that logs what its
//! handlers get.
#![cfg(unix)]

mod fixture;
mod harness;
mod wire;

mod counting;
mod embedding;
mod idling;
mod load;
mod local;
mod lookups;
mod outcomes;
mod ownership;
mod panics;
mod pausing;
mod posting;
mod readiness;
mod run_family;
mod stepping;
mod stopping;
mod threads;
mod threads_of_connections;
mod timers;
mod wakeups;
mod watches;
mod work;
