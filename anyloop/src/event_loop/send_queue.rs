//! How much of a socket's output the operating system holds. `unsafe` is allowed here, and nowhere else.
#![allow(unsafe_code)]

/// The bytes that were written to a stream socket and that the peer's machine has not acknowledged (TCP), or the
/// peer has not read (Unix sockets). 0 where the system does not say.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn len(socket: impl std::os::fd::AsFd) -> usize {
    use std::ffi::c_int;

    use rustix::ioctl::{Getter, Opcode, ioctl};

    /// `SIOCOUTQ`, by its other name: tcp(7), unix(7).
    const OUTPUT_QUEUE: Opcode = libc::TIOCOUTQ as Opcode;

    // SAFETY: for a stream socket this request only stores one `int` at the address that is passed, and `Getter`
    // passes the address of a `c_int` of its own. Other descriptors are not passed, and would answer an error.
    let queued = unsafe { ioctl(socket, Getter::<OUTPUT_QUEUE, c_int>::new()) };
    queued.map_or(0, |queued| usize::try_from(queued).unwrap_or(0))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn len<S>(_: &S) -> usize {
    0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::len;

    #[test]
    fn what_the_peer_reads_is_not_queued_any_more() {
        let (mut writer, mut reader) = UnixStream::pair().unwrap();
        assert_eq!(len(&writer), 0);
        writer.write_all(&[0; 1000]).unwrap();
        assert!(len(&writer) >= 1000); // in the system's own units
        reader.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(len(&writer), 0);
    }
}
