//! The state of a connection, as its handles and the registry know it.

use anyloop_proto::State;

/// The [`State`] of a connection, with `Connecting` split in four: handles may answer a request only in `Requested` and
/// `HeadRequested`, and may not queue messages in `WillNotOpen`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Connecting,
    /// A request waits for the application's answer.
    Requested,
    /// As `Requested`, with the method HEAD.
    HeadRequested,
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
    const ALL: [Self; 9] = [
        Self::Connecting,
        Self::Requested,
        Self::HeadRequested,
        Self::WillNotOpen,
        Self::Open,
        Self::CloseSent,
        Self::Closed,
        Self::Failed,
        Self::Ended,
    ];

    pub(super) const fn state(self) -> State {
        match self {
            Self::Connecting | Self::Requested | Self::HeadRequested | Self::WillNotOpen => {
                State::Connecting
            }
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

    /// The phase while a request waits for an answer.
    pub(super) const fn awaiting_answer(is_head_request: bool) -> Self {
        if is_head_request { Self::HeadRequested } else { Self::Requested }
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
            if !matches!(phase, Phase::Requested | Phase::HeadRequested | Phase::WillNotOpen) {
                assert_eq!(Phase::of(phase.state()), phase);
            }
        }
    }
}
