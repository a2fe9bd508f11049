//! `anyloop serve` and `anyloop connect`, as programs that are run.
#![cfg(unix)]

mod connect;
mod peer;
mod program;
mod serve;
