//! Runs the programs `anyloop serve` and `anyloop connect`.
#![cfg(unix)]

mod bench;
mod compression;
mod connect;
mod errors;
mod files;
mod generate;
mod listen;
mod log;
mod output;
mod peer;
mod program;
mod route;
mod screen;
mod serve;
mod streams;
mod tls;
mod typing;
