//! A hint for branches that are seldom taken.

/// Tells the compiler that the branch with this call is unlikely, as `core::hint::cold_path` does, which
/// needs a newer compiler than this crate.
#[cold]
#[inline(never)]
pub(crate) const fn cold_path() {}
