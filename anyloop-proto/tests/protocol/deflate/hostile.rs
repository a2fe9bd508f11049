//! Peers that send what costs much, or what no compressor sends.

use anyloop_proto::{Cause, ExtensionError, Role, Shutdown, State};
use anyloop_testkit::frames::{Frame, continuation, stream};

use super::peer::Peer;
use super::{compressed, fragments, noise, receiver};
use crate::heap::measure;
use crate::subject::{Seen, Subject};

const CORRUPT: Cause = Cause::Extension(ExtensionError::Corrupt);
const TOO_BIG: Cause = Cause::Extension(ExtensionError::TooBig);

/// `size` bytes of input that decompress to 1030 times as many: the middle of a message of zeros, repeated.
fn bomb(size: usize) -> Vec<u8> {
    let zeros = Peer::new().deflate(&vec![0; 1 << 20]);
    let (head, tail) = zeros.split_at(zeros.len() / 2);
    let middle = head[head.len() - 1];
    assert!(head[head.len() - 100..].iter().chain(&tail[..100]).all(|&byte| byte == middle));
    [head, &vec![middle; size - zeros.len()], tail].concat()
}

/// Asserts that the connection has failed with this code, and nothing was reported.
fn assert_failed(server: &mut Subject, cause: Cause, code: u16) {
    assert_eq!(server.failure().cause(), cause);
    let [close] = &server.sent()[..] else { panic!("one Close") };
    assert_eq!(close.close_code(), Some(code));
    assert_eq!((server.seen(), server.state()), (vec![], State::Failed));
    // Nothing is received after that, and the connection ends with the stream.
    server.receive(&[compressed([0])]);
    server.eof();
    assert_eq!((server.seen(), server.failures.len()), (vec![], 1));
    assert_eq!(server.connection.shutdown(), Shutdown::Close);
}

/// Feeds `bytes` in parts of this size, up to a failure.
fn feed(server: &mut Subject, bytes: &[u8], size: usize) {
    for part in bytes.chunks(size) {
        if server.failures.is_empty() {
            server.feed(part);
        }
    }
}

#[test]
fn pitfall_a_bomb_is_refused_in_little_memory() {
    let limit = 1 << 20;
    // 10 KB become 10 MB, and 1 MB becomes 1 GB.
    for size in [10_000, 1_000_000] {
        let bomb = compressed(bomb(size));
        for frames in [vec![bomb.clone()], fragments(&bomb, 500), fragments(&bomb, 70_000)] {
            for chunk in [1000, usize::MAX] {
                let bytes = stream(&frames, Role::Client);
                let mut server = receiver(15, |config| config.max_message_size = limit);
                let ((), usage) = measure(|| feed(&mut server, &bytes, chunk));
                let most = 3 * limit as usize + 2 * bytes.len().min(chunk) + 200_000;
                assert!(usage.peak < most as i64, "{} bytes of {most}", usage.peak);
                assert_failed(&mut server, TOO_BIG, 1009);
            }
        }
    }
}

/// No more memory is allocated than the limit allows, and one byte.
#[test]
fn a_small_limit_needs_little_memory() {
    let mut server = receiver(15, |config| config.max_message_size = 1000);
    server.receive(&[compressed(Peer::new().deflate(b"the decompressor is there now"))]);
    let bytes = stream(&[compressed(bomb(2000))], Role::Client);
    let ((), usage) = measure(|| feed(&mut server, &bytes, usize::MAX));
    assert_eq!(server.failure().cause(), TOO_BIG);
    assert!(usage.peak < 10_000, "{} bytes", usage.peak);
}

/// What a bomb decompresses to before the limit is only lent in chunks.
#[test]
fn a_bomb_is_refused_while_it_is_streamed() {
    let mut server =
        receiver(15, |config| (config.streaming, config.max_message_size) = (true, 100_000));
    let bytes = stream(&[compressed(bomb(90_000))], Role::Client);
    let ((), usage) = measure(|| feed(&mut server, &bytes, 4096));
    assert_eq!(server.failure().cause(), TOO_BIG);
    assert!(usage.peak < 500_000, "{} bytes", usage.peak);
    // A header that announces as much is enough.
    let mut server = receiver(15, |config| config.max_message_size = 100_000);
    server.receive(&[compressed(bomb(200_000))]);
    assert_failed(&mut server, Cause::MessageTooBig { limit: 100_000 }, 1009);
}

/// With the default limit of 16 MiB, 10 MB that become 10 GB.
#[test]
fn a_large_bomb_is_refused_in_the_memory_of_the_limit() {
    let bytes = stream(&[compressed(bomb(10_000_000))], Role::Client);
    let mut server = receiver(15, |_| ());
    let ((), usage) = measure(|| feed(&mut server, &bytes, 16 * 1024));
    assert_failed(&mut server, TOO_BIG, 1009);
    assert!(usage.peak < 3 * (16 << 20), "{} bytes", usage.peak);
}

#[test]
fn pitfall_garbage_gets_a_close_with_a_code() {
    for seed in 0..500 {
        let mut garbage = noise(100, seed);
        garbage[0] |= 6; // a block of the type that does not exist
        let mut server = receiver(10, |_| ());
        server.receive(&[compressed(garbage)]);
        assert_failed(&mut server, CORRUPT, 1007);
    }
    // Codes that are not complete, and a stored block whose lengths contradict each other.
    for garbage in
        [&[0x04, 0x00, 0xfe, 0xff][..], &[0, 5, 0, 5, 0, 1, 2, 3, 4, 5], &[0xec, 0xff, 0xff]]
    {
        let mut server = receiver(10, |_| ());
        server.receive(&[compressed(garbage)]);
        assert_failed(&mut server, CORRUPT, 1007);
    }
}

/// Each of two bytes would let a decompressor begin anew.
#[test]
fn empty_final_blocks_by_the_thousand_are_refused() {
    for blocks in [17, 1000, 100_000] {
        let mut server = receiver(15, |_| ());
        server.receive(&[compressed([0x03, 0x00].repeat(blocks))]);
        assert_failed(&mut server, CORRUPT, 1007);
    }
    let mut server = receiver(15, |_| ());
    server.receive(&[compressed([0x03, 0x00].repeat(16)), compressed([0x03, 0x00].repeat(16))]);
    assert_eq!(server.seen(), [Seen::binary(""), Seen::binary("")]);
}

/// A large message may have more of them. Whether it has too many does not depend on how it arrives.
#[test]
fn the_limit_of_final_blocks_is_for_what_was_decompressed() {
    let mut peer = Peer::new();
    let honest: Vec<u8> = (0..200).flat_map(|i| peer.deflate_final(&noise(2000, i))).collect();
    let early = [[0x03, 0x00].repeat(100), peer.deflate(&noise(400_000, 1))].concat();
    for (message, passes) in [(&honest, true), (&early, false)] {
        for size in [1000, 30_000, 70_000, usize::MAX] {
            let mut server = receiver(15, |_| ());
            server.receive(&fragments(&compressed(message), size));
            assert_eq!(server.failures.is_empty(), passes, "in fragments of {size}");
        }
    }
}

#[test]
fn empty_blocks_without_compression_cost_no_memory() {
    let empty = [0, 0, 0, 0xff, 0xff];
    let message = compressed([empty.repeat(200_000), vec![0]].concat());
    for size in [10_000, usize::MAX] {
        let mut server = receiver(15, |_| ());
        let bytes = stream(&fragments(&message, size), Role::Client);
        let ((), usage) = measure(|| feed(&mut server, &bytes, 16 * 1024));
        assert_eq!(server.seen(), [Seen::binary("")]);
        assert!(usage.peak < 300_000, "{} bytes", usage.peak);
    }
}

#[test]
fn ten_thousand_fragments_of_one_byte_are_one_message() {
    let message = noise(9990, 2);
    let mut server = receiver(10, |_| ());
    let mut frames = fragments(&compressed(Peer::new().deflate(&message)), 1);
    let last = frames.len() - 1;
    assert!(frames.len() > 9990);
    frames.insert(last, continuation("").more());
    let bytes = stream(&frames, Role::Client);
    let ((), usage) = measure(|| feed(&mut server, &bytes, 100));
    assert_eq!(server.seen(), [Seen::Binary(message)]);
    assert!(usage.peak < 150_000, "{} bytes", usage.peak);
}

/// A message that never ends occupies what has arrived of it, up to 64 KiB, or a decompressor and what was
/// decompressed.
#[test]
fn messages_that_do_not_end_occupy_little_memory() {
    let frame = compressed(Peer::new().deflate(&noise(200_000, 3)));
    for (arrived, most) in [(10, 1_000), (10_000, 40_000), (60_000, 140_000), (150_000, 500_000)] {
        let bytes = stream(&[Frame { fin: false, ..frame.clone() }], Role::Client);
        let mut server = receiver(10, |_| ());
        server.reading = crate::subject::Reading::Plain;
        let ((), usage) = measure(|| feed(&mut server, &bytes[..arrived], 1000));
        assert!(usage.kept < most, "{} bytes for {arrived}", usage.kept);
    }
}

/// The end that receivers append does not decompress to anything that is reported before the error.
#[test]
fn nothing_is_lent_of_a_message_that_ends_too_early() {
    for streaming in [false, true] {
        let mut server = receiver(10, |config| config.streaming = streaming);
        server.receive(&[compressed(b"\x01\x09\x00\xf6\xff")]);
        assert_failed(&mut server, CORRUPT, 1007);
    }
}
