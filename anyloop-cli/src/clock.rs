//! The time of day, for people.

use std::fmt::Display;

/// The local time, with milliseconds.
pub(crate) fn time_of_day() -> impl Display {
    jiff::ZonedDateTime::now().strftime("%H:%M:%S%.3f").to_string()
}
