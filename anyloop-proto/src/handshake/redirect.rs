//! The target that a redirect leads to: its field Location is a reference relative to the target of the request (RFC
//! 9110 §10.2.2).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::uri::{Target, UriError};

impl Target {
    /// Resolves a reference, such as the value of `Location` in a redirect, relative to this target (RFC 3986 §5.2).
    /// `http` and `https` mean `ws` and `wss`, and a fragment is ignored. User and password of this target are kept
    /// only if the [origin](Self::has_same_origin) is the same and the reference has none.
    ///
    /// ```
    /// use anyloop_proto::handshake::Target;
    ///
    /// let target: Target = "wss://chat.example/rooms/1?a=b".parse()?;
    /// let joined = |reference: &str| target.join(reference).map(|target| target.to_string());
    /// assert_eq!(joined("2")?, "wss://chat.example/rooms/2");
    /// assert_eq!(joined("/lobby#top")?, "wss://chat.example/lobby");
    /// assert_eq!(joined("https://other.example/")?, "wss://other.example/");
    /// # Ok::<(), anyloop_proto::handshake::UriError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The result is not a WebSocket URI: [`UriError::Scheme`] for another scheme, for example.
    pub fn join(&self, reference: &str) -> Result<Self, UriError> {
        let reference = reference.split('#').next().unwrap_or_default();
        if let Some(other) = reference.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(UriError::Character(other));
        }
        let mut target = match (split_scheme(reference), reference.strip_prefix("//")) {
            (Some((scheme, rest)), _) => format!("{}{rest}", websocket_scheme(scheme)).parse()?,
            (None, Some(rest)) => {
                format!("{}://{rest}", if self.secure() { "wss" } else { "ws" }).parse()?
            }
            (None, None) => self.with_path(self.resolve_path(reference)),
        };
        if self.has_same_origin(&target) {
            target.inherit_authorization(self);
        }
        Ok(target)
    }

    /// Whether the scheme, the host and the port are the same (RFC 6454 §5).
    #[must_use]
    pub fn has_same_origin(&self, other: &Self) -> bool {
        let scheme_and_port = |target: &Self| (target.secure(), target.port());
        scheme_and_port(self) == scheme_and_port(other)
            && self.host().eq_ignore_ascii_case(other.host())
            && self.zone() == other.zone()
    }

    /// The path and the query of a reference that has neither a scheme nor a host.
    fn resolve_path(&self, reference: &str) -> String {
        let (own, own_query) = split_query(self.path_and_query());
        let (path, query) = split_query(reference);
        if path.is_empty() {
            return format!("{own}{}", if query.is_empty() { own_query } else { query });
        }
        let directory = own.rfind('/').map_or("/", |end| &own[..=end]);
        let path = match path.starts_with('/') {
            true => remove_dot_segments(path),
            false => remove_dot_segments(&format!("{directory}{path}")),
        };
        format!("{path}{query}")
    }
}

/// The scheme with its colon, and the rest; `None` for a relative reference.
fn split_scheme(reference: &str) -> Option<(&str, &str)> {
    let end = reference.find([':', '/', '?'])?;
    let (scheme, rest) = reference.split_at_checked(end + 1)?;
    scheme.ends_with(':').then_some((scheme, rest))
}

/// The WebSocket scheme for an HTTP scheme; any other scheme is unchanged.
fn websocket_scheme(scheme: &str) -> &str {
    match scheme {
        _ if scheme.eq_ignore_ascii_case("http:") => "ws:",
        _ if scheme.eq_ignore_ascii_case("https:") => "wss:",
        other => other,
    }
}

/// Splits a path from its query, which begins with the question mark and may be empty.
fn split_query(text: &str) -> (&str, &str) {
    text.split_at(text.find('?').unwrap_or(text.len()))
}

/// Resolves `.` and `..` (RFC 3986 §5.2.4) in a path that begins with a slash.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            ".." => _ = kept.pop(),
            "." => {}
            segment => kept.push(segment),
        }
        if is_last && matches!(segment, "." | "..") {
            kept.push("");
        }
    }
    format!("/{}", kept.join("/"))
}
