//! Echo servers with other libraries, to check that `compare` measures their known differences.
//!
//! ```text
//! peers fastwebsockets        as in its example: a write for each message
//! peers tokio-tungstenite     as in its example: a flush for each message
//! peers batch                 tokio-tungstenite with one flush for each read
//! peers yawc                  with permessage-deflate by zlib-rs, at the default level; a flush for each message
//! peers yawc-fast             the same at level 1
//! ```
//!
//! `peers tokio-tungstenite` also sends to all connections at /broadcast. As in the library's example, each
//! connection has a channel, and messages are shared and not copied.
//!
//! All use tokio's current-thread runtime and listen on a free port of 127.0.0.1. They follow the examples of the
//! libraries, but without hyper, which an open connection does not use.

use std::cell::RefCell;
use std::process::ExitCode;
use std::task::Poll;

use fastwebsockets::{FragmentCollector, OpCode, Role, WebSocket};
use futures_util::future::{Either, select};
use futures_util::{SinkExt, StreamExt, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_async, accept_hdr_async};
use yawc::Options;

/// An error that ends a connection or the server.
type Failure = Box<dyn std::error::Error>;

/// The accept value for the key that `load` sends. Other clients refuse it.
const RESPONSE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

fn main() -> ExitCode {
    let peer = std::env::args().nth(1).unwrap_or_default();
    let outcome = match &*peer {
        "fastwebsockets" => serve(fastwebsockets),
        "tokio-tungstenite" => serve(tokio_tungstenite),
        "batch" => serve(batch),
        "yawc" => serve(|stream| yawc(stream, Options::default().with_balanced_compression())),
        "yawc-fast" => {
            serve(|stream| yawc(stream, Options::default().with_low_latency_compression()))
        }
        _ => Err("usage: peers fastwebsockets|tokio-tungstenite|batch|yawc|yawc-fast".into()),
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on ws://{}/", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::task::spawn_local(echo(stream));
        }
    })
}

/// Answers any request with a constant, which ends with `fields`.
async fn accept(stream: &mut TcpStream, fields: &[u8]) -> Result<(), Failure> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Err("closed in the opening handshake".into());
        }
    }
    stream.write_all(&[RESPONSE, fields, b"\r\n"].concat()).await?;
    Ok(())
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

async fn tokio_tungstenite(stream: TcpStream) -> Result<(), Failure> {
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

async fn broadcast(websocket: WebSocketStream<TcpStream>) -> Result<(), Failure> {
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

async fn batch(stream: TcpStream) -> Result<(), Failure> {
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
