//! What the public API promises beside the contracts that the other suites test: handles of endpoints, sockets of the
//! program's own, and what becomes of messages that cannot be sent at once.

mod adopting;
mod endpoint_handles;
mod payloads;
mod pieces;
mod prompt_readers;
mod waiting;
