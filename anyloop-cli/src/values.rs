//! Types of option values.

use std::str::FromStr;
use std::time::Duration;

use anyloop::proto::handshake::http::{HeaderName, HeaderValue};
use anyloop::proto::handshake::{Target, UriError};

/// A time limit in seconds; 0 is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

impl FromStr for Timeout {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(Some(seconds(text)?).filter(|time| !time.is_zero())))
    }
}

/// A time in seconds that is not 0, of a day at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds(pub(crate) Duration);

impl FromStr for Seconds {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match seconds(text)? {
            Duration::ZERO => Err("it must be more than 0"),
            time if time > Duration::from_secs(86400) => Err("it must be a day at most (86400)"),
            time => Ok(Self(time)),
        }
    }
}

/// How long to wait before closing: seconds, or for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    For(Duration),
    Forever,
}

impl FromStr for Wait {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "forever" => Ok(Self::Forever),
            _ => seconds(text)
                .map(Self::For)
                .map_err(|_| "neither a number of seconds nor \"forever\""),
        }
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    let time = Duration::try_from_secs_f64(seconds);
    let time = time.map_err(|_| "not a number of seconds from 0, or too large")?;
    match time.is_zero() && seconds != 0.0 {
        true => Err("less than a nanosecond"),
        false => Ok(time),
    }
}

/// Parses a number of bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "not a number of bytes")
}

/// Parses a whole number from `least` to `most`. The error names `most`, unless that is the largest number there is.
pub(crate) fn number<T: TryFrom<u64>>(
    least: u64,
    most: u64,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (least..=most).contains(number));
        number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match most {
            u64::MAX => format!("not a number from {least}"),
            _ => format!("not a number from {least} to {most}"),
        })
    }
}

/// The origin of a web page, as browsers and programs with an embedded browser write it (RFC 6454 §6.2).
/// Pages from files have `file://` or `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) String);

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = match text.split_once("://") {
            Some((scheme, host)) => {
                is_scheme(scheme)
                    && (!host.is_empty() || !needs_host(scheme))
                    && host.bytes().all(|byte| byte.is_ascii_graphic())
                    && !host.contains(['/', '?', '#', '@'])
            }
            None => text == "null",
        };
        match well_formed {
            true => Ok(Self(text.to_string())),
            false => Err("an origin is written as in https://example.com, http://localhost:8080, \
                          file:// or null"),
        }
    }
}

/// Whether the text is a URI scheme (RFC 3986 §3.1).
fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Whether the scheme requires a host (RFC 9110 §4.2, RFC 6455 §3).
fn needs_host(scheme: &str) -> bool {
    ["http", "https", "ws", "wss"].iter().any(|other| scheme.eq_ignore_ascii_case(other))
}

/// The URL that a client connects to.
#[derive(Clone, Debug)]
pub(crate) struct Url(pub(crate) Target);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `ws://http://a.example` is a URI, of a host http with an empty port.
        let suggestion = Target::suggestion(text);
        let error = match text.parse() {
            Ok(_) if suggestion.is_some() => "the URL has two schemes".to_string(),
            Ok(target) => return Ok(Self(target)),
            Err(error) => UriError::to_string(&error),
        };
        Err(match suggestion {
            Some(suggestion) => format!("{error}; did you mean {suggestion}?"),
            None => error,
        })
    }
}

impl Url {
    /// As `from_str`, for a command that has `--unix`: the error for the path of a socket suggests it.
    pub(crate) fn or_socket(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| match socket(text) {
            Some((scheme, path)) if cfg!(unix) => {
                format!("{error}; for a Unix socket: --unix {path} {scheme}://localhost/")
            }
            _ => error,
        })
    }
}

/// The scheme and the path of a Unix socket, if the text is its path, or what `serve --unix` prints (`ws+unix:PATH`).
fn socket(text: &str) -> Option<(&'static str, &str)> {
    let is_path = ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    if is_path && !text.starts_with("//") {
        return Some(("ws", text));
    }
    let (scheme, path) = text.split_once(':')?;
    let path = path.strip_prefix("//").unwrap_or(path);
    match scheme {
        _ if path.is_empty() => None,
        "unix" | "ws+unix" => Some(("ws", path)),
        "wss+unix" => Some(("wss", path)),
        _ => None,
    }
}

/// A header field.
#[derive(Clone, Debug)]
pub(crate) struct Header(pub(crate) HeaderName, pub(crate) HeaderValue);

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) =
            text.split_once(':').ok_or("a header field is written as NAME: VALUE")?;
        let name = name.parse().map_err(|_| "the name of a header field must be a token")?;
        let value = value.trim_matches([' ', '\t']).parse();
        Ok(Self(name, value.map_err(|_| "the value contains a control character")?))
    }
}

/// A cookie of a request (RFC 6265 §4.2.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cookie(pub(crate) String);

impl FromStr for Cookie {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("a cookie is written as NAME=VALUE")?;
        match !name.is_empty() && name.parse::<HeaderName>().is_ok() {
            true if value.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b';') => {
                Ok(Self(text.to_string()))
            }
            true => Err("the value of a cookie is printable ASCII without \";\""),
            false => Err("the name of a cookie must be a token"),
        }
    }
}

/// A user and a password (RFC 7617 §2).
#[derive(Clone)]
pub(crate) struct Credentials(pub(crate) String);

impl FromStr for Credentials {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            _ if !text.contains(':') => Err("a user and a password are written as USER:PASSWORD"),
            _ if text.chars().any(char::is_control) => Err("it contains a control character"),
            _ => Ok(Self(text.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_have_fractions_and_0_is_none() {
        for (text, expected) in [("0", None), ("0.0", None), ("2", Some(2000)), ("0.25", Some(250))]
        {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(text.parse(), Ok(Timeout(expected)), "{text}");
        }
        for text in ["", "-1", "five", "5s", "inf", "NaN", "1e300", "1e-12"] {
            assert!(text.parse::<Timeout>().is_err(), "{text}");
        }
    }

    #[test]
    fn waiting_has_an_end_or_none() {
        for (text, expected) in [("0", 0), ("0.25", 250), ("2", 2000)] {
            assert_eq!(text.parse(), Ok(Wait::For(Duration::from_millis(expected))), "{text}");
        }
        assert_eq!("forever".parse(), Ok(Wait::Forever));
        for text in ["", "-1", "never", "1e-12"] {
            assert!(text.parse::<Wait>().is_err(), "{text}");
        }
    }

    #[test]
    fn cookies_have_a_name_and_a_value() {
        for text in ["a=", "a=b", "id=\"x y\"", "a=b=c"] {
            assert_eq!(text.parse(), Ok(Cookie(text.to_string())), "{text}");
        }
        for text in ["", "a", "=b", "a b=c", "a=b; c=d", "a=\u{e4}", "a=\n"] {
            assert!(text.parse::<Cookie>().is_err(), "{text}");
        }
    }

    #[test]
    fn origins_have_a_scheme_and_no_path() {
        for text in [
            "https://example.com",
            "http://localhost:8080",
            "http://[::1]:8080",
            "null",
            "file://",
            "app://",
            "app://.",
            "ionic://localhost",
            "chrome-extension://abcdefghijklmnop",
            "vscode-webview://0a1b",
        ] {
            assert_eq!(text.parse(), Ok(Origin(text.to_string())), "{text}");
        }
        for text in [
            "",
            "example.com",
            "https://",
            "HTTP://",
            "://a",
            "://",
            "1a://b",
            "a b://c",
            "https://a/",
            "file:///",
            "file:///index.html",
            "file:",
            "https://a b",
            "https://ä",
            "Null",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
