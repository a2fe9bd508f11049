//! The order and the times of connection attempts to the addresses of a host: Happy Eyeballs (RFC 8305).

use anyloop_proto::Instant;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The minimum of the delay between two attempts (RFC 8305 §5).
const MIN_DELAY: Duration = Duration::from_millis(10);

/// The largest number of attempts at a time, so that a host with many dead addresses does not take a socket for each.
const MAX_UNDER_WAY: usize = 6;

/// The attempts to connect to one of the addresses of a host.
///
/// The caller opens the sockets. It starts attempts as long as [`next`](Self::next) returns an
/// address, and asks again at the [`deadline`](Self::deadline) and after each
/// [`failed`](Self::failed). The first attempt to connect wins: the caller then cancels the others
/// and drops this. When [`is_exhausted`](Self::is_exhausted), none has connected.
pub(crate) struct Attempts {
    /// The addresses still to try, the next one last.
    waiting: Vec<SocketAddr>,
    /// The attempts that neither failed nor connected, the newest last.
    under_way: Vec<SocketAddr>,
    errors: Vec<(SocketAddr, io::Error)>,
    /// The address of the attempt that was started last.
    newest: Option<SocketAddr>,
    /// The earliest time of the next attempt.
    due: Instant,
    delay: Duration,
}

impl Attempts {
    /// The first attempt is due at `now`. A delay below 10 ms counts as 10 ms.
    pub(crate) fn new(addresses: Vec<SocketAddr>, delay: Duration, now: Instant) -> Self {
        let mut waiting = interleave(addresses);
        waiting.reverse();
        Self {
            waiting,
            under_way: Vec::new(),
            errors: Vec::new(),
            newest: None,
            due: now,
            delay: delay.max(MIN_DELAY),
        }
    }

    /// The address to connect to now, if an attempt is due.
    #[must_use]
    pub(crate) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        if self.deadline().is_none_or(|due| now < due) {
            return None;
        }
        let address = self.waiting.pop()?;
        self.under_way.push(address);
        self.newest = Some(address);
        self.due = now + self.delay;
        Some(address)
    }

    /// The attempt to connect to `address` failed. If it was the newest, the next is due at once.
    pub(crate) fn failed(&mut self, address: SocketAddr, error: io::Error, now: Instant) {
        let Some(index) = self.under_way.iter().position(|other| *other == address) else {
            debug_assert!(false, "no attempt to connect to {address} is under way");
            return;
        };
        self.under_way.remove(index);
        self.errors.push((address, error));
        if self.newest == Some(address) {
            self.due = self.due.min(now);
        }
    }

    /// When the next attempt is due; `None` if no address is left, or if an attempt under way must fail first.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let may_start = !self.waiting.is_empty() && self.under_way.len() < MAX_UNDER_WAY;
        may_start.then_some(self.due)
    }

    /// Whether every attempt has failed, or there was no address to begin with.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_empty()
    }

    /// The number of attempts that have neither failed nor connected.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// The errors of the failed attempts, in the order in which they failed.
    pub(crate) fn into_errors(self) -> Vec<(SocketAddr, io::Error)> {
        self.errors
    }
}

/// Alternates between the families, beginning with that of the first address (RFC 8305 §4),
/// and removes duplicates. Within a family the order is that of the resolver, which applies RFC 6724.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut unique = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    let first_family = unique.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<SocketAddr>, Vec<_>) =
        unique.iter().copied().partition(|address| address.is_ipv4() == first_family);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());

    unique.clear();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return unique;
        }
        unique.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::net::{Ipv4Addr, Ipv6Addr};

    const START: Instant = Instant::from_nanos(1 << 62);

    fn v4(n: u8) -> SocketAddr {
        (Ipv4Addr::new(192, 0, 2, n), 443).into()
    }

    fn v6(n: u16) -> SocketAddr {
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, n), 443).into()
    }

    fn at(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    fn attempts(addresses: &[SocketAddr]) -> Attempts {
        Attempts::new(addresses.to_vec(), Duration::from_millis(250), START)
    }

    fn refused() -> io::Error {
        ErrorKind::ConnectionRefused.into()
    }

    #[test]
    fn rfc8305_4_the_families_alternate() {
        let sorted = [v6(1), v6(2), v6(3), v4(1), v4(2)];
        assert_eq!(interleave(sorted.to_vec()), [v6(1), v4(1), v6(2), v4(2), v6(3)]);
    }

    #[test]
    fn rfc8305_4_the_first_address_names_the_first_family() {
        let sorted = [v4(1), v6(1), v6(2), v6(3)];
        assert_eq!(interleave(sorted.to_vec()), [v4(1), v6(1), v6(2), v6(3)]);
    }

    #[test]
    fn rfc8305_4_the_order_within_a_family_stays() {
        let sorted = [v4(9), v4(1), v4(5)];
        assert_eq!(interleave(sorted.to_vec()), sorted);
        assert_eq!(interleave(vec![v6(2), v4(9), v6(1), v4(1)]), [v6(2), v4(9), v6(1), v4(1)]);
    }

    #[test]
    fn an_address_is_tried_once() {
        let twice = vec![v6(1), v6(1), v4(1), v6(1), v4(1), v6(2)];
        assert_eq!(interleave(twice), [v6(1), v4(1), v6(2)]);
    }

    #[test]
    fn ports_and_scopes_tell_addresses_apart() {
        let mut link_local = std::net::SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 1);
        let one = SocketAddr::V6(link_local);
        link_local.set_scope_id(2);
        let two = SocketAddr::V6(link_local);
        link_local.set_port(81);
        let addresses = [one, two, SocketAddr::V6(link_local)];
        assert_eq!(interleave(addresses.to_vec()), addresses);
    }

    #[test]
    fn rfc8305_5_attempts_are_not_simultaneous() {
        let mut attempts = attempts(&[v6(1), v4(1)]);
        assert_eq!(attempts.deadline(), Some(START));
        assert_eq!(attempts.next(START), Some(v6(1)));
        assert_eq!(attempts.next(START), None);
        assert_eq!(attempts.under_way(), 1);
    }

    #[test]
    fn rfc8305_5_the_next_attempt_starts_after_the_delay() {
        let mut attempts = attempts(&[v6(1), v4(1), v4(2)]);
        assert_eq!(attempts.next(at(5)), Some(v6(1)));
        assert_eq!(attempts.deadline(), Some(at(255)));
        assert_eq!(attempts.next(at(254)), None);
        assert_eq!(attempts.next(at(300)), Some(v4(1)));
        // Counted from when it really started.
        assert_eq!(attempts.deadline(), Some(at(550)));
        assert_eq!(attempts.next(at(550)), Some(v4(2)));
        assert_eq!(attempts.under_way(), 3);
        assert_eq!(attempts.deadline(), None);
    }

    #[test]
    fn rfc8305_5_the_delay_has_a_lower_bound() {
        let mut attempts = Attempts::new(vec![v6(1), v4(1)], Duration::ZERO, START);
        assert_eq!(attempts.next(START), Some(v6(1)));
        assert_eq!(attempts.next(at(9)), None);
        assert_eq!(attempts.next(at(10)), Some(v4(1)));
    }

    #[test]
    fn rfc8305_5_an_endless_delay_leaves_only_failure() {
        let mut attempts = Attempts::new(vec![v6(1), v4(1)], Duration::MAX, START);
        assert_eq!(attempts.next(START), Some(v6(1)));
        assert_eq!(attempts.next(at(1_000_000)), None);
        attempts.failed(v6(1), refused(), at(1_000_000));
        assert_eq!(attempts.next(at(1_000_000)), Some(v4(1)));
    }

    #[test]
    fn when_the_newest_fails_the_next_starts_at_once() {
        let mut attempts = attempts(&[v6(1), v4(1), v6(2)]);
        assert_eq!(attempts.next(START), Some(v6(1)));
        attempts.failed(v6(1), refused(), at(1));
        assert_eq!(attempts.deadline(), Some(at(1)));
        assert_eq!(attempts.next(at(1)), Some(v4(1)));
        // Even if it failed before connect() returned.
        attempts.failed(v4(1), refused(), at(1));
        assert_eq!(attempts.next(at(1)), Some(v6(2)));
        assert_eq!(attempts.under_way(), 1);
    }

    #[test]
    fn when_an_older_one_fails_the_newest_keeps_its_delay() {
        let mut attempts = attempts(&[v6(1), v4(1), v6(2)]);
        assert_eq!(attempts.next(START), Some(v6(1)));
        assert_eq!(attempts.next(at(250)), Some(v4(1)));
        attempts.failed(v6(1), refused(), at(260));
        assert_eq!(attempts.deadline(), Some(at(500)));
        assert_eq!(attempts.next(at(260)), None);
        assert_eq!(attempts.under_way(), 1);
    }

    #[test]
    fn a_failure_after_the_delay_does_not_move_the_deadline() {
        let mut attempts = attempts(&[v6(1), v4(1)]);
        assert_eq!(attempts.next(START), Some(v6(1)));
        attempts.failed(v6(1), refused(), at(400));
        assert_eq!(attempts.deadline(), Some(at(250)));
    }

    #[test]
    fn sockets_are_bounded() {
        let addresses: Vec<_> = (1..=9).map(v6).collect();
        let mut attempts = attempts(&addresses);
        for n in 1..=6 {
            assert_eq!(attempts.next(at(1000 * u64::from(n))), Some(v6(n)));
        }
        assert_eq!(attempts.under_way(), MAX_UNDER_WAY);
        assert_eq!(attempts.deadline(), None);
        assert_eq!(attempts.next(at(60_000)), None);
        // An older one makes room: the delay since the newest has long passed.
        attempts.failed(v6(2), refused(), at(60_000));
        assert_eq!(attempts.next(at(60_000)), Some(v6(7)));
        // Or it has not.
        attempts.failed(v6(1), refused(), at(60_001));
        assert_eq!(attempts.next(at(60_001)), None);
        assert_eq!(attempts.deadline(), Some(at(60_250)));
        attempts.failed(v6(7), refused(), at(60_002));
        assert_eq!(attempts.next(at(60_002)), Some(v6(8)));
    }

    #[test]
    fn all_errors_are_reported() {
        let mut attempts = attempts(&[v6(1), v4(1)]);
        assert_eq!(attempts.next(START), Some(v6(1)));
        assert_eq!(attempts.next(at(250)), Some(v4(1)));
        attempts.failed(v4(1), refused(), at(251));
        assert!(!attempts.is_exhausted());
        attempts.failed(v6(1), ErrorKind::TimedOut.into(), at(900));
        assert!(attempts.is_exhausted());
        assert_eq!(attempts.deadline(), None);
        assert_eq!(attempts.next(at(9000)), None);
        let errors = attempts.into_errors().into_iter().map(|(address, e)| (address, e.kind()));
        let expected = [(v4(1), ErrorKind::ConnectionRefused), (v6(1), ErrorKind::TimedOut)];
        assert!(errors.eq(expected));
    }

    #[test]
    fn without_addresses_it_is_exhausted() {
        let mut attempts = attempts(&[]);
        assert!(attempts.is_exhausted());
        assert_eq!(attempts.next(START), None);
        assert_eq!(attempts.deadline(), None);
        assert!(attempts.into_errors().is_empty());
    }
}
