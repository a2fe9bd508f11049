//! The results, for people and as JSON.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use super::chart;
use super::options::{Options, Pace};
use super::round::Outcome;
use super::tally::Counts;
use super::units::{bytes, grouped, time};
use crate::error::CliError;
use crate::escape;
use crate::values::Url;

/// The percentiles that are reported.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// The results of one URL: the sum of its rounds.
pub(super) struct Report {
    url: String,
    connections: u32,
    size: usize,
    binary: bool,
    pace: Pace,
    counts: Counts,
    time: Duration,
    extension: Option<String>,
    failure: Option<CliError>,
}

impl Report {
    pub(super) fn new(url: &Url, options: &Options) -> Self {
        Self {
            url: url.0.to_string(),
            connections: options.connections,
            size: options.size,
            binary: options.binary,
            pace: options.pace(),
            counts: Counts::default(),
            time: Duration::ZERO,
            extension: None,
            failure: None,
        }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        self.counts.add(&outcome.counts);
        self.time += outcome.time;
        self.extension = outcome.extension;
        self.failure = self.failure.take().or(outcome.failure);
    }

    /// An error if an answer was wrong or is missing, or a connection ended before its time.
    pub(super) fn into_result(self) -> Result<(), CliError> {
        let Self { url, counts: Counts { wrong, unanswered, .. }, failure, .. } = self;
        match (failure, wrong, unanswered) {
            (Some(failure), ..) => Err(failure),
            (None, 0, 0) => Ok(()),
            (None, 0, n) => {
                Err(CliError::failed(format!("{url}: messages without an answer: {}", grouped(n))))
            }
            (None, n, _) => Err(CliError::failed(format!(
                "{url}: answers that are not the message sent: {}; the URL must be that of an echo",
                grouped(n)
            ))),
        }
    }

    /// Messages a second.
    fn throughput(&self) -> f64 {
        self.counts.in_time as f64 / self.time.as_secs_f64().max(1e-9)
    }

    fn percentile(&self, quantile: f64) -> f64 {
        self.counts.latency.value_at_quantile(quantile) as f64
    }

    /// What was measured: the lines below the URL.
    fn conditions(&self) -> String {
        let kind = if self.binary { "binary" } else { "text" };
        let pace = match self.pace {
            Pace::Depth(depth) => format!("{} in flight on each", grouped(depth.into())),
            Pace::Rate(rate) => format!("{rate} a second"),
        };
        let connections = match self.connections {
            1 => "1 connection".to_string(),
            n => format!("{} connections", grouped(n.into())),
        };
        let extension =
            self.extension.as_deref().map_or_else(|| "not compressed".into(), escape::line);
        let (size, seconds) = (grouped(self.size as u64), self.time.as_secs_f64());
        format!("{connections}, {kind} of {size} bytes, {pace}, {seconds:.1} s\n  {extension}")
    }

    /// The rows of the table: name and value.
    fn rows(&self) -> Vec<(String, String)> {
        let Counts { wrong, unanswered, latency, .. } = &self.counts;
        let mut rows = vec![
            ("messages/s".to_string(), grouped(self.throughput().round() as u64)),
            ("each way/s".to_string(), bytes(self.throughput() * self.size as f64)),
            ("answers".to_string(), grouped(self.counts.answered())),
            ("wrong".to_string(), grouped(*wrong)),
            ("missing".to_string(), grouped(*unanswered)),
        ];
        if !latency.is_empty() {
            rows.push(("mean".to_string(), time(latency.mean())));
            let percentiles = PERCENTILES.iter();
            rows.extend(percentiles.map(|(name, q)| (name.to_string(), time(self.percentile(*q)))));
            rows.push(("longest".to_string(), time(latency.max() as f64)));
        }
        rows
    }
}

/// The results for people: what was measured, a table, and the histogram.
pub(super) fn text(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        text += &format!("{}\n  {}\n\n", report.url, report.conditions());
        for (name, value) in report.rows() {
            text += &format!("  {name:<10} {value:>14}\n");
        }
        if !report.counts.latency.is_empty() {
            text += &format!("\n{}", chart::draw(&report.counts.latency));
        }
        text.push('\n');
    }
    if let [first, second] = reports {
        text += &comparison(first, second);
    }
    text
}

/// Both URLs side by side, and the second one as a multiple of the first.
fn comparison(first: &Report, second: &Report) -> String {
    let ratio = |a: f64, b: f64| if a > 0.0 { format!("{:.2}", b / a) } else { "-".to_string() };
    let (a, b) = (first.throughput(), second.throughput());
    let mut text = format!("  {:<10} {:>14} {:>14} {:>8}\n", "", "first", "second", "ratio");
    let (left, right) = (grouped(a.round() as u64), grouped(b.round() as u64));
    text += &format!("  {:<10} {left:>14} {right:>14} {:>8}\n", "messages/s", ratio(a, b));
    for (name, quantile) in PERCENTILES {
        let (a, b) = (first.percentile(quantile), second.percentile(quantile));
        text += &format!("  {name:<10} {:>14} {:>14} {:>8}\n", time(a), time(b), ratio(a, b));
    }
    text
}

/// The results as one line of JSON: an array with an object for each URL. Latencies are in microseconds.
pub(super) fn json(reports: &[Report]) -> String {
    let results: Vec<_> = reports.iter().map(JsonReport::new).collect();
    format!("{}\n", json!(results))
}

/// The JSON object of one URL.
#[derive(Serialize)]
struct JsonReport<'a> {
    url: &'a str,
    connections: u32,
    size: usize,
    binary: bool,
    depth: Option<u32>,
    rate: Option<f64>,
    extension: Option<&'a str>,
    seconds: f64,
    sent: u64,
    answered: u64,
    wrong: u64,
    unanswered: u64,
    messages_per_second: f64,
    bytes_per_second: f64,
    latency_us: Option<serde_json::Map<String, serde_json::Value>>,
}

impl<'a> JsonReport<'a> {
    fn new(report: &'a Report) -> Self {
        let (depth, rate) = match report.pace {
            Pace::Depth(depth) => (Some(depth), None),
            Pace::Rate(rate) => (None, Some(rate)),
        };
        let latency = &report.counts.latency;
        let latency_us = (!latency.is_empty()).then(|| {
            let others = [
                ("min", latency.min() as f64),
                ("mean", latency.mean()),
                ("max", latency.max() as f64),
            ];
            let percentiles =
                PERCENTILES.map(|(name, quantile)| (name, report.percentile(quantile)));
            let all = others.into_iter().chain(percentiles);
            all.map(|(name, nanoseconds)| (name.to_string(), json!(nanoseconds / 1e3))).collect()
        });
        Self {
            url: &report.url,
            connections: report.connections,
            size: report.size,
            binary: report.binary,
            depth,
            rate,
            extension: report.extension.as_deref(),
            seconds: report.time.as_secs_f64(),
            sent: report.counts.sent,
            answered: report.counts.answered(),
            wrong: report.counts.wrong,
            unanswered: report.counts.unanswered,
            messages_per_second: report.throughput(),
            bytes_per_second: report.throughput() * report.size as f64,
            latency_us,
        }
    }
}
