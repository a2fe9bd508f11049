//! Streams of 10,000 messages that CPython's zlib decompresses, and that it has compressed. `./dev features` runs them.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use anyloop_proto::{Kind, Prepared};

use super::peer::MARKER;
use super::{RSV1, compressed, modes, noise, receiver, server};
use crate::subject::{Seen, Subject};

const MESSAGES: u64 = 10_000;

/// The record that changes from message to message, as in a feed of prices.
fn tick(i: u64) -> Vec<u8> {
    let (price, size) = (10_000 + i * 7919 % 977, 1 + i * 31 % 100);
    format!(r#"{{"symbol":"ABC{}","price":{price}.25,"size":{size},"sequence":{i}}}"#, i % 5).into()
}

/// Runs Python with this script and input. Returns its output. Panics if it fails.
fn python(script: &str, input: Vec<u8>) -> Vec<u8> {
    let mut child = Command::new("python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 runs");
    let mut stdin = child.stdin.take().expect("it is piped");
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let mut output = Vec::new();
    child.stdout.take().expect("it is piped").read_to_end(&mut output).expect("it is read");
    assert!(child.wait().expect("it ends").success());
    writer.join().expect("no panic").expect("all was read");
    output
}

/// Decompresses records of a size and as many bytes, as one stream with a window of this many bits.
const DECOMPRESS: &str = "
import struct, sys, zlib
data, at = sys.stdin.buffer.read(), 1
stream = zlib.decompressobj(-data[0])
while at < len(data):
    size, = struct.unpack_from('<I', data, at)
    sys.stdout.buffer.write(stream.decompress(data[at + 4:at + 4 + size]))
    at += 4 + size
assert not stream.eof and not stream.unused_data and not stream.unconsumed_tail
";

/// Compresses messages with this level and window. Writes the size of each, it, the size when compressed, and that.
const COMPRESS: &str = r#"
import struct, sys, zlib
level, bits, count = struct.unpack('<BBI', sys.stdin.buffer.read())
stream = zlib.compressobj(level, zlib.DEFLATED, -bits, 1 + level)
for i in range(count):
    message = b'{"symbol":"ABC%d","price":%d.25,"sequence":%d}' % (i % 5, 10000 + i * 7919 % 977, i)
    message = message * (1 + i % 7 * (i % 3)) if i % 100 else bytes(j * i * 37 % 251 for j in range(i))
    flush = zlib.Z_FULL_FLUSH if i % 1000 == 999 else zlib.Z_SYNC_FLUSH
    packed = stream.compress(message) + stream.flush(flush)
    assert packed.endswith(b'\0\0\xff\xff')
    for part in (message, packed[:-4]):
        sys.stdout.buffer.write(struct.pack('<I', len(part)) + part)
"#;

/// Appends the size of `bytes`, and them.
fn record(input: &mut Vec<u8>, bytes: &[u8]) {
    input.extend((bytes.len() as u32).to_le_bytes());
    input.extend(bytes);
}

#[test]
#[ignore = "needs python3; ./dev features runs it"]
fn zlib_decompresses_what_is_sent_as_one_stream() {
    for deflate in modes() {
        for (level, bits) in [(1, 9), (1, 12), (6, 9), (6, 12), (6, 15), (9, 15)] {
            let deflate = deflate.level(level).window_bits(bits);
            let mut server = server(deflate, &format!("server_max_window_bits={bits}"));
            let (mut input, mut expected) = (vec![bits], Vec::new());
            for i in 0..MESSAGES {
                let message = match i % 50 {
                    49 => noise((i % 3000) as usize, i),
                    _ => tick(i),
                };
                let Subject { connection, out, .. } = &mut server;
                let sender = &mut connection.sender;
                match i % 10 {
                    7 => sender.send_prepared(&Prepared::new(&message), out).unwrap(),
                    8 => {
                        sender.begin(Kind::Binary).unwrap();
                        let half = message.len() / 2;
                        sender.piece(&message[..half], false, out).unwrap();
                        sender.piece(&message[half..], true, out).unwrap();
                    }
                    9 => sender.send_uncompressed(&tick(i + 1), out).unwrap(),
                    _ => sender.send(&message, out).unwrap(),
                }
                let frames = server.sent();
                if frames[0].rsv != RSV1 {
                    continue;
                }
                let mut payload: Vec<u8> = frames.into_iter().flat_map(|f| f.payload).collect();
                payload.extend(MARKER);
                record(&mut input, &payload);
                expected.extend(message);
            }
            assert!(python(DECOMPRESS, input) == expected, "{deflate:?}");
        }
    }
}

#[test]
#[ignore = "needs python3; ./dev features runs it"]
fn what_zlib_has_compressed_with_takeover_is_received() {
    for (level, bits) in [(1, 9), (6, 10), (2, 11), (6, 12), (8, 13), (4, 14), (6, 15)] {
        let input = [&[level, bits][..], &(MESSAGES as u32).to_le_bytes()].concat();
        let output = python(COMPRESS, input);
        let mut rest = &output[..];
        let mut next = || {
            let (size, parts) = rest.split_first_chunk::<4>()?;
            let (part, parts) = parts.split_at(u32::from_le_bytes(*size) as usize);
            rest = parts;
            Some(part)
        };
        let mut server = receiver(bits, |_| ());
        for i in 0..MESSAGES {
            let (message, packed) = (next().expect("a message"), next().expect("the same"));
            server.receive(&[compressed(packed)]);
            assert!(server.seen() == [Seen::binary(message)], "message {i}, {bits} bits");
        }
        assert_eq!(next(), None);
    }
}
