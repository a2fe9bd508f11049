//! The registry of the connections of an endpoint, and broadcasts to them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use anyloop_proto::{CloseCode, Prepared, State};

use super::deferred::{OutgoingMessage, OutgoingPayload};
use super::erased::{Filter, Untyped};
use super::error::Sent;
use super::handle::Handle;
use super::handler::Handler;
use super::limits::{Overflow, SendBufferLimits};
use super::phase::Phase;
use super::shared::{Command, HandleRef, Shared};
use crate::sync::unmodelled::OnceLock;
use crate::sync::{Mutex, MutexGuard};

/// Identifies a connection in the loop that serves it: its slot, and how often the slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u16,
}

/// Wakes connections of a loop, from any thread.
pub(crate) trait WakeConnections: Send + Sync {
    /// Wakes these connections.
    fn wake(&self, keys: Vec<Key>);

    /// A waker of this connection.
    fn waker(&self, key: Key) -> Waker;
}

/// The connections of an endpoint, with eight bytes for each. The *shared state* (of a connection and its handles) is
/// made on demand: for the first handle, or when output waits, for example. If the registry made it for a handle, it is
/// freed after the last handle, unless its id or its limits must be kept; if the connection made it, it lives as long
/// as the connection. A connection with a waker of its own has it from the beginning.
///
/// A broadcast is queued once for all open connections without shared state. Each is woken, and takes the broadcasts
/// that are due to it on its own strand; the last frees them. The other connections get it through their mailbox.
pub(crate) struct Registry {
    limits: SendBufferLimits,
    /// Wakes the connections of a loop. Absent if each connection has a waker of its own.
    loop_waker: OnceLock<Arc<dyn WakeConnections>>,
    members: Mutex<Members>,
}

struct Members {
    /// By the slot in the loop; without a loop, by numbers that are assigned here.
    all: Vec<Option<Member>>,
    /// Assigned numbers that are free again.
    free: Vec<u32>,
    shared: HashMap<u32, Arc<Shared>>,
    broadcasts: Broadcasts,
}

#[derive(Clone, Copy)]
struct Member {
    generation: u16,
    /// The number of the next broadcast to take. Meaningful only while `takes_broadcasts`.
    next: u32,
    phase: Phase,
    /// It takes broadcasts from the queue: it is open, and has no shared state.
    takes_broadcasts: bool,
}

impl Member {
    const fn new(generation: u16) -> Self {
        Self { generation, next: 0, phase: Phase::Connecting, takes_broadcasts: false }
    }
}

/// The queue of broadcasts, in order. Each stays until all connections to which it is due have taken it or have
/// ended.
struct Broadcasts {
    queue: VecDeque<Broadcast>,
    /// The number of the first in the queue. Numbers wrap around.
    first: u32,
    /// The total [`cost`] of the messages in the queue.
    bytes: usize,
}

struct Broadcast {
    message: Prepared,
    filter: Option<Filter>,
    /// The number of connections that have not taken it.
    remaining: u32,
}

/// The cost of a message in the queue beside its payload, in bytes, so that the number of empty ones is bounded too.
const MESSAGE_COST: usize = 64;

/// A broadcast that is due to one connection.
pub(super) struct Due {
    pub(super) message: Prepared,
    pub(super) filter: Option<Filter>,
    /// The number of the broadcast after this one, in the queue or still to be queued.
    pub(super) next: u32,
    /// The number that the next broadcast to be queued will have.
    pub(super) end: u32,
}

impl Registry {
    pub(super) fn new(limits: SendBufferLimits) -> Self {
        let broadcasts = Broadcasts { queue: VecDeque::new(), first: 0, bytes: 0 };
        let members =
            Members { all: Vec::new(), free: Vec::new(), shared: HashMap::new(), broadcasts };
        Self { limits, loop_waker: OnceLock::new(), members: Mutex::new(members) }
    }

    /// From now on connections are served by a loop, and identified by its slots. Only the first call has an effect.
    pub(crate) fn use_loop(&self, make: impl FnOnce() -> Arc<dyn WakeConnections>) {
        self.loop_waker.get_or_init(make);
    }

    // For connections.

    /// Adds a connection, in this slot of the loop.
    pub(super) fn register(&self, key: Key) {
        let mut members = self.members();
        let index = key.index as usize;
        if members.all.len() <= index {
            members.all.resize(index + 1, None);
        }
        members.all[index] = Some(Member::new(key.generation));
    }

    /// Adds a connection that `waker` wakes. Returns its number, and its shared state.
    pub(super) fn register_with_waker(&self, waker: &Waker) -> (u32, Arc<Shared>) {
        let mut members = self.members();
        let index = members.free.pop().unwrap_or_else(|| {
            members.all.push(None);
            (members.all.len() - 1) as u32
        });
        members.all[index as usize] = Some(Member::new(0));
        let shared = Arc::new(Shared::new(waker.clone(), self.limits, Phase::Connecting));
        members.shared.insert(index, shared.clone());
        (index, shared)
    }

    /// Sets the phase of a connection.
    pub(super) fn publish(&self, index: u32, phase: Phase) {
        let mut freed = Vec::new(); // dropped when the lock is released: filters are application code
        let mut members = self.members();
        let Some(member) = members.member(index) else { return };
        member.phase = phase;
        match members.shared.get(&index) {
            Some(shared) => shared.publish_phase(phase),
            None => members.set_takes_broadcasts(index, phase == Phase::Open, &mut freed),
        }
    }

    /// The handler of an open connection closes: no more broadcasts are due to it. Returns its shared state, made now
    /// if broadcasts are due: it begins with these. `None`: nothing was sent to it.
    pub(super) fn begin_close(&self, index: u32) -> Option<Arc<Shared>> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        let (end, is_shared) = (members.broadcasts.end(), members.shared.contains_key(&index));
        let member = members.member(index)?;
        if !is_shared && (!member.takes_broadcasts || member.next == end) {
            member.phase = Phase::CloseSent;
            members.set_takes_broadcasts(index, false, &mut freed);
            return None;
        }
        let member = *member;
        Some(self.make_shared(&mut members, index, member, Shared::new, &mut freed).0)
    }

    /// Removes a connection that is over. Returns its shared state, which another thread may just have made.
    pub(super) fn deregister(&self, index: u32) -> Option<Arc<Shared>> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        members.set_takes_broadcasts(index, false, &mut freed);
        members.member(index)?;
        members.all[index as usize] = None;
        if self.loop_waker.get().is_none() {
            members.free.push(index);
        }
        members.remove_shared(index)
    }

    /// Frees the shared state of a connection, if it is unused. Returns whether it was.
    pub(super) fn free_shared(&self, index: u32) -> bool {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        // A new handle is made under this lock, or on the connection's strand, where this runs. So an unused state
        // stays unused.
        let is_unused = members.shared.get(&index).is_some_and(|shared| shared.is_unused());
        if is_unused {
            members.remove_shared(index); // not dropped under the lock: the connection still has it
            let takes = members.member(index).is_some_and(|member| member.phase == Phase::Open);
            members.set_takes_broadcasts(index, takes, &mut freed);
        }
        is_unused
    }

    /// The shared state of a connection, created now if there is none. That of a connection that is over refuses
    /// commands.
    pub(super) fn get_or_create_shared(&self, index: u32) -> Arc<Shared> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        match members.member(index).copied() {
            Some(member) => {
                self.make_shared(&mut members, index, member, Shared::new, &mut freed).0
            }
            None => Arc::new(Shared::gone(self.limits)),
        }
    }

    /// The shared state of a connection, if there is one.
    pub(super) fn shared(&self, index: u32) -> Option<Arc<Shared>> {
        self.members().shared.get(&index).cloned()
    }

    /// Takes the next broadcast that is due to this connection.
    pub(super) fn next_broadcast(&self, index: u32) -> Option<Due> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        if members.broadcasts.queue.is_empty() {
            return None;
        }
        let next = members.member(index).filter(|member| member.takes_broadcasts)?.next;
        let at = next.wrapping_sub(members.broadcasts.first) as usize;
        let end = members.broadcasts.end();
        let broadcast = members.broadcasts.queue.get(at)?;
        let (message, filter) = (broadcast.message.clone(), broadcast.filter.clone());
        let taken = next.wrapping_add(1);
        members.broadcasts.mark_taken(next, taken, &mut freed);
        members.member(index)?.next = taken;
        Some(Due { message, filter, next: taken, end })
    }

    // For the endpoint.

    /// A handle of this connection, even if the connection is over.
    pub(crate) fn handle<H: Handler>(&self, key: Key) -> Handle<H> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        match members.member(key.index).copied() {
            Some(member) if member.generation == key.generation => {
                let make = Shared::temporary;
                Handle::new(self.make_shared(&mut members, key.index, member, make, &mut freed).0)
            }
            _ => Handle::new(Arc::new(Shared::gone(self.limits))),
        }
    }

    /// Handles of all connections that are not over, in no particular order.
    pub(crate) fn handles<H: Handler>(&self) -> Vec<Handle<H>> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        let present: Vec<(u32, Member)> = (0..)
            .zip(&members.all)
            .filter_map(|(index, member)| Some((index, (*member)?)))
            .collect();
        let mut to_wake = Vec::new();
        let mut handles = Vec::with_capacity(present.len());
        for (index, member) in present {
            let make = Shared::temporary;
            let (shared, is_new) = self.make_shared(&mut members, index, member, make, &mut freed);
            if is_new {
                // The connection adopts the shared state, and publishes how much waits.
                to_wake.push(Key { index, generation: member.generation });
            }
            handles.push(Handle::new(shared));
        }
        drop(members);
        self.wake(to_wake);
        handles
    }

    /// Sends a message to all open connections whose handler `filter` accepts. Returns the number of open connections
    /// whose send buffer is not full; the filter is applied later, when the message is sent.
    pub(crate) fn broadcast(&self, message: &Prepared, filter: Option<Filter>) -> usize {
        let mut members = self.members();
        let shared: Vec<_> = members
            .shared
            .values()
            .filter(|shared| shared.state() == State::Open)
            .map(|shared| HandleRef::new(shared.clone())) // so that none is freed meanwhile
            .collect();
        let (reached, to_wake) = self.queue_broadcast(&mut members, message, filter.clone());
        drop(members);
        self.wake(to_wake);
        let sent = shared.iter().filter(|shared| {
            let payload = OutgoingPayload::Prepared(message.clone());
            let message = OutgoingMessage { payload, completion: None };
            shared.send_broadcast(message, filter.clone()).is_ok_and(Sent::is_on_its_way)
        });
        reached + sent.count()
    }

    /// Begins to close all connections, or abandons their handshakes. Returns how many connections are not over.
    pub(crate) fn close_all(&self, code: Option<CloseCode>, reason: &str) -> usize {
        self.handles::<Untyped>().iter().filter(|handle| handle.close(code, reason).is_ok()).count()
    }

    /// The total cost of broadcasts that some connection has not taken.
    #[cfg(test)]
    pub(super) fn broadcast_queue_cost(&self) -> usize {
        self.members().broadcasts.bytes
    }

    // Internal.

    /// Queues a message for the open connections without shared state. Returns the number of these, and those that
    /// have to be woken.
    fn queue_broadcast(
        &self,
        members: &mut Members,
        message: &Prepared,
        filter: Option<Filter>,
    ) -> (usize, Vec<Key>) {
        let len = cost(message);
        // `Overflow::Close` drops no message, so the queue has no limit.
        let limit = match self.limits.overflow {
            Overflow::Close => usize::MAX,
            Overflow::Error | Overflow::Drop => self.limits.max_send_buffer,
        };
        if members.broadcasts.is_full(len, limit) {
            return (0, Vec::new());
        }
        let end = members.broadcasts.end();
        let (mut reached, mut to_wake) = (0, Vec::new());
        let Members { all, broadcasts, .. } = members;
        for (index, member) in (0..).zip(all.iter()) {
            let Some(member) = member.filter(|member| member.takes_broadcasts) else { continue };
            reached += 1;
            if member.next == end {
                to_wake.push(Key { index, generation: member.generation });
            }
        }
        if reached > 0 {
            let message = message.clone();
            broadcasts.bytes += len;
            broadcasts.queue.push_back(Broadcast { message, filter, remaining: reached });
        }
        (reached as usize, to_wake)
    }

    /// The shared state of a connection, and whether it was made now, by `make`. A new one begins with the broadcasts
    /// that the connection has not taken.
    fn make_shared(
        &self,
        members: &mut Members,
        index: u32,
        member: Member,
        make: impl FnOnce(Waker, SendBufferLimits, Phase) -> Shared,
        freed: &mut Vec<Broadcast>,
    ) -> (Arc<Shared>, bool) {
        if let Some(shared) = members.shared.get(&index) {
            return (shared.clone(), false);
        }
        let key = Key { index, generation: member.generation };
        let waker = self
            .loop_waker
            .get()
            .map_or_else(|| Waker::noop().clone(), |loop_waker| loop_waker.waker(key));
        let shared = Arc::new(make(waker, self.limits, member.phase));
        let due = member.takes_broadcasts.then(|| members.broadcasts.starting_at(member.next));
        for broadcast in due.into_iter().flatten() {
            let payload = OutgoingPayload::Prepared(broadcast.message.clone());
            let message = OutgoingMessage { payload, completion: None };
            shared.queue_accepted(Command::Send(message, broadcast.filter.clone()));
        }
        members.set_takes_broadcasts(index, false, freed);
        members.shared.insert(index, shared.clone());
        (shared, true)
    }

    fn wake(&self, keys: Vec<Key>) {
        if keys.is_empty() {
            return;
        }
        if let Some(loop_waker) = self.loop_waker.get() {
            loop_waker.wake(keys);
        }
    }

    /// A panic elsewhere leaves the members consistent, so poisoning is ignored.
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn member(&mut self, index: u32) -> Option<&mut Member> {
        self.all.get_mut(index as usize)?.as_mut()
    }

    fn remove_shared(&mut self, index: u32) -> Option<Arc<Shared>> {
        let removed = self.shared.remove(&index);
        if self.shared.len() < self.shared.capacity() / 8 {
            self.shared.shrink_to(2 * self.shared.len());
        }
        removed
    }

    /// Sets whether a connection takes broadcasts from the queue. If it no longer does, the broadcasts that were due
    /// to it count as taken.
    fn set_takes_broadcasts(&mut self, index: u32, takes: bool, freed: &mut Vec<Broadcast>) {
        let Self { all, broadcasts, .. } = self;
        let Some(Some(member)) = all.get_mut(index as usize) else { return };
        let end = broadcasts.end();
        if std::mem::replace(&mut member.takes_broadcasts, takes) {
            if !takes {
                broadcasts.mark_taken(member.next, end, freed);
            }
        } else {
            member.next = end;
        }
    }
}

impl Broadcasts {
    /// The number that the next broadcast to be queued will have.
    fn end(&self) -> u32 {
        self.first.wrapping_add(self.queue.len() as u32)
    }

    /// Whether a message of `len` bytes would exceed the limit.
    fn is_full(&self, len: usize, limit: usize) -> bool {
        self.bytes.saturating_add(len) > limit && !self.queue.is_empty()
    }

    /// The broadcasts from number `next` on.
    fn starting_at(&self, next: u32) -> impl Iterator<Item = &Broadcast> {
        self.queue.iter().skip(next.wrapping_sub(self.first) as usize)
    }

    /// One connection has taken the broadcasts from number `from` up to `to`. Those that all connections have taken
    /// are moved to `freed`.
    fn mark_taken(&mut self, from: u32, to: u32, freed: &mut Vec<Broadcast>) {
        let start = from.wrapping_sub(self.first) as usize;
        let end = (to.wrapping_sub(self.first) as usize).min(self.queue.len());
        for broadcast in self.queue.range_mut(start.min(end)..end) {
            broadcast.remaining = broadcast.remaining.saturating_sub(1);
        }
        while self.queue.front().is_some_and(|first| first.remaining == 0) {
            if let Some(first) = self.queue.pop_front() {
                self.bytes -= cost(&first.message);
                self.first = self.first.wrapping_add(1);
                freed.push(first);
            }
        }
    }
}

/// The cost of a message in the queue, in bytes.
fn cost(message: &Prepared) -> usize {
    message.message().as_bytes().len() + MESSAGE_COST
}
