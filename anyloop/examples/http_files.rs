//! A server of the files in a folder, beside a WebSocket at /echo. Files of any size need little memory.
//!
//! ```text
//! cargo run --example http_files -- 127.0.0.1:9002 FOLDER
//! ```

use std::io::{self, ErrorKind, Read};
use std::{error::Error, fs, path::Path};

use anyloop::http::{Response, StatusCode, header};
use anyloop::{net::Server, prelude::*};

/// The response for a path, if it names a file inside the folder, which has no symbolic links itself.
fn respond(folder: &Path, path: &str) -> io::Result<Response<Body>> {
    // Without `..` and links, so that the comparison is one of places.
    let path = folder.join(path).canonicalize()?;
    if !path.starts_with(folder) || !fs::metadata(&path)?.is_file() {
        return Err(ErrorKind::NotFound.into());
    }
    let content_type = match path.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    };
    let file = fs::File::open(&path)?;
    let length = file.metadata()?.len();
    // The file may grow meanwhile. If it shrinks, the connection is cut.
    let body = Body::from_reader(file.take(length), length);
    let response = Response::builder().header(header::CONTENT_TYPE, content_type).body(body);
    response.map_err(io::Error::other)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:9002".to_string());
    let folder = fs::canonicalize(words.next().unwrap_or_else(|| ".".to_string()))?;

    let mut echo = Handlers::new();
    echo.on_message(|message, context| _ = context.send(message));
    // Paths come decoded, without the first slash.
    let router = Router::new().route("/echo", echo)?.http("/{*path}", move |_, context| {
        match respond(&folder, context.param("path").unwrap_or_default()) {
            Ok(response) => response.into(),
            Err(_) => Answer::status(StatusCode::NOT_FOUND, "there is no such file"),
        }
    })?;
    let server = Server::with_factory(ServerConfig::new(OriginPolicy::Any), router)?;
    println!("listening on ws://{}", server.listen(address.as_str())?);
    server.start_accept()?;
    server.run();
    Ok(())
}
