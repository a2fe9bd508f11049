//! The event loop and the `net` transport, tested from outside: the contract of `EventLoop`, line by
//! line, with peers made of plain sockets whose bytes are the test's own.
//!
//! The peers, and bounds in time, are those of `anyloop_testkit`. [`harness`] runs a loop until something
//! is so; [`wire`] has the bytes that peers send; [`site`] is a server under test that writes down what its
//! handlers are told.
#![cfg(unix)]

mod harness;
mod site;
mod wire;

mod counting;
mod crowd;
mod embedding;
mod idling;
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
