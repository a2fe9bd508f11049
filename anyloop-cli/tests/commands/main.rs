//! Runs the programs `anyloop serve` and `anyloop connect`.
#![cfg(unix)]

mod bench;
mod compression;
mod connect;
mod listen;
mod peer;
mod program;
mod route;
mod screen;
mod serve;
mod streams;
mod tls;
mod typing;
