//! What the fuzz targets share: ways for bytes to arrive, a connection that is driven and watched, a
//! reader of frames that owes nothing to the library, and a toy extension.
#![forbid(unsafe_code)]

pub mod arrival;
pub mod subject;
pub mod toy;
pub mod wire;

use std::sync::Arc;

use anyloop_proto::{Config, Instant, Random};

/// The beginning of all time.
pub const START: Instant = Instant::from_nanos(1_000_000_000);

/// The nonce of RFC 6455 §1.3, and masking keys made of it: a case must not depend on chance.
pub struct SampleNonce;

impl Random for SampleNonce {
    fn fill(&self, bytes: &mut [u8]) {
        for (byte, nonce) in bytes.iter_mut().zip(b"the sample nonce".iter().cycle()) {
            *byte = *nonce;
        }
    }
}

/// The default settings, changed.
pub fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = Config::new(Arc::new(SampleNonce));
    change(&mut config);
    Arc::new(config)
}
