//! Echo servers with other libraries, to check that `compare` measures their known differences.
//!
//! ```text
//! peers fastwebsockets        as in its example: a write for each message
//! peers tokio-tungstenite     as in its example: a flush for each message
//! peers batch                 tokio-tungstenite with one flush for each read
//! peers yawc                  with permessage-deflate by zlib-rs, at the default level; a flush for each message
//! peers yawc-fast             the same at level 1
//! peers NAME CERTIFICATE KEY  one of the first three over TLS, by tokio-rustls; the files are PEM
//! ```
//!
//! `peers tokio-tungstenite` also sends to all connections at /broadcast. As in the library's example, each
//! connection has a channel, and messages are shared and not copied.
//!
//! All use tokio's current-thread runtime and listen on a free port of 127.0.0.1. They follow the examples of the
//! libraries, but without hyper, which an open connection does not use.

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::Poll;

use fastwebsockets::{FragmentCollector, Frame, OpCode, Role, WebSocket};
use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt, poll};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};
use yawc::Options;

/// An error that ends a connection or the server.
type Failure = Box<dyn std::error::Error>;

/// The accept value for the key that `load` sends. Other clients refuse it.
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// What is sent on.
trait Stream: AsyncRead + AsyncWrite + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + 'static> Stream for T {}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["fastwebsockets"] => serve(fastwebsockets),
        ["tokio-tungstenite"] => serve(tokio_tungstenite),
        ["batch"] => serve(batch),
        ["yawc"] => serve(|stream| yawc(stream, Options::default().with_balanced_compression())),
        ["yawc-fast"] => {
            serve(|stream| yawc(stream, Options::default().with_low_latency_compression()))
        }
        ["fastwebsockets", certificate, key] => serve_tls(certificate, key, fastwebsockets_tls),
        ["tokio-tungstenite", certificate, key] => serve_tls(certificate, key, tokio_tungstenite),
        ["batch", certificate, key] => serve_tls(certificate, key, batch),
        _ => Err("usage: peers NAME [CERTIFICATE KEY]; the names are fastwebsockets, \
                  tokio-tungstenite, batch, and without TLS yawc, yawc-fast"
            .into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("peers: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Accepts connections without end, each with its own task.
fn serve<Task>(echo: fn(TcpStream) -> Task) -> Result<(), Failure>
where
    Task: Future<Output = Result<(), Failure>> + 'static,
{
    accept_all("ws", echo)
}

/// The same over TLS. Sessions are resumed by tickets.
fn serve_tls<Task>(
    certificate: &str,
    key: &str,
    echo: fn(TlsStream<TcpStream>) -> Task,
) -> Result<(), Failure>
where
    Task: Future<Output = Result<(), Failure>> + 'static,
{
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    accept_all("wss", move |stream| {
        let accepting = acceptor.accept(stream);
        async move { echo(accepting.await?).await }
    })
}

fn accept_all<Task>(scheme: &str, echo: impl Fn(TcpStream) -> Task) -> Result<(), Failure>
where
    Task: Future<Output = Result<(), Failure>> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on {scheme}://{}/", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(echo(stream));
        }
    })
}

/// Answers any request with a constant, which ends with `fields`.
async fn accept(stream: &mut impl Stream, fields: &[u8]) -> Result<(), Failure> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Err("closed in the opening handshake".into());
        }
    }
    stream.write_all(&[RESPONSE, fields, b"\r\n"].concat()).await?;
    Ok(stream.flush().await?)
}

async fn fastwebsockets(mut stream: TcpStream) -> Result<(), Failure> {
    accept(&mut stream, b"").await?;
    let mut websocket = FragmentCollector::new(WebSocket::after_handshake(stream, Role::Server));
    loop {
        let frame = websocket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => websocket.write_frame(frame).await?,
            _ => {}
        }
    }
}

/// Over TLS the library needs a flush for each message, which its `FragmentCollector` does not have.
async fn fastwebsockets_tls(mut stream: TlsStream<TcpStream>) -> Result<(), Failure> {
    accept(&mut stream, b"").await?;
    let mut websocket = WebSocket::after_handshake(stream, Role::Server);
    loop {
        let frame = websocket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(websocket.flush().await?),
            OpCode::Text | OpCode::Binary => {
                let reply = Frame::new(true, frame.opcode, None, frame.payload);
                websocket.write_frame(reply).await?;
                websocket.flush().await?;
            }
            _ => {}
        }
    }
}

/// With the window of 32 KiB, which the library answers if the client leaves the choice.
async fn yawc(mut stream: TcpStream, options: Options) -> Result<(), Failure> {
    accept(&mut stream, b"Sec-WebSocket-Extensions: permessage-deflate\r\n").await?;
    let mut websocket = yawc::WebSocket::from_stream_with_extensions(
        stream,
        yawc::Role::Server,
        Some("permessage-deflate"),
        options.with_utf8(),
    )?;
    loop {
        let frame = websocket.next_frame().await?;
        match frame.opcode() {
            yawc::OpCode::Close => return Ok(()),
            yawc::OpCode::Text | yawc::OpCode::Binary => websocket.send(frame).await?,
            _ => {}
        }
    }
}

async fn tokio_tungstenite<S: Stream>(stream: S) -> Result<(), Failure> {
    let mut to_all = false;
    #[expect(clippy::result_large_err, reason = "the library's callback has this type")]
    let path = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        to_all = request.uri().path() == "/broadcast";
        Ok(response)
    };
    let mut websocket = accept_hdr_async(stream, path).await?;
    if to_all {
        return broadcast(websocket).await;
    }
    while let Some(message) = websocket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            websocket.send(message).await?;
        }
    }
    Ok(())
}

thread_local! {
    /// The channels of the connections at /broadcast. Closed ones are removed at the next message.
    static ALL: RefCell<Vec<UnboundedSender<Message>>> = const { RefCell::new(Vec::new()) };
}

async fn broadcast<S: Stream>(websocket: WebSocketStream<S>) -> Result<(), Failure> {
    let (mut sink, mut stream) = websocket.split();
    let (sender, mut receiver) = unbounded_channel();
    ALL.with_borrow_mut(|all| all.push(sender));
    loop {
        let incoming = stream.next();
        let outgoing = core::pin::pin!(receiver.recv());
        match select(incoming, outgoing).await {
            Either::Left((message, _)) => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                if message.is_text() || message.is_binary() {
                    ALL.with_borrow_mut(|all| {
                        all.retain(|sender| sender.send(message.clone()).is_ok());
                    });
                }
            }
            Either::Right((Some(message), _)) => sink.send(message).await?,
            Either::Right((None, _)) => return Ok(()),
        }
    }
}

async fn batch<S: Stream>(stream: S) -> Result<(), Failure> {
    let mut websocket = accept_async(stream).await?;
    loop {
        let next = match poll!(websocket.next()) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                websocket.flush().await?;
                websocket.next().await
            }
        };
        let Some(message) = next.transpose()? else { return Ok(()) };
        if message.is_text() || message.is_binary() {
            websocket.feed(message).await?;
        }
    }
}
