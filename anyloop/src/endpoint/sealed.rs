//! What only endpoints of this crate implement.

/// A supertrait that no other crate can name.
#[expect(unnameable_types, reason = "so that other crates cannot implement it")]
pub trait Sealed {}
