//! permessage-deflate between two configurations, with parameters of either side or arbitrary ones.
//!
//! Asserts:
//!
//! - An offer is accepted if it is valid and its windows can be kept, by rules written a second time from RFC 7692
//!   §7.1; the answer then fits it.
//! - An answer is confirmed if it is valid and fits the offers.
//! - What one side sends under the agreed parameters, in pieces or prepared, compressed or not, is what the other
//!   receives.
#![no_main]

use anyloop_fuzz::arrival::Cuts;
use anyloop_fuzz::config;
use anyloop_fuzz::subject::{Reading, Seen, Subject};
use anyloop_proto::deflate::Deflate;
use anyloop_proto::handshake::{Codec, Negotiator, Params};
use anyloop_proto::{Kind, Prepared, Role};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Case {
    client: Settings,
    server: Settings,
    offer: Vec<Param>,
    answer: Vec<Param>,
    reading: Reading,
    cuts: Cuts,
    messages: Vec<Message>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Settings {
    dedicated: bool,
    history: Option<u16>,
    level: u8,
    threshold: u8,
    window_bits: u8,
    receive_window_bits: u8,
}

/// A parameter, in most cases one that is defined.
#[derive(Arbitrary, Clone, Debug)]
enum Param {
    ServerNoTakeover,
    ClientNoTakeover,
    ServerWindow(u8),
    ClientWindow(Option<u8>),
    Other(String, Option<String>),
    Defined(u8, Option<String>),
}

/// A message, of which the payload is repeated.
#[derive(Arbitrary, Clone, Debug)]
struct Message {
    from_server: bool,
    payload: Vec<u8>,
    times: u16,
    form: Form,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Form {
    Whole,
    Uncompressed,
    Prepared,
    Pieces(u8),
    UncompressedPieces(u8),
}

const NAMES: [&str; 4] = [
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
];

fuzz_target!(|case: Case| {
    let (client, server) = (case.client.deflate(), case.server.deflate());
    let arbitrary_offer = params(&case.offer);
    if let Some((answer, _)) = accept(&server, &arbitrary_offer) {
        assert_eq!(client.confirm(&answer).is_ok(), case.client.confirms(&answer));
    }
    let arbitrary_answer = params(&case.answer);
    assert_eq!(client.confirm(&arbitrary_answer).is_ok(), case.client.confirms(&arbitrary_answer));

    let offers = client.offer();
    let agreed = offers.iter().find_map(|offer| accept(&server, offer));
    let (answer, server_codec) = agreed.expect("one of our offers is acceptable to us");
    let client_codec = client.confirm(&answer).expect("our answer fits our offers");
    exchange(&case, client_codec, server_codec);
});

impl Settings {
    fn deflate(self) -> Deflate {
        let deflate = match (self.dedicated, self.history) {
            (true, _) => Deflate::dedicated(),
            (false, None) => Deflate::pooled(),
            (false, Some(history)) => Deflate::pooled().history(history.into()),
        };
        deflate
            .level(self.level)
            .threshold(self.threshold.into())
            .window_bits(self.window_bits)
            .receive_window_bits(self.receive_window_bits)
    }

    /// Whether a client with these settings confirms this answer.
    fn confirms(self, answer: &Params) -> bool {
        let without_takeover = !self.dedicated && self.history == Some(0);
        match Parsed::new(answer) {
            Some(answer) => {
                answer.client_window != Some(None)
                    && (answer.server_no_takeover || !without_takeover)
            }
            None => false,
        }
    }
}

fn params(list: &[Param]) -> Params {
    list.iter().fold(Params::new(), |params, param| match param {
        Param::ServerNoTakeover => params.with(NAMES[0]),
        Param::ClientNoTakeover => params.with(NAMES[1]),
        Param::ServerWindow(bits) => params.with_value(NAMES[2], bits % 18),
        Param::ClientWindow(None) => params.with(NAMES[3]),
        Param::ClientWindow(Some(bits)) => params.with_value(NAMES[3], bits % 18),
        Param::Other(name, None) => params.with(name),
        Param::Other(name, Some(value)) => params.with_value(name, value),
        Param::Defined(name, None) => params.with(NAMES[usize::from(name % 4)]),
        Param::Defined(name, Some(value)) => params.with_value(NAMES[usize::from(name % 4)], value),
    })
}

/// Valid parameters of an offer.
#[derive(Default)]
struct Parsed {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_window: Option<u8>,
    client_window: Option<Option<u8>>,
}

impl Parsed {
    /// `None` if a parameter is not valid in an offer.
    fn new(params: &Params) -> Option<Self> {
        const BITS: [&str; 8] = ["8", "9", "10", "11", "12", "13", "14", "15"];
        let bits = |value| BITS.iter().position(|&bits| bits == value).map(|at| at as u8 + 8);
        let mut parsed = Self::default();
        let mut names: Vec<&str> = params.iter().map(|(name, _)| name).collect();
        for (name, value) in params.iter() {
            match (NAMES.iter().position(|&known| known == name)?, value) {
                (0, None) => parsed.server_no_takeover = true,
                (1, None) => parsed.client_no_takeover = true,
                (2, Some(value)) => parsed.server_window = Some(bits(value)?),
                (3, None) => parsed.client_window = Some(None),
                (3, Some(value)) => parsed.client_window = Some(Some(bits(value)?)),
                _ => return None,
            }
        }
        names.sort_unstable();
        names.dedup();
        (names.len() == params.len()).then_some(parsed)
    }
}

/// Lets `server` answer, and checks the answer.
fn accept(server: &Deflate, offer: &Params) -> Option<(Params, Codec)> {
    let accepted = server.accept(offer);
    let parsed = Parsed::new(offer).filter(|parsed| parsed.server_window != Some(8));
    assert_eq!(accepted.is_some(), parsed.is_some(), "{offer:?}");
    let (offer, (answer, codec)) = (parsed?, accepted?);
    let parsed = Parsed::new(&answer).expect("the answer is valid");
    assert!(parsed.server_no_takeover >= offer.server_no_takeover);
    assert!(parsed.client_no_takeover >= offer.client_no_takeover);
    match (offer.server_window, parsed.server_window) {
        (Some(most), Some(bits)) => assert!((9..=most).contains(&bits)),
        (Some(_), None) => panic!("the server does not say that it keeps the window"),
        (None, _) => {}
    }
    match (offer.client_window, parsed.client_window) {
        (_, None) | (Some(None), Some(Some(_))) => {}
        (Some(Some(most)), Some(Some(bits))) => assert!(bits <= most),
        (offer, answer) => panic!("{answer:?} in answer to {offer:?}"),
    }
    Some((answer, codec))
}

/// Sends messages in both directions.
fn exchange(case: &Case, client: Codec, server: Codec) {
    let new = |role, codec| Subject::with_codec(role, config(|_| ()), case.reading, Some(codec));
    let (mut client, mut server) = (new(Role::Client, client), new(Role::Server, server));
    let mut sent = [Vec::new(), Vec::new()];
    let mut total = 0;
    for message in &case.messages {
        let payload = message.payload.repeat(usize::from(message.times % 2000));
        total += payload.len();
        if total > 200_000 {
            break;
        }
        let (from, to) = match message.from_server {
            true => (&mut server, &mut client),
            false => (&mut client, &mut server),
        };
        let bytes = from.send(|sender, out| {
            let result = match message.form {
                Form::Whole => sender.send(&payload, out),
                Form::Uncompressed => sender.send_uncompressed(&payload, out),
                Form::Prepared => sender.send_prepared(&Prepared::new(&payload), out),
                Form::Pieces(_) => sender.begin(Kind::Binary),
                Form::UncompressedPieces(_) => sender.begin_uncompressed(Kind::Binary),
            };
            result.expect("it is open");
            if let Form::Pieces(n) | Form::UncompressedPieces(n) = message.form {
                let size = payload.len() / (usize::from(n % 8) + 1) + usize::from(n / 8);
                for piece in payload.chunks(size.max(1)) {
                    sender.piece(piece, false, out).expect("it is open");
                }
                sender.piece(b"", true, out).expect("it is open");
            }
        });
        for piece in case.cuts.pieces(&bytes) {
            to.feed(piece);
        }
        assert_eq!(to.failure, None);
        sent[usize::from(message.from_server)].push(Seen::Message(Kind::Binary, payload));
    }
    assert_eq!([server.seen, client.seen], sent);
}
