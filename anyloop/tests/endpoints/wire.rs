//! Frames and heads as bytes, from `anyloop_testkit`.

pub(crate) use anyloop_testkit::frames::{
    Frame, binary, close, frame, other, ping, pong, read_all as read, stream, text,
};
pub(crate) use anyloop_testkit::requests::{REQUEST, RESPONSE, SWITCHING, split_head};
