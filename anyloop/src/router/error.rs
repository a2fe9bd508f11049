//! Patterns that cannot be added.

use std::borrow::Cow;

use anyloop_proto::handshake::http::Method;
use matchit::InsertError;

/// Why a pattern was not added to a [`Router`](super::Router).
///
/// ```
/// use anyloop::prelude::*;
/// use anyloop::router::RouteError;
///
/// let rooms = Router::new().route("/rooms/{room}", Handlers::new())?;
/// let error = rooms.clone().route("/rooms/{name}", Handlers::new()).unwrap_err();
/// assert!(matches!(error, RouteError::Conflict { .. }));
/// let error = rooms.route("chat", Handlers::new()).unwrap_err();
/// assert_eq!(error.to_string(), "route chat: it must begin with a slash");
/// # Ok::<(), RouteError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Some paths would match this pattern and another one, and neither is more specific. Or the router cannot hold
    /// both: see [patterns](super::Router#patterns).
    #[error("route {pattern}: it conflicts with {other}")]
    Conflict {
        /// The pattern that was not added.
        pattern: String,
        /// The pattern that was added before.
        other: String,
    },
    /// The page has a function for this method already.
    #[error("route {pattern}: it has a function for {method} already")]
    Duplicate {
        /// The pattern of the page.
        pattern: String,
        /// The method.
        method: Method,
    },
    /// The pattern is malformed.
    #[error("route {pattern}: {reason}")]
    Invalid {
        /// The pattern.
        pattern: String,
        /// What to change.
        reason: &'static str,
    },
}

impl RouteError {
    pub(super) fn new(pattern: &str, error: InsertError) -> Self {
        let pattern = pattern.to_string();
        let reason = match error {
            InsertError::Conflict { with: other } => return Self::Conflict { pattern, other },
            InsertError::InvalidParamSegment => "only one parameter is allowed in a segment",
            InsertError::InvalidCatchAll => "{*rest} is only allowed as the last segment",
            _ => "a parameter needs a name in braces, and a literal brace is written twice",
        };
        Self::Invalid { pattern, reason }
    }
}

/// Rejects patterns that no request can match, and repeated parameter names, since neither would show at run time.
pub(super) fn check(pattern: &str) -> Result<(), RouteError> {
    let reason = match () {
        () if !pattern.starts_with('/') => "it must begin with a slash",
        () if pattern.contains(['?', '#']) => "it must be a path, without a query or a fragment",
        () if !pattern.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "spaces, control characters and those beyond ASCII must be percent-encoded, as they are sent"
        }
        () => match check_parts(pattern) {
            Ok(()) => return Ok(()),
            Err(reason) => reason,
        },
    };
    Err(RouteError::Invalid { pattern: pattern.to_string(), reason })
}

/// Checks the literal text and the names of parameters. matchit checks the braces.
fn check_parts(pattern: &str) -> Result<(), &'static str> {
    let (mut names, mut rest) = (Vec::new(), pattern);
    while let Some((literal, after)) = rest.split_once(['{', '}']) {
        check_literal(literal)?;
        let brace = &rest[literal.len()..];
        rest = if brace.starts_with("{{") || brace.starts_with("}}") {
            &after[1..]
        } else if let Some((name, after)) = after.split_once('}').filter(|_| brace.starts_with('{'))
        {
            let name = name.trim_start_matches('*');
            if names.contains(&name) {
                return Err("each parameter needs a name of its own");
            }
            names.push(name);
            after
        } else {
            after
        };
    }
    check_literal(rest)
}

/// Requests are compared with [upper-case digits](upper_case_digits).
fn check_literal(literal: &str) -> Result<(), &'static str> {
    match upper_case_digits(literal) {
        Cow::Owned(_) => Err("percent-encoded bytes need upper-case digits"),
        Cow::Borrowed(_) => Ok(()),
    }
}

/// The text with upper-case digits in percent-encoded bytes, which are equivalent (RFC 3986 §6.2.2.1). Borrowed if it
/// has them already.
pub(super) fn upper_case_digits(text: &str) -> Cow<'_, str> {
    let mut upper = Cow::Borrowed(text);
    for (at, _) in text.match_indices('%') {
        let digits = text.get(at + 1..at + 3).filter(|digits| is_hexadecimal(digits));
        if digits.is_some_and(|digits| digits.bytes().any(|digit| digit.is_ascii_lowercase())) {
            upper.to_mut()[at + 1..at + 3].make_ascii_uppercase();
        }
    }
    upper
}

fn is_hexadecimal(digits: &str) -> bool {
    digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}
