//! Forks while a client has threads for look-ups. The process that forks runs one test only.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyloop::net::ConnectError;
use anyloop::prelude::*;
use anyloop_testkit::wait::eventually;
use anyloop_testkit::watchdog::watchdog;

use crate::setup::{client_with, closed, millis};

const ALONE: &str = "ANYLOOP_NET_FORKING";

/// Runs this test once more in a process of its own. Returns whether this is that process.
fn is_alone(test: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&name, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    false
}

/// Calls `f` in a forked process, and returns its exit status.
fn forked(f: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only calls `f`, which uses no lock that another thread of this process holds: the
    // watchdog and the threads for look-ups sleep. The C library's allocator allows forks. It never
    // returns from here.
    match unsafe { libc::fork() } {
        0 => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(101);
            // SAFETY: it ends the process without running anything else of it.
            unsafe { libc::_exit(status) }
        }
        -1 => panic!("{}", std::io::Error::last_os_error()),
        child => {
            let mut status = 0;
            // SAFETY: `status` is valid for writes.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert!(libc::WIFEXITED(status), "{status:#x}");
            libc::WEXITSTATUS(status)
        }
    }
}

/// Whether there are threads for look-ups, and all of them sleep.
fn look_up_threads_sleep() -> bool {
    let stats = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        std::fs::read_to_string(task.unwrap().path().join("stat")).ok() // it may end meanwhile
    });
    let mut resolving = stats.filter(|stat| stat.contains("(anyloop-resolve)")).peekable();
    resolving.peek().is_some() && resolving.all(|stat| stat.contains("(anyloop-resolve) S "))
}

/// A program that looks up a name and then forks, to become a daemon, can use the same client in the child.
#[test]
fn a_forked_process_looks_up() {
    if !is_alone("a_forked_process_looks_up") {
        return;
    }
    let _watchdog = watchdog();
    let closed = closed();
    let refusals = Arc::new(AtomicUsize::new(0));
    let (counts, address) = (refusals.clone(), closed.address);
    // The timeout fails the test if a look-up never ends.
    let mut client = client_with(ClientConfig::new().resolve_timeout(millis(5000)));
    client.set_look_up(move |_, _| Ok(vec![address]));
    client.on_fail(move |_, context| {
        let error = context.error().and_then(|error| error.downcast_ref::<ConnectError>());
        let refused = matches!(error, Some(ConnectError::Connect { .. }));
        counts.fetch_add(usize::from(refused), Ordering::Relaxed);
    });
    client.connect("ws://before.example/").unwrap();
    client.run();
    assert_eq!(refusals.load(Ordering::Relaxed), 1);

    eventually("the thread is idle", look_up_threads_sleep);
    let status = forked(|| {
        for host in ["ws://after.example/", "ws://again.example/"] {
            client.reset().unwrap();
            client.connect(host).unwrap();
            client.run();
        }
        drop(client);
        i32::try_from(refusals.load(Ordering::Relaxed)).unwrap()
    });
    assert_eq!(status, 3, "both look-ups of the child have had a result");
}
