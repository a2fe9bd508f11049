//! A snapshot of the counters has the relations that `Counters` states, while connections begin and end.

use anyloop_proto::Statistics;

use super::*;
use crate::session::counters::AtomicCounters;

/// Messages of the connection that is closed.
const EACH: u64 = 5;

#[test]
fn no_snapshot_has_an_end_without_its_beginning() {
    check(|| {
        let counters = Arc::new(AtomicCounters::default());
        let threads = [true, false].map(|opens| {
            let counters = counters.clone();
            thread::spawn(move || {
                counters.started.add(1);
                if opens {
                    counters.opened.add(1);
                    let mut statistics = Statistics::default();
                    statistics.messages_received = EACH;
                    counters.add_closed(statistics);
                } else {
                    counters.failed.add(1);
                }
            })
        });
        let seen = counters.snapshot();
        assert!(seen.closed <= seen.opened, "{seen:?}");
        assert!(seen.opened + seen.failed + seen.http <= seen.started, "{seen:?}");
        assert!(seen.messages_received >= EACH * seen.closed, "{seen:?}");
        for thread in threads {
            thread.join().unwrap();
        }
        let seen = counters.snapshot();
        assert_eq!((seen.started, seen.opened, seen.failed, seen.closed), (2, 1, 1, 1));
    });
}
