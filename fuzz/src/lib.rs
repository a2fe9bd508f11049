//! Shared by the fuzz targets: delivery of bytes in pieces, a connection that is driven and observed, a frame
//! reader that is independent of the library, and a toy extension.
#![forbid(unsafe_code)]

pub mod arrival;
pub mod subject;
pub mod toy;
pub mod wire;

use std::sync::Arc;

use anyloop_proto::{Config, Instant};
use anyloop_testkit::requests::SampleNonce;

/// The beginning of all time.
pub const START: Instant = Instant::from_nanos(1_000_000_000);

/// The default settings, changed. Nonces and masking keys are known: a case must not depend on chance.
pub fn config(change: impl FnOnce(&mut Config)) -> Arc<Config> {
    let mut config = Config::new(Arc::new(SampleNonce));
    change(&mut config);
    Arc::new(config)
}
