//! Prints rows of results.

pub(crate) fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// Prints the results of a scenario: nanoseconds per message, for each codec.
pub(crate) fn row(scenario: &str, codecs: impl Iterator<Item = (&'static str, Vec<f64>)>) {
    print!("{scenario:14}");
    for (codec, samples) in codecs {
        print!("  {codec} {:.1} ns", median(samples));
    }
    println!();
}
