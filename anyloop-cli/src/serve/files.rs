//! `--dir`: files of a directory over plain HTTP.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyloop::Body;
use anyloop::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::tz::TimeZone;
use percent_encoding::percent_decode_str;

/// A directory whose files are served.
pub(super) struct Files {
    /// Without symbolic links.
    root: PathBuf,
}

impl Files {
    /// Fails if there is no such directory, or this user may not open what is in it.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let root = path.canonicalize()?;
        if !root.is_dir() {
            return Err(io::Error::new(ErrorKind::NotADirectory, "it is not a directory"));
        }
        root.join(".").metadata()?; // fails without the permission to search it
        Ok(Self { root })
    }

    /// The response with the file of this path, which is that of a URL; for a directory with an index, a redirect to
    /// its path with a slash; 304 if the client has it already. `None` if there is no file, or one that is hidden, not
    /// readable, or outside of the directory: a client cannot tell these apart.
    pub(super) fn respond(
        &self,
        path: &str,
        query: Option<&str>,
        headers: &HeaderMap,
    ) -> Option<Response<Body>> {
        let (found, is_index) = self.find(path)?;
        match (is_index, path.ends_with('/')) {
            (true, false) => return redirect(path, query),
            (false, true) => return None,
            _ => {}
        }
        let file = File::open(&found).ok()?;
        let metadata = file.metadata().ok()?;
        let modified = metadata.modified().ok().and_then(settled);
        if modified.is_some_and(|modified| is_known(modified, headers)) {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            add_validator(&mut response, modified);
            return Some(response);
        }
        let length = metadata.len();
        // It may grow while it is sent.
        let mut response = Response::new(Body::from_reader(file.take(length), length));
        let content_type = mime_guess::from_path(&found).first_or_octet_stream();
        let content_type = match content_type.type_() {
            mime_guess::mime::TEXT => format!("{content_type}; charset=utf-8"),
            _ => content_type.to_string(),
        };
        let headers = response.headers_mut();
        if let Ok(content_type) = HeaderValue::try_from(content_type) {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        add_validator(&mut response, modified);
        Some(response)
    }

    /// The file of a path, or `index.html` in its directory, and whether it is that. Links may not lead out of the
    /// root, or to what is hidden.
    fn find(&self, path: &str) -> Option<(PathBuf, bool)> {
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        let mut found = self.root.clone();
        for name in decoded.split('/').filter(|name| !name.is_empty()) {
            if name.starts_with('.') || name.contains(['\\', ':', '\0']) {
                return None; // hidden, above, or special on some system
            }
            found.push(name);
        }
        let is_index = found.is_dir();
        if is_index {
            found.push("index.html");
        }
        let found = found.canonicalize().ok()?;
        let inside = found.strip_prefix(&self.root).ok()?;
        let is_hidden = inside.iter().any(|name| name.as_encoded_bytes().starts_with(b"."));
        (!is_hidden && found.is_file()).then_some((found, is_index))
    }
}

/// When a file was modified, as it is sent. `None` within the second after that, when it may change again and keep its
/// date, or if the date is in the future (RFC 9110 §8.8.2.1).
fn settled(modified: SystemTime) -> Option<Timestamp> {
    modified.elapsed().ok().filter(|age| *age >= Duration::from_secs(1))?;
    Timestamp::from_second(Timestamp::try_from(modified).ok()?.as_second()).ok()
}

/// Whether the client has what was modified then (RFC 9110 §13.1.3).
fn is_known(modified: Timestamp, headers: &HeaderMap) -> bool {
    let mut since = headers.get_all(header::IF_MODIFIED_SINCE).iter();
    let date = match (since.next(), since.next()) {
        (Some(date), None) if !headers.contains_key(header::IF_NONE_MATCH) => date.to_str().ok(),
        _ => None,
    };
    date.and_then(parse_date).is_some_and(|since| modified <= since)
}

/// Parses a date of HTTP, in any of its forms (RFC 9110 §5.6.7).
fn parse_date(text: &str) -> Option<Timestamp> {
    let forms = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let date = forms.into_iter().find_map(|form| DateTime::strptime(form, text).ok())?;
    Some(date.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp())
}

/// Lets clients keep a file, and ask each time whether it has changed since.
fn add_validator(response: &mut Response<Body>, modified: Option<Timestamp>) {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let date =
        modified.and_then(|time| DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok());
    if let Some(Ok(date)) = date.map(HeaderValue::try_from) {
        headers.insert(header::LAST_MODIFIED, date);
    }
}

/// To the same path with a slash, and the same query, so that relative links in the index of this directory are right.
fn redirect(path: &str, query: Option<&str>) -> Option<Response<Body>> {
    let (_, name) = path.rsplit_once('/')?;
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    let location = HeaderValue::try_from(format!("./{name}/{query}")).ok()?; // relative, so it stays on this host
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::FOUND;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_files_inside_the_directory_are_found() {
        let outer = std::env::temp_dir().join(format!("anyloop-files-{}", std::process::id()));
        let root = outer.join("root");
        fs::create_dir_all(root.join("sub")).expect("the directory can be made");
        for file in ["root/a b.txt", "root/.hidden", "root/sub/index.html", "secret"] {
            fs::write(outer.join(file), file).expect("the file can be written");
        }
        #[cfg(unix)]
        for (to, link) in
            [("../secret", "link"), (".hidden", "shown"), ("..", "up"), ("sub", "inside")]
        {
            std::os::unix::fs::symlink(to, root.join(link)).expect("the link can be made");
        }
        let files = Files::new(&root).expect("it is a directory");
        let respond = |path| files.respond(path, None, &HeaderMap::new());
        for (path, expected) in [
            ("/a%20b.txt", "text/plain; charset=utf-8"),
            ("/sub/", "text/html; charset=utf-8"),
            ("//sub/", "text/html; charset=utf-8"),
        ] {
            let response = respond(path).expect(path);
            assert_eq!(response.headers()[header::CONTENT_TYPE], expected, "{path}");
        }
        #[cfg(unix)]
        assert!(respond("/inside/").is_some());
        for (path, location) in [("/sub", "./sub/"), ("//sub", "./sub/"), ("/s%75b", "./s%75b/")] {
            let response = respond(path).expect(path);
            assert_eq!(response.headers()[header::LOCATION], location, "{path}");
        }
        for path in [
            "/",
            "/none",
            "/.hidden",
            "/../secret",
            "/%2e%2e/secret",
            "/sub/../a%20b.txt", // although it leads to a file
            "/./a%20b.txt",
            "/sub/..%2f..%2fsecret",
            "/link",
            "/shown",
            "/up/secret",
            "/sub/%00",
            "/a%ff",
            "/sub\\..\\..\\secret",
            "/a%20b.txt/",
            "/a%20b.txt/x",
        ] {
            assert!(respond(path).is_none(), "{path}");
        }
        assert!(Files::new(&root.join("a b.txt")).is_err());
        fs::remove_dir_all(outer).expect("the directory can be removed");
    }

    /// RFC 9110 §8.8.2.1: a file may change again in the second of its date.
    #[test]
    fn a_file_has_a_validator_once_its_date_is_settled() {
        const SECOND: Duration = Duration::from_secs(1);
        let now = SystemTime::now();
        assert!(settled(now - 2 * SECOND).is_some());
        assert!(settled(now + 3600 * SECOND).is_none());
        loop {
            let now = SystemTime::now();
            let result = settled(now);
            if now.elapsed().is_ok_and(|elapsed| elapsed < SECOND) {
                return assert!(result.is_none());
            }
        }
    }
}
