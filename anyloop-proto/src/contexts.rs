//! Contexts (the memory of codecs) that connections use in turn. Not the context of RFC 7692: nothing of a connection
//! is kept in it.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::fmt;

/// The number of free contexts of a type that are kept.
const MAX_FREE: usize = 16;

/// Memory that the codecs of many connections use in turn: compressors and decompressors, for example.
///
/// Each [`BufferPool`](crate::BufferPool) has a value of this type for decoders, and an [`Output`](crate::Output) may
/// have one for encoders. A thread lends them to each call of its connections. A codec [takes](Self::take) a context,
/// or creates it if there is none, and [puts](Self::put) it back when the call ends; it may keep it over calls while a
/// message is unfinished. A thread needs only as many as are in use at once, not one per connection.
///
/// A context has the state of whatever used it last, so a codec resets it first.
///
/// At most 16 free contexts of each type are kept. An empty value allocates nothing.
///
/// ```
/// use anyloop_proto::extension::Contexts;
///
/// struct Table([u16; 256]);
///
/// let mut contexts = Contexts::new();
/// let mut count = |bytes: &[u8], byte: u8| {
///     let mut table = contexts.take(|_: &Table| true).unwrap_or_else(|| Box::new(Table([0; 256])));
///     table.0.fill(0); // another connection may have used it
///     bytes.iter().for_each(|&byte| table.0[usize::from(byte)] += 1);
///     let count = table.0[usize::from(byte)];
///     contexts.put(table, 512);
///     count
/// };
/// assert_eq!((count(b"aab", b'a'), count(b"abb", b'a')), (2, 1)); // with the same table
/// assert_eq!(contexts.held(), 512);
/// ```
#[derive(Default)]
pub struct Contexts {
    free: Vec<Context>,
}

/// A free context.
struct Context {
    memory: Box<dyn Any + Send>,
    /// The size of the memory in bytes.
    size: usize,
    /// Whether it was used since the last trim.
    used: bool,
}

impl Contexts {
    /// No contexts.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// Takes a free context of type `C` for which `fits` returns true. `None` if there is none.
    pub fn take<C: Any + Send>(&mut self, fits: impl Fn(&C) -> bool) -> Option<Box<C>> {
        let matches = |context: &Context| context.memory.downcast_ref().is_some_and(&fits);
        let index = self.free.iter().rposition(matches)?;
        self.free.swap_remove(index).memory.downcast().ok()
    }

    /// Puts a context back. `size` is the number of bytes that it holds, for [`held`](Self::held). The context is
    /// dropped if 16 others of its type are free.
    pub fn put<C: Any + Send>(&mut self, context: Box<C>, size: usize) {
        if self.free.iter().filter(|other| other.memory.is::<C>()).count() < MAX_FREE {
            self.free.push(Context { memory: context, size, used: true });
        }
    }

    /// The number of bytes that the free contexts hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.free.iter().map(|context| context.size).sum()
    }

    /// Frees the contexts that were not used since the last call.
    ///
    /// ```
    /// # use anyloop_proto::extension::Contexts;
    /// let mut contexts = Contexts::new();
    /// contexts.put(Box::new([0u8; 100]), 100);
    /// contexts.trim();
    /// assert_eq!(contexts.held(), 100); // it was used before this call
    /// contexts.trim();
    /// assert_eq!(contexts.held(), 0);
    /// ```
    pub fn trim(&mut self) {
        self.free.retain_mut(|context| core::mem::take(&mut context.used));
        if self.free.is_empty() {
            self.free = Vec::new();
        }
    }
}

impl fmt::Debug for Contexts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { free } = self;
        f.debug_struct("Contexts").field("free", &free.len()).field("held", &self.held()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_of_each_type_are_kept() {
        let mut contexts = Contexts::new();
        for i in 0..20u8 {
            contexts.put(Box::new(i), 1);
            contexts.put(Box::new(u16::from(i)), 100);
        }
        assert_eq!(contexts.held(), 16 + 1600);
        assert_eq!(
            contexts.take(|_: &u8| true),
            Some(Box::new(15)),
            "the one that was put back last"
        );
        assert_eq!(contexts.take(|&i: &u16| i == 3), Some(Box::new(3)));
        assert_eq!(contexts.take(|&i: &u16| i == 3), None);
        assert_eq!(contexts.take(|_: &u32| true), None);
        assert_eq!(contexts.held(), 15 + 1500);
    }
}
