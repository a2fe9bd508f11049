//! Unpredictable bytes for masking keys and handshake nonces.

/// A source of unpredictable bytes.
///
/// The author of a payload must not be able to predict masking keys (RFC 6455 §10.3), and the nonce
/// of each handshake is random (§4.1). An implementation must therefore be a cryptographically
/// secure generator, unless all peers and payloads are trusted. Tests use a counter.
///
/// One value serves all connections of an endpoint, from any thread.
///
/// A counter, for a test with known bytes:
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU8, Ordering};
/// use anyloop_proto::{Config, Connection, Instant, Random, Role};
///
/// struct Counter(AtomicU8);
///
/// impl Random for Counter {
///     fn fill(&self, bytes: &mut [u8]) {
///         bytes.fill_with(|| self.0.fetch_add(1, Ordering::Relaxed));
///     }
/// }
///
/// let config = Config::new(Arc::new(Counter(AtomicU8::new(1))));
/// let now = Instant::from_nanos(0);
/// let mut client = Connection::new(Role::Client, Arc::new(config), now);
/// let mut out = Vec::new();
/// client.sender.send(&[0, 0][..], &mut out)?;
/// assert_eq!(out, [0x82, 0x82, 1, 2, 3, 4, 1, 2]);
/// # Ok::<(), anyloop_proto::Refused>(())
/// ```
pub trait Random: Send + Sync {
    /// Fills `bytes` with unpredictable bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// A masking key: four unpredictable bytes.
    fn masking_key(&self) -> [u8; 4] {
        let mut key = [0; 4];
        self.fill(&mut key);
        key
    }
}

/// The operating system's generator, read 4 KiB at a time and shared by the connections of a
/// thread.
///
/// A process that forks without `exec` shares up to 4 KiB of not yet used bytes with its child;
/// masking keys then repeat between the two, but stay unpredictable to their peers.
///
/// ```
/// use anyloop_proto::{OsRandom, Random};
///
/// let (mut one, mut other) = ([0; 16], [0; 16]);
/// OsRandom.fill(&mut one);
/// OsRandom.fill(&mut other);
/// assert_ne!(one, other);
/// ```
///
/// # Panics
///
/// [`fill`](Random::fill) panics if the operating system has no random source, which the systems
/// that Rust's standard library supports never report after boot.
#[cfg(feature = "std")]
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

/// The bytes that are read from the operating system at once.
#[cfg(feature = "std")]
const REFILL: usize = 4096;

/// The random bytes of a thread.
#[cfg(feature = "std")]
struct Cache {
    bytes: [u8; REFILL],
    /// The number of bytes, from the beginning, that were used.
    used: usize,
}

#[cfg(feature = "std")]
impl Cache {
    fn take(&mut self, wanted: &mut [u8]) {
        for part in wanted.chunks_mut(REFILL) {
            if REFILL - self.used < part.len() {
                getrandom::fill(&mut self.bytes)
                    .expect("the operating system provides random bytes");
                self.used = 0;
            }
            let next = &mut self.bytes[self.used..self.used + part.len()];
            part.copy_from_slice(next);
            next.fill(0); // used bytes must not stay in memory
            self.used += part.len();
        }
    }
}

#[cfg(feature = "std")]
impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        use std::boxed::Box;
        use std::cell::RefCell;

        std::thread_local! {
            static CACHE: RefCell<Box<Cache>> =
                RefCell::new(Box::new(Cache { bytes: [0; REFILL], used: REFILL }));
        }
        CACHE.with_borrow_mut(|cache| cache.take(bytes));
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn rfc6455_10_3_keys_are_not_repeated() {
        let mut keys: Vec<_> = (0..4096).map(|_| OsRandom.masking_key()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert!(keys.len() > 4000, "only {} distinct keys of 4096", keys.len());
    }

    #[test]
    fn a_request_larger_than_a_refill_is_filled_whole() {
        let mut bytes = std::vec![0; 3 * REFILL + 17];
        OsRandom.fill(&mut bytes);
        for part in bytes.chunks(64) {
            assert!(part.len() < 16 || part.iter().any(|&b| b != 0));
        }
    }
}
