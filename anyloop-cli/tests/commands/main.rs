//! `anyloop serve` and `anyloop connect`, as programs that are run.
#![cfg(unix)]

mod connect;
mod listen;
mod peer;
mod program;
mod screen;
mod serve;
mod streams;
mod typing;
