//! `--reconnect`: which ends of a connection are temporary, and how long to wait after them.

use std::time::Duration;

use anyloop::net::ConnectError;
use anyloop::proto::{Cause, CloseCode, Ending, Failure, HandshakeError};

/// The time before the first new attempt. It doubles with each attempt.
const FIRST_DELAY: Duration = Duration::from_millis(500);
/// The longest time.
const MAX_DELAY: Duration = Duration::from_secs(30);
/// After a connection that was open for this long, the times begin anew.
const STABLE: Duration = Duration::from_secs(10);

/// The times between attempts. It has the next one.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) const fn new() -> Self {
        Self(FIRST_DELAY)
    }

    /// How long to wait before the next attempt, after a connection that was open for this long.
    pub(super) fn next(&mut self, open_for: Option<Duration>) -> Duration {
        let was_stable = open_for.is_some_and(|time| time >= STABLE);
        let delay = if was_stable { FIRST_DELAY } else { self.0 };
        self.0 = (delay * 2).min(MAX_DELAY);
        delay
    }
}

/// Whether another attempt may succeed where this one did not open.
pub(super) fn may_open(
    failure: &Failure,
    error: Option<&(dyn std::error::Error + Send + Sync + 'static)>,
) -> bool {
    match failure.cause() {
        _ if error.is_some_and(|error| error.is::<ConnectError>()) => true,
        // RFC 9110 §15: the request may be repeated, or the server is at fault.
        Cause::Handshake(HandshakeError::Rejected(status)) => {
            matches!(status, 408 | 425 | 429 | 500..=599)
        }
        cause => is_temporary(&cause),
    }
}

/// Whether a connection that ended like this was lost, or the server asks for another one.
pub(super) fn is_lost(ending: &Ending<'_>) -> bool {
    match (ending.failure, ending.received.and_then(|frame| frame.code)) {
        (Some(failure), _) => is_temporary(&failure.cause()),
        (None, Some(code)) => matches!(
            code,
            CloseCode::GOING_AWAY
                | CloseCode::INTERNAL_ERROR
                | CloseCode::SERVICE_RESTART
                | CloseCode::TRY_AGAIN_LATER
                | CloseCode::BAD_GATEWAY
        ),
        (None, None) => false,
    }
}

/// Whether the cause is the way to the server, and not what one of the two has sent.
fn is_temporary(cause: &Cause) -> bool {
    matches!(
        cause,
        Cause::EndOfStream
            | Cause::Transport(_)
            | Cause::OutputLost
            | Cause::OpenTimeout
            | Cause::PongTimeout
            | Cause::IdleTimeout
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_double_up_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::new();
        let times: Vec<_> = (0..8).map(|_| backoff.next(None).as_secs_f64()).collect();
        assert_eq!(times, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!(backoff.next(Some(STABLE)), FIRST_DELAY);
        assert_eq!(backoff.next(None), FIRST_DELAY * 2);
        assert_eq!(backoff.next(Some(STABLE / 2)), FIRST_DELAY * 4);
    }
}
