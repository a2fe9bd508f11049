//! `soak` for some seconds: what is right passes, and what is wrong is noticed.

use std::path::Path;
use std::process::{Command, Output};
use std::thread;

/// What a server can do wrong, and what is said of it.
const FAULTS: [(&str, &str); 7] = [
    ("gap", " came for "),
    ("twice", " came for "),
    ("tail", " were accepted"),
    ("byte", "an echo of "),
    ("descriptor", " descriptors are left of "),
    ("memory", " B of heap memory at the last rest"),
    ("count", "handlers called, and what `run` returned"),
];

fn soak(options: &str) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_soak")).parent().unwrap();
    Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/soak"))
        .args(["--minutes", "0.06", "--spare", "pongs", "--spare", "cap", "--bin"])
        .arg(programs)
        .args(options.split_whitespace())
        .output()
        .unwrap()
}

#[test]
#[ignore = "takes a minute, and both cores"]
fn what_is_right_passes_and_each_fault_is_noticed() {
    let output = soak("");
    assert!(output.status.success(), "{output:?}");
    // Servers mostly wait to come to rest. More at once would make too few connections for a leak to be seen.
    for faults in FAULTS.chunks(4) {
        thread::scope(|scope| {
            for (fault, says) in faults {
                scope.spawn(move || is_noticed(fault, says));
            }
        });
    }
}

fn is_noticed(fault: &str, says: &str) {
    let output = soak(&format!("--fault {fault}"));
    assert!(!output.status.success(), "{fault}: {output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(says), "{fault}: {error}");
}
