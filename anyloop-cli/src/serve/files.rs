//! `--dir`: files of a directory over plain HTTP.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyloop::Body;
use anyloop::http::{HeaderValue, Response, header};
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

    /// The response with the file of this path, which is that of a URL. `None` if there is none: then it is also not
    /// revealed what is outside of the directory, hidden, or not readable.
    pub(super) fn respond(&self, path: &str) -> Option<Response<Body>> {
        let path = self.find(path)?;
        let file = File::open(&path).ok()?;
        let length = file.metadata().ok()?.len();
        // It may grow meanwhile.
        let mut response = Response::new(Body::from_reader(file.take(length), length));
        let content_type = mime_guess::from_path(&path).first_or_octet_stream();
        let content_type = match content_type.type_() {
            mime_guess::mime::TEXT => format!("{content_type}; charset=utf-8"),
            _ => content_type.to_string(),
        };
        let headers = response.headers_mut();
        if let Ok(content_type) = HeaderValue::try_from(content_type) {
            headers.insert(header::CONTENT_TYPE, content_type);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        Some(response)
    }

    /// The file of a path, or `index.html` in its directory. Links may not lead out of the root.
    fn find(&self, path: &str) -> Option<PathBuf> {
        let decoded = percent_decode_str(path).decode_utf8().ok()?;
        let mut found = self.root.clone();
        for name in decoded.split('/').filter(|name| !name.is_empty()) {
            if name.starts_with('.') || name.contains(['\\', ':', '\0']) {
                return None; // hidden, above, or special on some system
            }
            found.push(name);
        }
        if found.is_dir() {
            found.push("index.html");
        }
        let found = found.canonicalize().ok()?;
        (found.starts_with(&self.root) && found.is_file()).then_some(found)
    }
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
        std::os::unix::fs::symlink("../secret", root.join("link")).expect("the link can be made");
        let files = Files::new(&root).expect("it is a directory");
        for (path, expected) in [
            ("/a%20b.txt", "text/plain; charset=utf-8"),
            ("/sub", "text/html; charset=utf-8"),
            ("//sub/", "text/html; charset=utf-8"),
        ] {
            let response = files.respond(path).expect(path);
            assert_eq!(response.headers()[header::CONTENT_TYPE], expected, "{path}");
        }
        for path in [
            "/",
            "/none",
            "/.hidden",
            "/../secret",
            "/%2e%2e/secret",
            "/sub/..%2f..%2fsecret",
            "/link",
            "/sub/%00",
            "/a%ff",
            "/sub\\..\\..\\secret",
            "/a%20b.txt/x",
        ] {
            assert!(files.respond(path).is_none(), "{path}");
        }
        assert!(Files::new(&root.join("a b.txt")).is_err());
        fs::remove_dir_all(outer).expect("the directory can be removed");
    }
}
