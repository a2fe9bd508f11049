//! The options of permessage-deflate.

use std::thread;

use crate::peer::{CLOSE, Host, Peer, field};
use crate::program::{Server, anyloop, connect, output};
use anyloop_testkit::requests;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// The extension that a server with these options agrees on.
fn answer(options: &[&str]) -> Option<String> {
    let server = Server::start(options);
    let mut client = Peer::dial(server.address());
    client.write(requests::with_lines(&requests::request("/echo"), OFFER).as_bytes());
    let head = client.head();
    assert_eq!(requests::status(&head), 101, "{head}");
    field(&head, "Sec-WebSocket-Extensions").map(str::to_string)
}

#[test]
fn serve_compresses_unless_told_otherwise() {
    for (options, expected) in [
        (&[][..], Some("permessage-deflate; client_max_window_bits=10")),
        (&["--deflate-level", "9"], Some("permessage-deflate; client_max_window_bits=10")),
        (&["--deflate", "dedicated"], Some("permessage-deflate; client_max_window_bits=15")),
        (
            &["--deflate", "no-takeover"],
            Some(
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 client_max_window_bits=10",
            ),
        ),
        (&["--no-deflate"], None),
    ] {
        assert_eq!(answer(options).as_deref(), expected, "{options:?}");
    }
}

#[test]
fn connect_offers_to_compress_unless_told_otherwise() {
    for (options, expected) in [
        (
            &[][..],
            Some(
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits, \
                 permessage-deflate; client_max_window_bits",
            ),
        ),
        (&["--deflate", "dedicated"], Some("permessage-deflate; client_max_window_bits")),
        (&["--no-deflate"], None),
    ] {
        let host = Host::new();
        let url = host.url();
        let request = thread::spawn(move || {
            let (mut peer, request) = host.open();
            peer.expect_close(1000);
            peer.send(CLOSE, b"\x03\xe8");
            request
        });
        let ended = connect(&[&[&*url], options].concat(), b"");
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        let request = request.join().expect("the thread does not panic");
        assert_eq!(field(&request, "Sec-WebSocket-Extensions"), expected, "{options:?}");
    }
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for (options, words) in [
        (&["--no-deflate", "--deflate", "pooled"][..], "cannot be used with"),
        (&["--no-deflate", "--deflate-level", "1"], "cannot be used with"),
        (&["--deflate-level", "10"], "not a number from 1 to 9"),
        (&["--deflate", "best"], "pooled, no-takeover, dedicated"),
    ] {
        let url = "ws://127.0.0.1:1/";
        for command in [&["serve"][..], &["connect", url], &["bench", url], &["pipe"]] {
            let output = output(anyloop(command).args(options));
            assert_eq!(output.status.code(), Some(2), "{command:?} {options:?}");
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(errors.contains(words), "{errors}");
        }
    }
}
