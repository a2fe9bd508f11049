//! What a successful handshake leaves behind.

use alloc::string::String;
use core::fmt;

use crate::connection::Connection;

/// The outcome of an opening handshake, for either role.
#[non_exhaustive]
pub struct Opened {
    /// The open connection. The bytes that followed the handshake are its first input.
    pub connection: Connection,
    /// The response: as received by a client, as sent by a server.
    pub response: http::Response<()>,
    /// The subprotocol agreed on (RFC 6455 §1.9).
    pub subprotocol: Option<String>,
    /// The extension agreed on, with its parameters, as it stands in the response.
    pub extension: Option<String>,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("response", &self.response)
            .field("subprotocol", &self.subprotocol)
            .field("extension", &self.extension)
            .finish_non_exhaustive()
    }
}
