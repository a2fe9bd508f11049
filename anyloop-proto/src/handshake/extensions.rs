//! Negotiation of extensions (RFC 6455 §9.1).

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use super::fields::{Fields, as_token, is_token, is_token_char};
use crate::error::{Field, HandshakeError};
use crate::extension::{Decoder, Encoder};

const INVALID: HandshakeError = HandshakeError::Invalid(Field::SecWebSocketExtensions);

/// Negotiates one extension in opening handshakes. One value serves all connections of an endpoint.
///
/// A connection has at most one extension: the server takes the first offer, in the client's order,
/// that one of its negotiators accepts.
///
/// An extension that negotiates a level and, for brevity, does not transform messages:
///
/// ```
/// use anyloop_proto::extension::{Contexts, Decoder, Encoder, Part};
/// use anyloop_proto::frame::Rsv;
/// use anyloop_proto::handshake::{Codec, Negotiator, Params};
/// use anyloop_proto::{ExtensionError, Field, HandshakeError, Kind};
/// # use anyloop_proto::Instant;
/// # use anyloop_proto::handshake::{Accept, ClientOptions, OriginPolicy, ServerOptions};
/// # use anyloop_proto::owned::{Event, WebSocket};
///
/// struct Levels(u8);
/// # struct Nothing;
/// # impl Decoder for Nothing {
/// #     fn claims(&self) -> Rsv {
/// #         Rsv::NONE
/// #     }
/// #     fn decode(
/// #         &mut self, _: Part<'_>, _: usize, _: &mut Vec<u8>, _: &mut Contexts,
/// #     ) -> Result<(), ExtensionError> {
/// #         Ok(())
/// #     }
/// # }
/// # impl Encoder for Nothing {
/// #     fn begin(&mut self, _: Kind, _: Option<usize>) -> Option<Rsv> {
/// #         None
/// #     }
/// #     fn encode(&mut self, _: &[u8], _: bool, _: &mut Vec<u8>, _: &mut Contexts) {}
/// # }
///
/// fn level(params: &Params) -> Option<u8> {
///     match params.iter().collect::<Vec<_>>()[..] {
///         [("level", Some(value))] => value.parse().ok(),
///         _ => None,
///     }
/// }
///
/// fn codec() -> Codec {
///     Codec { decoder: Box::new(Nothing), encoder: Box::new(Nothing) }
/// }
///
/// impl Negotiator for Levels {
///     fn name(&self) -> &str {
///         "levels"
///     }
///
///     fn offer(&self) -> Vec<Params> {
///         vec![Params::new().with_value("level", self.0)]
///     }
///
///     fn accept(&self, offer: &Params) -> Option<(Params, Codec)> {
///         let level = level(offer)?.min(self.0);
///         Some((Params::new().with_value("level", level), codec()))
///     }
///
///     fn confirm(&self, answer: &Params) -> Result<Codec, HandshakeError> {
///         match level(answer) {
///             Some(level) if level <= self.0 => Ok(codec()),
///             _ => Err(HandshakeError::Invalid(Field::SecWebSocketExtensions)),
///         }
///     }
/// }
///
/// # let now = Instant::from_nanos(0);
/// let mut options = ClientOptions::default();
/// options.extensions.push(std::sync::Arc::new(Levels(9)));
/// let mut client = WebSocket::client(&"ws://localhost/".parse()?, options.into(), now)?;
/// let mut options = ServerOptions::new(OriginPolicy::Any);
/// options.extensions.push(std::sync::Arc::new(Levels(3)));
/// let mut server = WebSocket::server(options.into(), now);
///
/// server.receive(&client.poll_output().unwrap_or_default(), now);
/// server.accept(Accept::new(), now)?;
/// client.receive(&server.poll_output().unwrap_or_default(), now);
/// match client.poll_event() {
///     Some(Event::Open { extension, .. }) => {
///         assert_eq!(extension.as_deref(), Some("levels; level=3"));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Negotiator: Send + Sync {
    /// The name of the extension: a token (RFC 6455 §9.1), compared byte by byte.
    fn name(&self) -> &str;

    /// Client: the offers, in order of preference. Each element is a separate offer.
    fn offer(&self) -> Vec<Params>;

    /// Server: accepts an offer of the client. Returns the parameters of the answer and the codec,
    /// or `None` to decline.
    ///
    /// Names and values are tokens, in the order received, including repetitions. An extension
    /// declines parameters that it does not know.
    fn accept(&self, offer: &Params) -> Option<(Params, Codec)>;

    /// Client: confirms the server's answer to the offers.
    ///
    /// # Errors
    ///
    /// Any error fails the handshake: the server accepted what was not offered, or what this
    /// extension does not know. The usual error is [`HandshakeError::Invalid`] of
    /// [`Field::SecWebSocketExtensions`].
    fn confirm(&self, answer: &Params) -> Result<Codec, HandshakeError>;
}

/// A negotiated extension of one connection.
///
/// The example of [`Negotiator`] creates one.
#[expect(
    clippy::exhaustive_structs,
    reason = "made by extensions; a connection has two directions"
)]
pub struct Codec {
    /// Decodes received messages.
    pub decoder: Box<dyn Decoder>,
    /// Encodes sent messages.
    pub encoder: Box<dyn Encoder>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec").finish_non_exhaustive()
    }
}

/// The parameters of an extension, in order. Each has a name and may have a value.
///
/// ```
/// use anyloop_proto::handshake::Params;
///
/// let params = Params::new().with("client_no_context_takeover").with_value("max_bits", 10);
/// let all: Vec<_> = params.iter().collect();
/// assert_eq!(all, [("client_no_context_takeover", None), ("max_bits", Some("10"))]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Params(Vec<(String, Option<String>)>);

impl Params {
    /// No parameters.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a parameter without a value. The name must be a token; otherwise the request
    /// ([`RequestError`](super::RequestError)) or the answer ([`AnswerError`](super::AnswerError)) is not sent.
    #[must_use]
    pub fn with(mut self, name: &str) -> Self {
        self.0.push((name.into(), None));
        self
    }

    /// Adds a parameter with a value. Both must be tokens, as for [`with`](Self::with).
    #[must_use]
    pub fn with_value(mut self, name: &str, value: impl fmt::Display) -> Self {
        self.0.push((name.into(), Some(value.to_string())));
        self
    }

    /// The parameters, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_deref()))
    }

    /// The number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no parameters.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An extension by name, with parameters: an offer, or an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extension {
    pub(super) name: String,
    pub(super) params: Params,
}

impl Extension {
    /// The value of the header field. `None` if a part is not a token: such a part could inject header content.
    pub(super) fn to_field(&self) -> Option<String> {
        let mut text = self.name.clone();
        let mut valid = is_token(self.name.as_bytes());
        for (name, value) in self.params.iter() {
            valid &= is_token(name.as_bytes()) && value.is_none_or(|v| is_token(v.as_bytes()));
            text.extend(["; ", name]);
            if let Some(value) = value {
                text.extend(["=", value]);
            }
        }
        valid.then_some(text)
    }
}

/// Parses the extensions in all lines of the field. A field without elements counts as absent. If `keep` is false, the
/// extensions are checked and not returned.
pub(super) fn parse(fields: &Fields<'_>, keep: bool) -> Result<Vec<Extension>, HandshakeError> {
    let mut extensions = Vec::new();
    for line in fields.lines(Field::SecWebSocketExtensions) {
        Parser { rest: line.as_bytes(), keep }.list(&mut extensions).ok_or(INVALID)?;
    }
    Ok(extensions)
}

/// Server: the first offer that a negotiator accepts, with the parameters of the answer.
pub(super) fn choose(
    negotiators: &[Arc<dyn Negotiator>],
    offers: &[Extension],
) -> Option<(Extension, Codec)> {
    offers.iter().find_map(|offer| {
        let mut named = negotiators.iter().filter(|negotiator| negotiator.name() == offer.name);
        named
            .find_map(|negotiator| negotiator.accept(&offer.params))
            .map(|(params, codec)| (Extension { name: offer.name.clone(), params }, codec))
    })
}

/// Client: checks the server's choice, which is one extension at most.
pub(super) fn confirm(
    negotiators: &[Arc<dyn Negotiator>],
    fields: &Fields<'_>,
) -> Result<Option<(Extension, Codec)>, HandshakeError> {
    let keep = true;
    let mut answers = parse(fields, keep)?.into_iter();
    let Some(answer) = answers.next() else { return Ok(None) };
    if let Some(second) = answers.next() {
        let again = second.name == answer.name;
        let field = Field::SecWebSocketExtensions;
        return Err(match again {
            true => HandshakeError::Duplicate(field),
            false => HandshakeError::Unsupported(field),
        });
    }
    let offered = negotiators.iter().find(|negotiator| negotiator.name() == answer.name);
    let codec = offered.ok_or(INVALID)?.confirm(&answer.params)?;
    Ok(Some((answer, codec)))
}

/// The unparsed rest of a line:
///
/// ```text
/// extension-list  = 1#extension
/// extension       = extension-token *( ";" extension-param )
/// extension-param = token [ "=" (token | quoted-string) ]
/// ```
struct Parser<'l> {
    rest: &'l [u8],
    /// Whether results are kept. If not, parsing only checks, and allocates nothing.
    keep: bool,
}

impl Parser<'_> {
    fn list(&mut self, extensions: &mut Vec<Extension>) -> Option<()> {
        loop {
            self.skip_space();
            match self.rest.first() {
                None => return Some(()),
                Some(b',') => {} // an empty element (RFC 9110 §5.6.1.2)
                Some(_) => {
                    let extension = self.extension()?;
                    if self.keep {
                        extensions.push(extension);
                    }
                }
            }
            if !self.eat(b',') {
                return self.rest.is_empty().then_some(());
            }
        }
    }

    fn extension(&mut self) -> Option<Extension> {
        let name = self.token()?;
        let mut params = Params::new();
        self.skip_space();
        while self.eat(b';') {
            self.skip_space();
            let name = self.token()?;
            self.skip_space();
            let value = if self.eat(b'=') {
                self.skip_space();
                Some(self.value()?)
            } else {
                None
            };
            if self.keep {
                params.0.push((name, value));
            }
            self.skip_space();
        }
        Some(Extension { name, params })
    }

    fn value(&mut self) -> Option<String> {
        if self.eat(b'"') { self.quoted() } else { self.token() }
    }

    fn token(&mut self) -> Option<String> {
        let end =
            self.rest.iter().position(|&byte| !is_token_char(byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        let token = as_token(token)?;
        Some(if self.keep { token.into() } else { String::new() })
    }

    /// RFC 6455 §9.1: the value after unescaping must be a token, too.
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut empty = true;
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let byte = match byte {
                b'"' => return (!empty).then_some(value),
                b'\\' => {
                    let (&escaped, rest) = self.rest.split_first()?;
                    self.rest = rest;
                    escaped
                }
                _ => byte,
            };
            if !is_token_char(byte) {
                return None;
            }
            empty = false;
            if self.keep {
                value.push(char::from(byte));
            }
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn eat(&mut self, wanted: u8) -> bool {
        match self.rest.split_first() {
            Some((&byte, rest)) if byte == wanted => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }
}
