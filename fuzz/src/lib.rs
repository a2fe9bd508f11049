//! Shared by the fuzz targets: division of bytes into reads, a connection under test, a checker of its output
//! that is independent of the library, and a test extension.
#![forbid(unsafe_code)]

pub mod arrival;
pub mod subject;
pub mod toy;
pub mod wire;

use std::sync::Arc;

use anyloop_proto::{Cause, Config, Failure, FirstBytes, HandshakeError, Instant};
use anyloop_testkit::requests::SampleNonce;

/// The time at which each case starts.
pub const START: Instant = Instant::from_nanos(1_000_000_000);

/// The default settings, modified by `change`. Nonces and masking keys are fixed, so that a case is deterministic.
pub fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = Config::new(Arc::new(SampleNonce));
    change(&mut config);
    Arc::new(config)
}

/// The cause of a handshake's failure, without how much of what is not HTTP had arrived: that depends on the reads.
pub fn undivided_cause(failure: Failure) -> Cause {
    match failure.cause() {
        Cause::Handshake(HandshakeError::NotHttp { peer, .. }) => {
            Cause::Handshake(HandshakeError::NotHttp { peer, first_bytes: FirstBytes::default() })
        }
        cause => cause,
    }
}
