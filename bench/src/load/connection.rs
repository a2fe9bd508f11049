//! A connection: the messages that it has to write, and the replies that it expects.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use crate::deflate;
use crate::fault::Fault;
use crate::frames::{self, Plain, Script};
use crate::stream::{Received, Stream};

/// The maximum number of parts in one write. It is more than the parts of a message of 1 MiB.
const PARTS: usize = 48;

/// The first bytes of a ping, and of a text message that is not compressed.
const PING: u8 = 0x89;
const TEXT: u8 = 0x81;

/// A connection after its opening handshake, and the script of its messages.
///
/// [`ask`](Self::ask) and [`write`](Self::write) send messages, [`read`](Self::read) receives replies.
/// They stop when the socket would block, and edge-triggered epoll reports when to continue.
pub(crate) struct Connection {
    stream: Stream,
    script: Rc<Script>,
    /// The position of the next byte to write in the script's frames.
    position: usize,
    /// The number of bytes of requested messages that are not written yet.
    unwritten: usize,
    /// Pongs for the server's pings that are not written yet.
    pongs: Vec<u8>,
    checker: Checker,
    received: u64,
}

impl Connection {
    pub(crate) fn new(stream: Stream, script: impl Into<Rc<Script>>) -> Self {
        Self {
            stream,
            script: script.into(),
            position: 0,
            unwritten: 0,
            pongs: Vec::new(),
            checker: Checker::default(),
            received: 0,
        }
    }

    /// Requests `messages` more messages, for the next [`write`](Self::write).
    pub(crate) fn ask(&mut self, messages: usize) {
        let frames = self.script.frames();
        let next = (self.position + self.unwritten) % frames.length();
        self.unwritten += frames.span(next, messages);
        self.expect(messages);
    }

    /// Expects the replies to `messages` more messages, which another connection sends.
    pub(crate) fn expect(&mut self, messages: usize) {
        self.checker.outstanding += messages;
    }

    /// The number of replies that have not arrived yet.
    pub(crate) fn outstanding(&self) -> usize {
        self.checker.outstanding
    }

    /// The number of bytes that have arrived.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Writes the requested messages, as much as the socket accepts. One system call, if it accepts all of them and
    /// they have few parts.
    pub(crate) fn write(&mut self) -> Result<(), Fault> {
        if !self.stream.flush()? {
            return Ok(());
        }
        if !self.pongs.is_empty() && self.script.frames().is_start(self.position) {
            let written = self.stream.send(&self.pongs)?;
            self.pongs.drain(..written);
            if !self.pongs.is_empty() {
                return Ok(());
            }
        }
        while self.unwritten > 0 {
            let frames = self.script.frames();
            let first = frames.at(self.position);
            let (asked, written) = if first.len() >= self.unwritten {
                let all = &first[..self.unwritten];
                (all.len(), self.stream.send(all)?)
            } else {
                let mut parts = [IoSlice::new(&[]); PARTS];
                let mut asked = 0;
                let mut filled = 0;
                for part in &mut parts {
                    if asked == self.unwritten {
                        break;
                    }
                    let bytes = frames.at((self.position + asked) % frames.length());
                    let bytes = &bytes[..bytes.len().min(self.unwritten - asked)];
                    *part = IoSlice::new(bytes);
                    asked += bytes.len();
                    filled += 1;
                }
                (asked, self.stream.send_parts(&parts[..filled])?)
            };
            self.position = (self.position + written) % frames.length();
            self.unwritten -= written;
            if written < asked {
                break;
            }
        }
        Ok(())
    }

    /// Reads once, and checks the bytes. Returns the number of replies that they complete, and whether there may be
    /// more to read.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<(usize, bool), Fault> {
        match self.stream.recv(buffer)? {
            Received::End => Err(Fault::Closed),
            Received::Blocked => Ok((0, false)),
            Received::Bytes { length, more } => {
                self.received += length as u64;
                let replies =
                    self.checker.check(&self.script, &buffer[..length], &mut self.pongs)?;
                Ok((replies, more))
            }
        }
    }

    /// Handles an event of edge-triggered epoll: [reads](Self::read) and [writes](Self::write) until the socket would
    /// block. After a read that completes replies, `next` gets their number and returns the number of messages to
    /// write.
    pub(crate) fn turn(
        &mut self,
        buffer: &mut [u8],
        mut next: impl FnMut(usize) -> usize,
    ) -> Result<(), Fault> {
        loop {
            let (replies, more) = self.read(buffer)?;
            if replies > 0 {
                self.ask(next(replies));
            }
            self.write()?;
            if !more {
                return Ok(());
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Compares the received bytes with the expected replies.
#[derive(Default)]
struct Checker {
    /// The position of the next expected byte in the script's replies.
    position: usize,
    /// The number of received bytes of an incomplete reply.
    partial: usize,
    /// The number of replies that have not arrived yet.
    outstanding: usize,
    /// The number of complete replies.
    complete: u64,
    /// The beginning of a compressed reply that is not complete.
    begun: Vec<u8>,
}

impl Checker {
    /// Checks each byte of `data`. Returns the number of replies that it completes. There may be pings between
    /// replies; their pongs are appended to `pongs`.
    fn check(
        &mut self,
        script: &Script,
        mut data: &[u8],
        pongs: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        if let Some(plain) = script.plain() {
            return self.check_compressed(plain, data, pongs);
        }
        let mut replies = 0;
        while !data.is_empty() {
            let expected = script.replies().at(self.position);
            let length = expected.len().min(data.len());
            if expected[..length] == data[..length] {
                replies += self.advance(script, length)?;
                data = &data[length..];
                continue;
            }
            let same = expected.iter().zip(data).take_while(|(a, b)| a == b).count();
            replies += self.advance(script, same)?;
            data = &data[same..];
            data = self.ping(script, data, pongs).ok_or(Fault::Differs {
                reply: self.complete,
                byte: self.partial,
                expected: expected[same],
                came: data[0],
            })?;
        }
        Ok(replies)
    }

    /// Advances by `length` correct bytes. Returns the number of replies that they complete.
    fn advance(&mut self, script: &Script, length: usize) -> Result<usize, Fault> {
        let stream = script.replies();
        let (replies, partial) = stream.ends(self.position, length);
        self.partial = partial;
        self.position = (self.position + length) % stream.length();
        self.outstanding = self.outstanding.checked_sub(replies).ok_or(Fault::Unexpected)?;
        self.complete += replies as u64;
        if self.partial > 0 && self.outstanding == 0 {
            return Err(Fault::Unexpected);
        }
        Ok(replies)
    }

    /// Checks compressed replies. They may also be uncompressed, and there may be pings between them.
    fn check_compressed(
        &mut self,
        plain: &Plain,
        data: &[u8],
        pongs: &mut Vec<u8>,
    ) -> Result<usize, Fault> {
        self.begun.extend_from_slice(data);
        let begun = core::mem::take(&mut self.begun);
        let (mut at, mut replies) = (0, 0);
        while let Some((first, payload, length)) = deflate::frame(&begun[at..]) {
            let fault = |what| Err(Fault::Reply { reply: self.complete, what });
            let is_right = match first {
                _ if begun[at + 1] & 0x80 != 0 => return fault("is masked"),
                PING => {
                    frames::put(pongs, 0xa, payload, Some([1, 2, 3, 4]));
                    at += length;
                    continue;
                }
                deflate::COMPRESSED_TEXT => deflate::is_reply(plain, self.complete, payload),
                TEXT => payload == plain.message(self.complete),
                _ => return fault("is neither a whole text message nor a ping"),
            };
            if !is_right {
                return fault("is not what was sent");
            }
            self.outstanding = self.outstanding.checked_sub(1).ok_or(Fault::Unexpected)?;
            self.complete += 1;
            replies += 1;
            at += length;
        }
        self.begun = begun;
        self.begun.drain(..at);
        match self.outstanding == 0 && !self.begun.is_empty() && self.begun[0] != PING {
            true => Err(Fault::Unexpected),
            false => Ok(replies),
        }
    }

    /// Answers a complete ping at the start of `data`, and returns the bytes after it. `None` if there is none.
    #[cold]
    fn ping<'a>(&self, script: &Script, data: &'a [u8], pongs: &mut Vec<u8>) -> Option<&'a [u8]> {
        let (&[PING, length @ 0..=125], rest) = data.split_first_chunk()? else { return None };
        if script.is_raw() || self.partial > 0 {
            return None;
        }
        let (payload, rest) = rest.split_at_checked(length.into())?;
        frames::put(pongs, 0xa, payload, Some([1, 2, 3, 4]));
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::Agreed;
    use crate::frames::Content;

    fn checker(outstanding: usize) -> Checker {
        Checker { outstanding, ..Checker::default() }
    }

    fn check(checker: &mut Checker, script: &Script, data: &[u8]) -> Result<usize, Fault> {
        checker.check(script, data, &mut Vec::new())
    }

    #[test]
    fn correct_replies_pass_at_any_division_into_reads() {
        for (size, raw) in [(64, false), (64, true), (200, false), (0, false)] {
            let script = Script::new(Content::Binary, size, 3, 1, raw);
            let twice = [script.replies().at(0), script.replies().at(0)].concat();
            for cut in 1..=twice.len() {
                let mut checker = checker(6);
                let replies: usize =
                    twice.chunks(cut).map(|part| check(&mut checker, &script, part).unwrap()).sum();
                assert_eq!(replies, 6);
                assert_eq!(checker.outstanding, 0);
                assert_eq!(checker.partial, 0);
            }
        }
    }

    #[test]
    fn any_wrong_bit_is_detected() {
        let script = Script::new(Content::Binary, 64, 3, 1, false);
        for at in 0..script.replies().at(0).len() {
            for bit in 0..8 {
                let mut wrong = script.replies().at(0).to_vec();
                wrong[at] ^= 1 << bit;
                for cut in [1, 7, 66, 1000] {
                    let mut checker = checker(3);
                    let found =
                        wrong.chunks(cut).find_map(|part| check(&mut checker, &script, part).err());
                    assert_eq!(
                        found,
                        Some(Fault::Differs {
                            reply: at as u64 / 66,
                            byte: at % 66,
                            expected: script.replies().at(0)[at],
                            came: wrong[at],
                        })
                    );
                }
            }
        }
    }

    #[test]
    fn a_repeated_missing_or_masked_reply_is_detected() {
        let script = Script::new(Content::Binary, 64, 3, 1, false);
        let replies: Vec<&[u8]> = script.replies().at(0).chunks(66).collect();
        assert!(check(&mut checker(3), &script, &[replies[0], replies[0]].concat()).is_err());
        assert!(check(&mut checker(3), &script, &[replies[0], replies[2]].concat()).is_err());
        assert!(check(&mut checker(3), &script, script.frames().at(0)).is_err());
    }

    #[test]
    fn more_replies_than_messages_are_detected() {
        let script = Script::new(Content::Binary, 64, 3, 1, false);
        assert_eq!(
            check(&mut checker(0), &script, &script.replies().at(0)[..1]),
            Err(Fault::Unexpected)
        );
        assert_eq!(check(&mut checker(2), &script, script.replies().at(0)), Err(Fault::Unexpected));
        let mut one = checker(1);
        assert_eq!(check(&mut one, &script, &script.replies().at(0)[..66]), Ok(1));
        assert_eq!(
            check(&mut one, &script, &script.replies().at(0)[66..67]),
            Err(Fault::Unexpected)
        );
    }

    #[test]
    fn compressed_replies_pass_at_any_division_into_reads() {
        let script = deflate::script(Agreed::ANY, 300, 3, 1, false);
        let plain = script.plain().unwrap();
        let mut replies = Vec::new();
        for number in 0..6 {
            let message = plain.message(number);
            match number {
                4 => frames::put(&mut replies, 1, message, None),
                _ => deflate::put(&mut replies, Agreed::ANY, message, None),
            }
            frames::put(&mut replies, 9, b"hi", None);
        }
        for cut in 1..=replies.len() {
            let (mut checker, mut pongs) = (checker(6), Vec::new());
            let parts = replies.chunks(cut);
            let sum: usize =
                parts.map(|part| checker.check(&script, part, &mut pongs).unwrap()).sum();
            assert_eq!((sum, checker.outstanding, pongs.len()), (6, 0, 6 * 8));
        }
        assert_eq!(check(&mut checker(5), &script, &replies), Err(Fault::Unexpected));
    }

    #[test]
    fn a_compressed_reply_that_is_not_what_was_sent_is_detected() {
        let script = deflate::script(Agreed::ANY, 300, 3, 1, false);
        let plain = script.plain().unwrap();
        let mut right = Vec::new();
        deflate::put(&mut right, Agreed::ANY, plain.message(0), None);
        assert_eq!(check(&mut checker(1), &script, &right), Ok(1));
        // The last byte has bits without a meaning.
        for at in 0..right.len() - 1 {
            let mut wrong = right.clone();
            wrong[at] ^= 0x10;
            assert_ne!(check(&mut checker(1), &script, &wrong), Ok(1), "byte {at}");
        }
        let mut other = Vec::new();
        deflate::put(&mut other, Agreed::ANY, plain.message(1), None);
        assert!(check(&mut checker(1), &script, &other).is_err());
        assert!(check(&mut checker(2), &script, script.frames().at(0)).is_err());
    }

    #[test]
    fn pings_are_answered_between_replies_and_refused_within_them() {
        let script = Script::new(Content::Binary, 64, 2, 1, false);
        let (first, second) = script.replies().at(0).split_at(66);
        let ping: &[u8] = &[0x89, 2, b'h', b'i'];
        let mut pongs = Vec::new();
        let data = [ping, first, ping, second, ping].concat();
        assert_eq!(checker(2).check(&script, &data, &mut pongs), Ok(2));
        assert_eq!(pongs[..8], [0x8a, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2]);
        assert_eq!(pongs.len(), 24);
        let data = [&first[..10], ping, &first[10..]].concat();
        assert!(check(&mut checker(2), &script, &data).is_err());
    }
}
