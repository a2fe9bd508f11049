//! The state of a connection, as its handles and the registry know it.

use anyloop_proto::State;
use anyloop_proto::handshake::http::Method;

/// The [`State`] of a connection, with `Connecting` split in five: handles may answer a request only in `Requested`,
/// `HeadRequested` and `ConnectRequested`, and may not queue messages in `WillNotOpen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Connecting,
    /// A request waits for the application's answer.
    Requested,
    /// As `Requested`, with the method HEAD.
    HeadRequested,
    /// As `Requested`, with the method CONNECT.
    ConnectRequested,
    /// The request was answered without opening a connection: the response is not 101.
    WillNotOpen,
    /// This and the following are as in [`State`].
    Open,
    CloseSent,
    Closed,
    Failed,
    Ended,
}

impl Phase {
    const ALL: [Self; 10] = [
        Self::Connecting,
        Self::Requested,
        Self::HeadRequested,
        Self::ConnectRequested,
        Self::WillNotOpen,
        Self::Open,
        Self::CloseSent,
        Self::Closed,
        Self::Failed,
        Self::Ended,
    ];

    pub(super) const fn state(self) -> State {
        match self {
            Self::Connecting
            | Self::Requested
            | Self::HeadRequested
            | Self::ConnectRequested
            | Self::WillNotOpen => State::Connecting,
            Self::Open => State::Open,
            Self::CloseSent => State::CloseSent,
            Self::Closed => State::Closed,
            Self::Failed => State::Failed,
            Self::Ended => State::Ended,
        }
    }

    pub(super) const fn of(state: State) -> Self {
        match state {
            State::Connecting => Self::Connecting,
            State::Open => Self::Open,
            State::CloseSent => Self::CloseSent,
            State::Closed => Self::Closed,
            State::Failed => Self::Failed,
            _ => Self::Ended,
        }
    }

    /// The phase while a request with this method waits for an answer.
    pub(super) fn awaiting_answer(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::HeadRequested,
            Method::CONNECT => Self::ConnectRequested,
            _ => Self::Requested,
        }
    }

    pub(super) const fn encode(self) -> u8 {
        self as u8
    }

    /// Decodes what [`encode`](Self::encode) has made. Any other code becomes `Ended`.
    pub(super) fn decode(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Self::Ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_decoded_as_it_was_encoded() {
        for phase in Phase::ALL {
            assert_eq!(Phase::decode(phase.encode()), phase);
            if phase == Phase::Connecting || phase.state() != State::Connecting {
                assert_eq!(Phase::of(phase.state()), phase);
            }
        }
    }
}
