//! Negotiation of permessage-deflate (RFC 7692 §7.1).

use std::sync::Arc;

use anyloop_proto::deflate::Deflate;
use anyloop_proto::handshake::{Accept, Negotiator, ServerHandshake};
use anyloop_proto::{Field, HandshakeError};
use anyloop_testkit::requests::{SAMPLE_RESPONSE, replaced};

use crate::drive::{Served, answer, at, client, client_options, feed, sample_with, server_options};

const NAME: &str = "permessage-deflate";
const INVALID: HandshakeError = HandshakeError::Invalid(Field::SecWebSocketExtensions);

/// What a server answers to the offers in this field, without the name of the extension. `None` if it declines.
fn answered(deflate: Deflate, field: &str) -> Option<String> {
    let mut options = server_options();
    options.extensions.push(Arc::new(deflate));
    let mut server = ServerHandshake::new(Arc::new(options), at(0));
    let line = format!("Sec-WebSocket-Extensions: {field}\r\n");
    assert_eq!(feed(&mut server, sample_with(&line).as_bytes()).0, Served::Upgrade, "{field}");
    let opened = server.accept(Accept::new(), at(0), &mut Vec::new()).unwrap();
    let params = |extension: String| {
        let params = extension.strip_prefix(NAME).expect("the name").trim_start_matches("; ");
        params.to_owned()
    };
    opened.extension.map(params)
}

/// What a server answers to one offer with these parameters.
fn accepted(deflate: Deflate, params: &str) -> Option<String> {
    answered(deflate, &offer(params))
}

fn offer(params: &str) -> String {
    if params.is_empty() { NAME.into() } else { format!("{NAME}; {params}") }
}

/// The offers of a client, as in its request.
fn offers(deflate: Deflate) -> Vec<String> {
    let mut options = client_options();
    options.extensions.push(Arc::new(deflate));
    let (_, request) = client(options);
    let lines = request.lines().filter_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "));
    let offers: Vec<_> = lines.flat_map(|line| line.split(", ")).map(String::from).collect();
    assert_eq!(offers.len(), deflate.offer().len());
    offers
}

/// Whether a client confirms an answer with these parameters.
fn confirmed(deflate: Deflate, params: &str) -> bool {
    let mut options = client_options();
    options.extensions.push(Arc::new(deflate));
    let (mut client, _) = client(options);
    let line = format!("Sec-WebSocket-Extensions: {}\r\n", offer(params));
    let response = replaced(SAMPLE_RESPONSE, "Sec-WebSocket-Protocol: chat\r\n", &line);
    match answer(&mut client, response.as_bytes()).0 {
        Ok(opened) => {
            assert!(opened.expect("the response is complete").extension.is_some());
            true
        }
        Err(error) => {
            assert_eq!(error, INVALID, "{params}");
            false
        }
    }
}

/// Parameters that must not occur, neither in an offer nor in an answer.
const MALFORMED: [&str; 34] = [
    // With a value that must not be there, and without one that must.
    "server_no_context_takeover=1",
    "server_no_context_takeover=true",
    "client_no_context_takeover=0",
    "server_max_window_bits",
    // Out of range.
    "server_max_window_bits=0",
    "server_max_window_bits=7",
    "server_max_window_bits=16",
    "server_max_window_bits=100",
    "server_max_window_bits=256",
    "server_max_window_bits=265", // 9 modulo 256
    "server_max_window_bits=18446744073709551625",
    "client_max_window_bits=7",
    "client_max_window_bits=16",
    "client_max_window_bits=4294967305",
    // Not a decimal integer without leading zeros.
    "server_max_window_bits=08",
    "server_max_window_bits=010",
    "client_max_window_bits=09",
    "client_max_window_bits=0010",
    "server_max_window_bits=+9",
    "server_max_window_bits=-9",
    "server_max_window_bits=1e1",
    "server_max_window_bits=9.0",
    "client_max_window_bits=0xa",
    "client_max_window_bits=ten",
    "client_max_window_bits=\"010\"",
    // Repeated, also with the same value.
    "server_no_context_takeover; server_no_context_takeover",
    "client_no_context_takeover; client_no_context_takeover",
    "server_max_window_bits=10; server_max_window_bits=10",
    "client_max_window_bits=10; client_max_window_bits=10",
    "client_max_window_bits=10; client_max_window_bits=11",
    // Unknown. Names are compared byte by byte.
    "unknown",
    "client_no_context_takeover; unknown=1",
    "Server_No_Context_Takeover",
    "server-no-context-takeover",
];

#[test]
fn rfc7692_7_1_malformed_parameters_decline_an_offer_and_fail_an_answer() {
    for deflate in [Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated()] {
        for params in MALFORMED {
            assert_eq!(accepted(deflate, params), None, "{params}");
            let params = format!("server_no_context_takeover; {params}");
            assert!(!confirmed(deflate, &params), "{params}");
            // The next offer is judged by itself.
            let fallback = answered(deflate, &format!("{}, {NAME}", offer(&params)));
            assert!(fallback.is_some(), "{params}");
        }
        for params in [
            "client_max_window_bits; client_max_window_bits",
            "client_max_window_bits=9; client_max_window_bits",
        ] {
            assert_eq!(accepted(deflate, params), None, "{params}");
        }
    }
}

#[test]
fn rfc7692_7_1_what_a_server_answers() {
    const NO_CLIENT: &str = "client_no_context_takeover";
    const BOTH: &str = "server_no_context_takeover; client_no_context_takeover";
    let (pooled, none, dedicated) =
        (Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated());
    for (deflate, offer, answer) in [
        // A window of the client that cannot be limited is not kept.
        (pooled, "", NO_CLIENT),
        (dedicated, "", ""),
        (none, "", BOTH),
        (pooled, "client_max_window_bits", "client_max_window_bits=10"),
        (dedicated, "client_max_window_bits", "client_max_window_bits=15"),
        (
            none,
            "client_max_window_bits",
            "server_no_context_takeover; client_no_context_takeover; client_max_window_bits=10",
        ),
        // What was asked for.
        (pooled, "server_no_context_takeover", BOTH),
        (dedicated, "server_no_context_takeover", "server_no_context_takeover"),
        (dedicated, NO_CLIENT, NO_CLIENT),
        (dedicated, "client_no_context_takeover; server_no_context_takeover", BOTH),
        (
            pooled,
            "client_no_context_takeover; client_max_window_bits",
            "client_no_context_takeover; client_max_window_bits=10",
        ),
        // The window of the client: no larger than it offers.
        (pooled, "client_max_window_bits=15", "client_max_window_bits=10"),
        (pooled, "client_max_window_bits=10", "client_max_window_bits=10"),
        (pooled, "client_max_window_bits=9", "client_max_window_bits=9"),
        (pooled, "client_max_window_bits=8", "client_max_window_bits=8"),
        (dedicated, "client_max_window_bits=12", "client_max_window_bits=12"),
        (pooled.receive_window_bits(8), "client_max_window_bits", "client_max_window_bits=8"),
        (pooled.receive_window_bits(15), "", ""),
        // The window of the server: no larger than the client accepts.
        (dedicated, "server_max_window_bits=15", "server_max_window_bits=12"),
        (dedicated, "server_max_window_bits=12", "server_max_window_bits=12"),
        (dedicated, "server_max_window_bits=9", "server_max_window_bits=9"),
        (dedicated.window_bits(15), "server_max_window_bits=15", "server_max_window_bits=15"),
        (dedicated.window_bits(9), "server_max_window_bits=10", "server_max_window_bits=9"),
        // Quoted values are the same (RFC 6455 §9.1).
        (dedicated, "server_max_window_bits=\"10\"", "server_max_window_bits=10"),
        (dedicated, "client_max_window_bits=\"1\\1\"", "client_max_window_bits=11"),
        // All of them, in any order.
        (
            dedicated,
            "client_max_window_bits; server_max_window_bits=11; client_no_context_takeover; server_no_context_takeover",
            "server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11; client_max_window_bits=15",
        ),
    ] {
        assert_eq!(
            accepted(deflate, offer).as_deref(),
            Some(answer),
            "to {offer:?} by {deflate:?}"
        );
    }
}

/// A compressor cannot keep a window of 256 bytes, and 512 would not be "the same or smaller".
#[test]
fn pitfall_a_server_declines_a_window_of_8_bits() {
    for deflate in [Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated()] {
        for params in
            ["server_max_window_bits=8", "server_no_context_takeover; server_max_window_bits=8"]
        {
            assert_eq!(accepted(deflate, params), None);
        }
    }
    let field =
        format!("{NAME}; server_max_window_bits=8, {NAME}; server_max_window_bits=9, {NAME}");
    assert_eq!(answered(Deflate::dedicated(), &field).as_deref(), Some("server_max_window_bits=9"));
}

#[test]
fn pitfall_the_window_of_a_client_is_not_limited_unless_it_offers_that() {
    for bits in 8..=15 {
        for deflate in [Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated()] {
            let deflate = deflate.receive_window_bits(bits);
            for params in ["", "server_max_window_bits=10", "client_no_context_takeover"] {
                let answer = accepted(deflate, params).expect("it is accepted");
                assert!(!answer.contains("client_max_window_bits"), "{answer}");
                let window = params.contains("server_max_window_bits");
                assert_eq!(answer.contains("server_max_window_bits"), window, "{answer}");
            }
        }
    }
}

#[test]
fn what_a_client_offers() {
    let any = |params: &str| format!("{NAME}; {params}client_max_window_bits");
    let small = |params: &str, bits| {
        format!("{NAME}; {params}server_max_window_bits={bits}; client_max_window_bits")
    };
    let pooled = Deflate::pooled();
    assert_eq!(offers(pooled), [small("", 10), any("")]);
    assert_eq!(offers(pooled.receive_window_bits(8)), [small("", 8), any("")]);
    assert_eq!(offers(pooled.receive_window_bits(15)), [any("")]);
    assert_eq!(offers(Deflate::dedicated()), [any("")]);
    let none = "server_no_context_takeover; client_no_context_takeover; ";
    assert_eq!(offers(Deflate::no_takeover()), [small(none, 10), any(none)]);
    assert_eq!(offers(pooled.history(0)), [small(none, 10), any(none)]);
}

#[test]
fn rfc7692_7_1_what_a_client_confirms() {
    for deflate in [Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated()] {
        for bits in 8..=15 {
            for params in [
                "client_no_context_takeover".to_owned(),
                format!("client_max_window_bits={bits}"),
                // A server may limit its own window without being asked (RFC 7692 §7.1.2.1).
                format!("server_max_window_bits={bits}"),
                format!("server_max_window_bits=\"{bits}\"; client_max_window_bits={bits}"),
                format!("client_no_context_takeover; server_max_window_bits={bits}"),
            ] {
                let without = format!("server_no_context_takeover; {params}");
                assert!(confirmed(deflate, &without), "{without}");
                let is_offered = deflate != Deflate::no_takeover();
                assert_eq!(confirmed(deflate, &params), is_offered, "{params}");
            }
        }
        assert!(confirmed(deflate, "server_no_context_takeover"));
    }
    assert!(confirmed(Deflate::pooled(), ""));
    assert!(confirmed(Deflate::dedicated(), ""));
}

/// RFC 7692 §7.1.2.2: in an answer the parameter has a value.
#[test]
fn pitfall_client_max_window_bits_without_a_value_in_an_answer() {
    for deflate in [Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated()] {
        for params in
            ["client_max_window_bits", "server_no_context_takeover; client_max_window_bits"]
        {
            assert!(!confirmed(deflate, params));
        }
    }
}

/// A server that accepts the offer of a stream without takeover says so. Otherwise the client would have to hold its
/// window.
#[test]
fn rfc7692_7_1_1_1_an_answer_that_fits_no_offer() {
    for params in ["", "client_no_context_takeover", "server_max_window_bits=10"] {
        assert!(!confirmed(Deflate::no_takeover(), params), "{params}");
        assert!(!confirmed(Deflate::pooled().history(0), params), "{params}");
        assert!(confirmed(Deflate::pooled(), params), "{params}");
    }
}

/// Each configuration agrees with each other one, and with the ones of browsers.
#[test]
fn clients_and_servers_agree() {
    let mut all = Vec::new();
    for deflate in [Deflate::pooled(), Deflate::no_takeover(), Deflate::dedicated()] {
        for window in [9, 12, 15] {
            for receive in [8, 9, 10, 15] {
                all.push(deflate.window_bits(window).receive_window_bits(receive));
            }
        }
    }
    for server in &all {
        for client in &all {
            let answer = answered(*server, &offers(*client).join(", "));
            let answer = answer.unwrap_or_else(|| panic!("{server:?} declines {client:?}"));
            assert!(confirmed(*client, &answer), "{client:?} refuses {answer} of {server:?}");
        }
        assert!(accepted(*server, "client_max_window_bits").is_some(), "Chromium");
        assert!(accepted(*server, "").is_some(), "Firefox");
    }
}
