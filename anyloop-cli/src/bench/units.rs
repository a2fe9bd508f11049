//! Numbers for people.

/// A whole number with its thousands apart.
pub(super) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Nanoseconds in the unit that fits, with three digits.
pub(super) fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..999.5 => format!("{nanoseconds:.0} ns"),
        ..999.5e3 => format!("{} µs", three_digits(nanoseconds / 1e3)),
        ..999.5e6 => format!("{} ms", three_digits(nanoseconds / 1e6)),
        _ => format!("{} s", three_digits(nanoseconds / 1e9)),
    }
}

/// Bytes in the unit that fits, with three digits.
pub(super) fn bytes(n: f64) -> String {
    match n {
        ..999.5 => format!("{n:.0} B"),
        ..999.5e3 => format!("{} kB", three_digits(n / 1e3)),
        ..999.5e6 => format!("{} MB", three_digits(n / 1e6)),
        _ => format!("{} GB", three_digits(n / 1e9)),
    }
}

fn three_digits(n: f64) -> String {
    match n {
        ..9.995 => format!("{n:.2}"),
        ..99.95 => format!("{n:.1}"),
        _ => format!("{n:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_apart() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(n), text);
        }
    }

    #[test]
    fn times_and_bytes_have_three_digits() {
        for (n, text) in [
            (812.0, "812 ns"),
            (1_000.0, "1.00 µs"),
            (12_345.0, "12.3 µs"),
            (99_960.0, "100 µs"),
            (999_900.0, "1.00 ms"),
            (2_500_000.0, "2.50 ms"),
            (3e9, "3.00 s"),
        ] {
            assert_eq!(time(n), text);
        }
        for (n, text) in [(0.0, "0 B"), (64.0, "64 B"), (1_500.0, "1.50 kB"), (2.5e8, "250 MB")] {
            assert_eq!(bytes(n), text);
        }
    }
}
