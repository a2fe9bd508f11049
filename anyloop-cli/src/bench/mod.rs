//! `anyloop bench`: a load generator.

mod chart;
mod handler;
mod options;
#[cfg(target_os = "linux")]
mod pacing;
mod payload;
mod progress;
mod report;
mod round;
mod run;
mod tally;
mod units;

use std::io::Write;

pub(crate) use self::options::Options;
use self::options::ROUNDS;
use self::progress::Bar;
use self::report::Report;
use self::round::Round;
use crate::error::CliError;
use crate::stdio;

/// Measures, and prints the results.
pub(crate) fn run(options: &Options) -> Result<(), CliError> {
    #[cfg(unix)]
    crate::descriptors::raise_limit();
    let tls = options.tls.tls(options.urls.iter().any(|url| url.0.secure()), false)?;
    let config = options.config(tls).proxy(options.route.proxies()?);
    let overrides = options.route.overrides();
    let mut reports: Vec<_> = options.urls.iter().map(|url| Report::new(url, options)).collect();
    let bar = Bar::new();
    bar.begin_log();
    for index in order(reports.len()) {
        let report = &mut reports[index];
        let round = Round::new(options, options.time());
        let outcome = bar.during(&round, report.url(), options.time(), || {
            run::round(&round, &options.urls[index].0, &config, &overrides)
        })?;
        let is_last = outcome.interrupted || outcome.failure.is_some();
        report.add(outcome);
        if is_last {
            break;
        }
    }
    drop(bar);
    let text = match options.json {
        true => report::json(&reports),
        false => report::text(&reports),
    };
    let write = || stdio::output()?.write_all(text.as_bytes());
    write()
        .map_err(|error| CliError::failed(format!("cannot write to standard output: {error}")))?;
    reports.into_iter().try_for_each(Report::into_result)
}

/// The index of the URL that each round measures. Two take turns, and each comes first as often as the other, so
/// that a change of the machine's speed affects both.
fn order(urls: usize) -> Vec<usize> {
    match urls {
        1 => vec![0],
        _ => (0..ROUNDS).flat_map(|round| if round % 2 == 0 { [0, 1] } else { [1, 0] }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_urls_take_turns_and_begin_as_often() {
        assert_eq!(order(1), [0]);
        assert_eq!(order(2), [0, 1, 1, 0, 0, 1, 1, 0]);
    }
}
