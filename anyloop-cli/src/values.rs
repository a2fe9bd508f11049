//! Values of options.

use std::str::FromStr;
use std::time::Duration;

use anyloop::proto::handshake::Target;
use anyloop::proto::handshake::http::{HeaderName, HeaderValue};

/// A time in seconds; 0 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(pub(crate) Option<Duration>);

impl FromStr for Timeout {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
        let time = Duration::try_from_secs_f64(seconds);
        let time = time.map_err(|_| "not a number of seconds that can be waited for")?;
        if time.is_zero() && seconds != 0.0 {
            return Err("less than a nanosecond");
        }
        Ok(Self(Some(time).filter(|time| !time.is_zero())))
    }
}

/// The origin of a web page, as a browser writes it (RFC 6454 §6.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin(pub(crate) String);

impl FromStr for Origin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let well_formed = match text.split_once("://") {
            Some((scheme, host)) => {
                !scheme.is_empty()
                    && !host.is_empty()
                    && text.bytes().all(|byte| byte.is_ascii_graphic())
                    && !host.contains(['/', '?', '#', '@'])
            }
            None => text == "null",
        };
        match well_formed {
            true => Ok(Self(text.to_string())),
            false => Err("an origin is written as in https://example.com or http://localhost:8080"),
        }
    }
}

/// What a client connects to.
#[derive(Clone, Debug)]
pub(crate) struct Url(pub(crate) Target);

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let target: Target = text.parse().map_err(|error| format!("{error}"))?;
        match target.secure() {
            true => Err("there is no TLS here yet, which wss:// asks for".to_string()),
            false => Ok(Self(target)),
        }
    }
}

/// A header field.
#[derive(Clone, Debug)]
pub(crate) struct Header(pub(crate) HeaderName, pub(crate) HeaderValue);

impl FromStr for Header {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once(':').ok_or("a header field is NAME: VALUE")?;
        let name = name.parse().map_err(|_| "the name of a header field is a token")?;
        let value = value.trim_matches([' ', '\t']).parse();
        Ok(Self(name, value.map_err(|_| "a control character in a header field")?))
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
    fn origins_have_a_scheme_and_no_path() {
        for text in ["https://example.com", "http://localhost:8080", "null"] {
            assert_eq!(text.parse(), Ok(Origin(text.to_string())));
        }
        for text in
            ["", "example.com", "https://", "://a", "https://a/", "https://a b", "https://ä"]
        {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
