//! A hint for unlikely branches.

/// Tells the compiler that the branch with this call is unlikely. `core::hint::cold_path` needs a
/// newer compiler than the minimum that this crate supports.
#[cold]
#[inline(never)]
pub(crate) const fn cold_path() {}
