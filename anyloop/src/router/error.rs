//! Patterns that cannot be added.

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
    /// Some paths would match this pattern and another one, and neither is more specific.
    #[error("route {pattern}: it is ambiguous beside {other}")]
    Conflict {
        /// The pattern that was not added.
        pattern: String,
        /// The pattern that was added before.
        other: String,
    },
    /// It is not a pattern.
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

/// Checks what a path can have. A pattern that no path can match would never be noticed.
pub(super) fn check(pattern: &str) -> Result<(), RouteError> {
    let reason = match () {
        () if !pattern.starts_with('/') => "it must begin with a slash",
        () if pattern.contains(['?', '#']) => "it must be a path, without a query or a fragment",
        () if !pattern.bytes().all(|byte| byte.is_ascii_graphic()) => {
            "spaces, control characters and those beyond ASCII must be percent-encoded, as they are sent"
        }
        () => return Ok(()),
    };
    Err(RouteError::Invalid { pattern: pattern.to_string(), reason })
}
