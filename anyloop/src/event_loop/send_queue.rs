//! How much of a socket's output its peer has taken. `unsafe` is allowed here, and nowhere else in the library.
#![allow(unsafe_code)]

use anyloop_proto::SendQueue;

/// What the peer of a TCP socket has acknowledged, and what it has not; `None` where the system does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn of_tcp(socket: &mio::net::TcpStream) -> Option<SendQueue> {
    use std::os::fd::AsRawFd;

    /// The size of `struct tcp_info` up to the end of `tcpi_bytes_acked`, its last 8 bytes (linux/tcp.h, since 4.1).
    const SIZE: usize = 128;

    let mut info = [0_u8; SIZE];
    let mut len = SIZE as libc::socklen_t;
    // SAFETY: the pointers are valid for writes of `len` bytes and of one `socklen_t`; the system writes at most so
    // much, and any bytes are a valid `[u8; SIZE]`.
    let result = unsafe {
        let info = info.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info, &mut len)
    };
    if result != 0 || len as usize != SIZE {
        return None;
    }
    let (_, acknowledged) = info.split_last_chunk()?;
    Some(SendQueue {
        acknowledged: u64::from_ne_bytes(*acknowledged),
        waiting: queued_bytes(socket)?,
    })
}

/// What the peer of a Unix socket has not read, with the overhead of the system. The system does not count the bytes
/// that the peer has read, so `acknowledged` is derived: it rises when the peer reads, and falls with each write.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn of_unix(socket: &mio::net::UnixStream) -> Option<SendQueue> {
    /// The bytes that count as written: more than can ever wait.
    const WRITTEN: u64 = 1 << 62;

    let waiting = queued_bytes(socket)?;
    Some(SendQueue { acknowledged: WRITTEN - waiting as u64, waiting })
}

/// The number of bytes in the system's send queue: not acknowledged (TCP), or not read (Unix).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn queued_bytes(socket: &impl std::os::fd::AsFd) -> Option<usize> {
    use std::ffi::c_int;

    use rustix::ioctl::{Getter, Opcode, ioctl};

    /// `SIOCOUTQ`, by its other name: tcp(7), unix(7).
    const OUTPUT_QUEUE: Opcode = libc::TIOCOUTQ as Opcode;

    // SAFETY: this request stores one `int` at the address that is passed, and `Getter` passes that of its own `c_int`.
    let waiting = unsafe { ioctl(socket, Getter::<OUTPUT_QUEUE, c_int>::new()) };
    usize::try_from(waiting.ok()?).ok()
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn of_tcp(_: &mio::net::TcpStream) -> Option<SendQueue> {
    None
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
pub(super) fn of_unix(_: &mio::net::UnixStream) -> Option<SendQueue> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use anyloop_testkit::wait::eventually;

    use super::*;

    #[test]
    fn what_the_peer_has_received_is_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        let socket = mio::net::TcpStream::from_std(writer.try_clone().unwrap());
        let begin = of_tcp(&socket).unwrap();
        assert_eq!(begin.waiting, 0);
        writer.write_all(&[0; 1000]).unwrap();
        reader.read_exact(&mut [0; 1000]).unwrap();
        let end = SendQueue { acknowledged: begin.acknowledged + 1000, waiting: 0 };
        eventually("all is acknowledged", || of_tcp(&socket) == Some(end));
    }

    #[test]
    fn what_the_peer_of_a_unix_socket_reads_is_acknowledged() {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        let socket = mio::net::UnixStream::from_std(writer.try_clone().unwrap());
        let begin = of_unix(&socket).unwrap();
        assert_eq!(begin.waiting, 0);
        for _ in 0..2 {
            writer.write_all(&[0; 10_000]).unwrap();
        }
        let full = of_unix(&socket).unwrap();
        assert!(full.waiting >= 20_000);
        reader.read_exact(&mut [0; 10_000]).unwrap();
        let half = of_unix(&socket).unwrap();
        assert!(half.waiting < full.waiting && half.acknowledged > full.acknowledged);
        reader.read_exact(&mut [0; 10_000]).unwrap();
        assert_eq!(of_unix(&socket), Some(begin));
    }
}
