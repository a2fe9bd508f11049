//! How much of a socket's output was acknowledged. `unsafe` is allowed here, and nowhere else.
#![allow(unsafe_code)]

use anyloop_proto::SendQueue;

/// What the peer of a TCP socket has acknowledged, and what it has not; `None` where the system does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn of(socket: &mio::net::TcpStream) -> Option<SendQueue> {
    use std::ffi::c_int;
    use std::os::fd::AsRawFd;

    use rustix::ioctl::{Getter, Opcode, ioctl};

    /// `SIOCOUTQ`, by its other name: tcp(7).
    const OUTPUT_QUEUE: Opcode = libc::TIOCOUTQ as Opcode;
    /// The size of `struct tcp_info` up to and with `tcpi_bytes_acked`, which is at its end (linux/tcp.h, since 4.1).
    const SIZE: usize = 128;

    let mut info = [0_u8; SIZE];
    let mut len = SIZE as libc::socklen_t;
    // SAFETY: the pointers are valid for writes of `len` bytes and of one `socklen_t`; the system writes at most so much,
    // and any bytes are a valid `[u8; SIZE]`.
    let result = unsafe {
        let info = info.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, info, &mut len)
    };
    if result != 0 || len as usize != SIZE {
        return None;
    }
    // SAFETY: this request stores one `int` at the address that is passed, and `Getter` passes that of its own `c_int`.
    let waiting = unsafe { ioctl(socket, Getter::<OUTPUT_QUEUE, c_int>::new()) };
    let (_, acknowledged) = info.split_last_chunk()?;
    Some(SendQueue {
        acknowledged: u64::from_ne_bytes(*acknowledged),
        waiting: usize::try_from(waiting.ok()?).ok()?,
    })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn of(_: &mio::net::TcpStream) -> Option<SendQueue> {
    None
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use anyloop_testkit::wait::eventually;

    use super::*;

    #[test]
    fn what_the_peer_has_received_is_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut reader, _) = listener.accept().unwrap();
        let socket = mio::net::TcpStream::from_std(writer.try_clone().unwrap());
        let begin = of(&socket).unwrap();
        assert_eq!(begin.waiting, 0);
        writer.write_all(&[0; 1000]).unwrap();
        reader.read_exact(&mut [0; 1000]).unwrap();
        let end = SendQueue { acknowledged: begin.acknowledged + 1000, waiting: 0 };
        eventually("all is acknowledged", || of(&socket) == Some(end));
    }
}
