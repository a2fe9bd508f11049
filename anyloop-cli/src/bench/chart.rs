//! A histogram of latencies, drawn with characters.

use hdrhistogram::Histogram;

use super::units;

const ROWS: u32 = 14;
/// The number of characters of the longest bar.
const WIDTH: usize = 48;
/// The ends of bars, by eighths of a character.
const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// Draws a histogram: a heading, and rows, each with the lower end of its range, its share of the values and a bar.
///
/// The upper end of each range is the same multiple of its lower end; the last row has what is above the 99.99th
/// percentile, too.
pub(super) fn draw(latency: &Histogram<u64>) -> String {
    let (low, high) = (latency.min().max(1) as f64, latency.value_at_quantile(0.9999) as f64);
    // All values may be equal: the range of a row is at least a hundredth of its lower end.
    let ratio = (high / low).powf(1.0 / f64::from(ROWS)).max(1.01);
    let ends: Vec<u64> = (0..=ROWS).map(|row| (low * ratio.powi(row as i32)) as u64).collect();
    let rows = ends.windows(2).enumerate().map(|(row, ends)| {
        let last = row + 1 == ROWS as usize;
        let upper = if last { u64::MAX } else { ends[1].saturating_sub(1) };
        (ends[0], count_between(latency, if row == 0 { 0 } else { ends[0] }, upper))
    });
    let rows: Vec<_> = rows.collect();
    let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let used = rows.iter().rposition(|(_, count)| *count > 0).map_or(0, |last| last + 1);
    let line = |(lower, count): &(u64, u64)| {
        let share = 100.0 * *count as f64 / latency.len().max(1) as f64;
        let lower = units::time(*lower as f64);
        format!("  {lower:>9} {share:>6.2} % {}", bar(*count, most)).trim_end().to_string() + "\n"
    };
    format!("  {:>9} {:>8}\n", "from", "share") + &rows[..used].iter().map(line).collect::<String>()
}

/// The number of values from `low` to `high`, each counted in one row only.
fn count_between(latency: &Histogram<u64>, low: u64, high: u64) -> u64 {
    let values = latency
        .iter_recorded()
        .map(|value| (value.value_iterated_to(), value.count_since_last_iteration()));
    values.filter(|(value, _)| (low..=high).contains(value)).map(|(_, count)| count).sum()
}

/// A bar whose length is in proportion to `count`; at least the shortest one if that is not zero.
fn bar(count: u64, most: u64) -> String {
    let eighths = (count as f64 / most as f64 * (WIDTH * 8) as f64).round() as usize;
    let eighths = eighths.max(usize::from(count > 0));
    "█".repeat(eighths / 8) + PARTS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("three digits are allowed");
        values.into_iter().for_each(|value| histogram.record(value).expect("it grows"));
        histogram
    }

    /// The percentages of the rows.
    fn shares(drawn: &str) -> Vec<f64> {
        let share = |line: &str| line.split('%').next()?.split_whitespace().last()?.parse().ok();
        drawn.lines().skip(1).map(|line| share(line).expect(line)).collect()
    }

    #[test]
    fn each_value_is_in_one_row() {
        for values in [vec![], vec![7], vec![1, 1_000_000_000], (1..5000).collect()] {
            let drawn = draw(&histogram(values.iter().copied()));
            let sum: f64 = shares(&drawn).iter().sum();
            let expected = if values.is_empty() { 0.0 } else { 100.0 };
            assert!((sum - expected).abs() < 0.1, "{values:?}\n{drawn}");
            assert!(drawn.lines().count() <= 1 + ROWS as usize);
        }
    }

    #[test]
    fn a_heading_is_above_the_lower_ends_and_the_shares() {
        let drawn = draw(&histogram([1000, 2000]));
        let mut lines = drawn.lines();
        let (heading, first) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        assert_eq!(heading, "       from    share");
        assert!(first.starts_with("    1.00 µs  50.00 % "), "{drawn}");
    }

    #[test]
    fn the_longest_bar_has_the_whole_width_and_one_of_many_is_seen() {
        let drawn = draw(&histogram([vec![1000; 100_000], vec![50_000; 50]].concat()));
        let lengths: Vec<_> = drawn.lines().map(|line| line.matches('█').count()).collect();
        assert_eq!(lengths[1], WIDTH, "{drawn}");
        assert!(drawn.lines().last().expect("there are rows").ends_with('▏'), "{drawn}");
    }
}
