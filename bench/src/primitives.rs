//! Masking and UTF-8 validation compared with memcpy, in GB/s.

use std::hint::black_box;
use std::io::Write;
use std::time::Instant;

use anyloop_proto::frame::mask;

use crate::table::median;

const SIZES: [(&str, usize); 4] =
    [("64 B", 64), ("1 KiB", 1 << 10), ("16 KiB", 16 << 10), ("1 MiB", 1 << 20)];

/// The number of bytes that one sample processes.
const BYTES: usize = 64 << 20;
const SAMPLES: usize = 7;

pub(crate) fn run() {
    let ascii = "The quick brown fox jumps over the lazy dog. ";
    let mixed = "Τὸ πλοῖον ἔπλευσε, 船が来た, naïve façade. ";
    println!("{:24}{}", "GB/s (ns)", SIZES.map(|(name, _)| format!("{name:>18}")).concat());
    line("memcpy", |size| {
        let source = vec![7u8; size];
        let mut target = vec![0u8; size];
        sample(size, || black_box(&mut target[..]).copy_from_slice(black_box(&source)))
    });
    line("mask", |size| {
        // At the alignment of a payload, which follows a header and a key.
        let mut bytes = vec![7u8; size + 6];
        sample(size, || mask(black_box(&mut bytes[6..]), black_box([1, 2, 3, 4])))
    });
    for (name, text) in [("ascii", ascii), ("mixed", mixed)] {
        line(&format!("utf-8 {name}, std"), |size| {
            let text = repeated(text, size);
            sample(size, || _ = black_box(std::str::from_utf8(black_box(&text))))
        });
        line(&format!("utf-8 {name}, simdutf8"), |size| {
            let text = repeated(text, size);
            sample(size, || _ = black_box(simdutf8::basic::from_utf8(black_box(&text))))
        });
    }
}

/// `text` repeated, truncated to `size` bytes.
fn repeated(text: &str, size: usize) -> Vec<u8> {
    text.bytes().cycle().take(size).collect()
}

fn line(name: &str, gigabytes: impl Fn(usize) -> f64) {
    print!("{name:24}");
    for (_, size) in SIZES {
        let rate = gigabytes(size);
        print!("{:>18}", format!("{rate:.1} ({:.1})", size as f64 / rate));
        let _ = std::io::stdout().flush();
    }
    println!();
}

fn sample(size: usize, mut f: impl FnMut()) -> f64 {
    let times = BYTES / size;
    let samples = (0..SAMPLES).map(|_| {
        let start = Instant::now();
        (0..times).for_each(|_| f());
        (times * size) as f64 / start.elapsed().as_nanos() as f64
    });
    median(samples.collect())
}
