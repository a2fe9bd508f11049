//! Allocations of an opening handshake.

use std::sync::Arc;

use anyloop_proto::Input;
use anyloop_proto::handshake::{Accept, ServerHandshake};

use crate::drive::{at, sample, server_options};
use crate::heap::measure;

/// For the request: the bytes, their reference count, and the two tables of a header map. For the
/// response: the two tables of a header map, and the accept value.
const ALLOCATIONS: u64 = 7;

/// The number of allocations does not grow with the number of header fields, nor with offers of
/// extensions that the server does not support.
#[test]
fn the_allocations_for_a_request_do_not_depend_on_its_fields() {
    for lines in [
        "",
        "Cookie: session=9f86d081884c7d659a2feaa0c55ad015\r\nUser-Agent: of a browser\r\n\
            Cache-Control: no-cache\r\nPragma: no-cache\r\nAccept-Encoding: gzip, br\r\n\
            Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
        &"Cookie: a=b\r\n".repeat(2),
    ] {
        let mut request = sample("Sec-WebSocket-Protocol: chat, superchat\r\n", lines).into_bytes();
        let options = Arc::new(server_options());
        let mut out = Vec::with_capacity(1000);
        let ((), usage) = measure(|| {
            let mut server = ServerHandshake::new(options, at(0));
            assert!(server.next(&mut Input::new(&mut request), at(0), &mut out).unwrap().is_some());
            assert!(server.accept(Accept::new(), at(0), &mut out).is_ok());
        });
        // A header map allocates a table for repeated fields.
        let repeated = u64::from(lines.matches("a=b").count() > 1);
        let most = ALLOCATIONS + repeated;
        assert!(usage.allocations <= most, "{} allocations: {lines}", usage.allocations);
    }
}
