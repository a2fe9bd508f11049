//! The connections of an endpoint, and what is sent to all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use anyloop_proto::{CloseCode, Prepared, State};

use super::handle::Handle;
use super::handler::Handler;
use super::limits::{BacklogLimits, Overflow};
use super::shared::{Command, Filter, Shared};
use crate::sync::unmodelled::{Mutex, MutexGuard, OnceLock};

/// Names a connection in the loop that serves it: its slot, and how often the slot was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) index: u32,
    pub(crate) generation: u16,
}

/// Wakes connections of a loop, from any thread.
pub(crate) trait WakeConnections: Send + Sync {
    /// Wakes these.
    fn wake(&self, keys: Vec<Key>);

    /// What wakes this one.
    fn waker(&self, key: Key) -> Waker;
}

/// Knows the connections of an endpoint: eight bytes for each. What a connection shares with its handles
/// is made when somebody wants a handle.
///
/// A message to all is queued once. Each connection is woken, and takes what is due to it on its own
/// strand; a message is freed when the last of those has taken it who were open when it was sent.
pub(crate) struct Registry<H: Handler> {
    limits: BacklogLimits,
    /// Absent where the transport wakes each connection by a waker of its own.
    wakes: OnceLock<Arc<dyn WakeConnections>>,
    members: Mutex<Members<H>>,
}

struct Members<H: Handler> {
    /// By the slot in the loop; or by numbers that are given out here, where there is no loop.
    all: Vec<Option<Member>>,
    /// Numbers given out here that are free again.
    free: Vec<u32>,
    shared: HashMap<u32, Arc<Shared<H>>>,
    broadcasts: Broadcasts<H>,
}

#[derive(Clone, Copy)]
struct Member {
    generation: u16,
    /// The number of the first broadcast that it has not taken, while it takes them.
    next: u32,
    state: State,
    /// It takes broadcasts from the queue: it is open, and shares nothing with a handle.
    takes: bool,
}

impl Member {
    const fn new(generation: u16) -> Self {
        Self { generation, next: 0, state: State::Connecting, takes: false }
    }
}

/// Messages to all, in order, of which at least one connection has not taken each.
struct Broadcasts<H: Handler> {
    queue: VecDeque<Broadcast<H>>,
    /// The number of the first in the queue. Numbers wrap around.
    first: u32,
    /// What the messages in the queue are charged, in bytes.
    bytes: usize,
}

struct Broadcast<H: Handler> {
    message: Prepared,
    filter: Option<Filter<H>>,
    /// Connections that have not taken it.
    left: u32,
}

/// A message in the queue is charged this much beside its payload, so that empty ones are bounded too.
const MESSAGE_COST: usize = 64;

/// A message to all that is due to one connection.
pub(super) struct Due<H: Handler> {
    pub(super) message: Prepared,
    pub(super) filter: Option<Filter<H>>,
    /// The number of the message after it.
    pub(super) next: u32,
    /// The number that the next message to all will have.
    pub(super) end: u32,
}

impl<H: Handler> Registry<H> {
    pub(super) fn new(limits: BacklogLimits) -> Self {
        let broadcasts = Broadcasts { queue: VecDeque::new(), first: 0, bytes: 0 };
        let members =
            Members { all: Vec::new(), free: Vec::new(), shared: HashMap::new(), broadcasts };
        Self { limits, wakes: OnceLock::new(), members: Mutex::new(members) }
    }

    /// Connections are served by a loop, and named by its slots. The first call counts.
    pub(crate) fn use_loop(&self, make: impl FnOnce() -> Arc<dyn WakeConnections>) {
        self.wakes.get_or_init(make);
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
    pub(super) fn register_with_waker(&self, waker: &Waker) -> (u32, Arc<Shared<H>>) {
        let mut members = self.members();
        let index = members.free.pop().unwrap_or_else(|| {
            members.all.push(None);
            (members.all.len() - 1) as u32
        });
        members.all[index as usize] = Some(Member::new(0));
        let shared = Arc::new(Shared::new(waker.clone(), self.limits, State::Connecting));
        members.shared.insert(index, shared.clone());
        (index, shared)
    }

    /// Sets the state of a connection.
    pub(super) fn publish(&self, index: u32, state: State) {
        let mut freed = Vec::new(); // dropped when the lock is released: filters are program code
        let mut members = self.members();
        let Some(member) = members.member(index) else { return };
        member.state = state;
        match members.shared.get(&index) {
            Some(shared) => shared.publish_state(state),
            None => members.set_takes(index, state == State::Open, &mut freed),
        }
    }

    /// Removes a connection that is over. Returns its shared state, which another thread may just have made.
    pub(super) fn deregister(&self, index: u32) -> Option<Arc<Shared<H>>> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        members.set_takes(index, false, &mut freed);
        members.member(index)?;
        members.all[index as usize] = None;
        if self.wakes.get().is_none() {
            members.free.push(index);
        }
        members.shared.remove(&index)
    }

    /// What a connection shares with its handles, made now if there is none.
    pub(super) fn shared(&self, index: u32) -> Arc<Shared<H>> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        match members.member(index).copied() {
            Some(member) => self.make_shared(&mut members, index, member, &mut freed).0,
            None => Arc::new(Shared::gone(self.limits)),
        }
    }

    /// The same, if there is one.
    pub(super) fn present_shared(&self, index: u32) -> Option<Arc<Shared<H>>> {
        self.members().shared.get(&index).cloned()
    }

    /// The next message to all that this connection has not taken.
    pub(super) fn next_broadcast(&self, index: u32) -> Option<Due<H>> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        if members.broadcasts.queue.is_empty() {
            return None;
        }
        let next = members.member(index).filter(|member| member.takes)?.next;
        let at = next.wrapping_sub(members.broadcasts.first) as usize;
        let end = members.broadcasts.end();
        let broadcast = members.broadcasts.queue.get(at)?;
        let (message, filter) = (broadcast.message.clone(), broadcast.filter.clone());
        let taken = next.wrapping_add(1);
        members.broadcasts.take(next, taken, &mut freed);
        members.member(index)?.next = taken;
        Some(Due { message, filter, next: taken, end })
    }

    // For the endpoint.

    /// A handle of this connection, which may be over.
    pub(crate) fn handle(&self, key: Key) -> Handle<H> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        match members.member(key.index).copied() {
            Some(member) if member.generation == key.generation => {
                Handle::new(self.make_shared(&mut members, key.index, member, &mut freed).0)
            }
            _ => Handle::new(Arc::new(Shared::gone(self.limits))),
        }
    }

    /// Handles of all connections that are not over, in no particular order.
    pub(crate) fn handles(&self) -> Vec<Handle<H>> {
        let mut freed = Vec::new(); // as in `publish`
        let mut members = self.members();
        let present: Vec<(u32, Member)> = (0..)
            .zip(&members.all)
            .filter_map(|(index, member)| Some((index, (*member)?)))
            .collect();
        let mut woken = Vec::new();
        let mut handles = Vec::with_capacity(present.len());
        for (index, member) in present {
            let (shared, is_new) = self.make_shared(&mut members, index, member, &mut freed);
            if is_new {
                // The connection adopts it, and says from there how much waits.
                woken.push(Key { index, generation: member.generation });
            }
            handles.push(Handle::new(shared));
        }
        drop(members);
        self.wake(woken);
        handles
    }

    /// Sends to all that are open and whose handler `filter` accepts. Returns how many are open and have
    /// room; the filter is asked when the message is sent.
    pub(crate) fn broadcast(&self, message: &Prepared, filter: Option<Filter<H>>) -> usize {
        let mut members = self.members();
        let shared: Vec<_> = members
            .shared
            .values()
            .filter(|shared| shared.state() == State::Open)
            .cloned()
            .collect();
        let (reached, woken) = self.queue_broadcast(&mut members, message, filter.clone());
        drop(members);
        self.wake(woken);
        let sent = shared
            .into_iter()
            .filter(|shared| Handle::new(shared.clone()).send_filtered(message, filter.clone()));
        reached + sent.count()
    }

    /// Begins to close all connections, or abandons their handshakes. Returns how many.
    pub(crate) fn close_all(&self, code: Option<CloseCode>, reason: &str) -> usize {
        self.handles().iter().filter(|handle| handle.close(code, reason).is_ok()).count()
    }

    /// Payload bytes of messages to all that some connection has not taken.
    #[cfg(test)]
    pub(super) fn broadcast_backlog(&self) -> usize {
        self.members().broadcasts.bytes
    }

    // How it is done.

    /// Queues a message for the connections that share nothing with a handle. Returns how many these are,
    /// and those that have to be woken.
    fn queue_broadcast(
        &self,
        members: &mut Members<H>,
        message: &Prepared,
        filter: Option<Filter<H>>,
    ) -> (usize, Vec<Key>) {
        let len = cost(message);
        // A policy that closes slow connections drops no message.
        let cap = match self.limits.overflow {
            Overflow::Close => usize::MAX,
            Overflow::Error | Overflow::Drop => self.limits.cap,
        };
        if members.broadcasts.is_full(len, cap) {
            return (0, Vec::new());
        }
        let end = members.broadcasts.end();
        let (mut reached, mut woken) = (0, Vec::new());
        let Members { all, broadcasts, .. } = members;
        for (index, member) in (0..).zip(all.iter()) {
            let Some(member) = member.filter(|member| member.takes) else { continue };
            reached += 1;
            if member.next == end {
                woken.push(Key { index, generation: member.generation });
            }
        }
        if reached > 0 {
            let message = message.clone();
            broadcasts.bytes += len;
            broadcasts.queue.push_back(Broadcast { message, filter, left: reached });
        }
        (reached as usize, woken)
    }

    /// What a connection shares with its handles, and whether that was made now. The messages to all
    /// that it has not taken come first in it.
    fn make_shared(
        &self,
        members: &mut Members<H>,
        index: u32,
        member: Member,
        freed: &mut Vec<Broadcast<H>>,
    ) -> (Arc<Shared<H>>, bool) {
        if let Some(shared) = members.shared.get(&index) {
            return (shared.clone(), false);
        }
        let key = Key { index, generation: member.generation };
        let waker =
            self.wakes.get().map_or_else(|| Waker::noop().clone(), |wakes| wakes.waker(key));
        let shared = Arc::new(Shared::new(waker, self.limits, member.state));
        let due = member.takes.then(|| members.broadcasts.from(member.next));
        for broadcast in due.into_iter().flatten() {
            shared.queue(Command::SendPrepared {
                message: broadcast.message.clone(),
                filter: broadcast.filter.clone(),
                completion: None,
            });
        }
        members.set_takes(index, false, freed);
        members.shared.insert(index, shared.clone());
        (shared, true)
    }

    fn wake(&self, keys: Vec<Key>) {
        if keys.is_empty() {
            return;
        }
        if let Some(wakes) = self.wakes.get() {
            wakes.wake(keys);
        }
    }

    /// A panic elsewhere leaves the members as they were.
    fn members(&self) -> MutexGuard<'_, Members<H>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Handler> Members<H> {
    fn member(&mut self, index: u32) -> Option<&mut Member> {
        self.all.get_mut(index as usize)?.as_mut()
    }

    /// Sets whether a connection takes broadcasts from the queue. If it no longer does, the broadcasts that were due
    /// to it are dropped.
    fn set_takes(&mut self, index: u32, takes: bool, freed: &mut Vec<Broadcast<H>>) {
        let Self { all, broadcasts, .. } = self;
        let Some(Some(member)) = all.get_mut(index as usize) else { return };
        let end = broadcasts.end();
        if std::mem::replace(&mut member.takes, takes) {
            if !takes {
                broadcasts.take(member.next, end, freed);
            }
        } else {
            member.next = end;
        }
    }
}

impl<H: Handler> Broadcasts<H> {
    /// The number that the next broadcast will have.
    fn end(&self) -> u32 {
        self.first.wrapping_add(self.queue.len() as u32)
    }

    /// Whether there is no room for a message of `len` bytes.
    fn is_full(&self, len: usize, cap: usize) -> bool {
        self.bytes.saturating_add(len) > cap && !self.queue.is_empty()
    }

    /// Those from number `next` on.
    fn from(&self, next: u32) -> impl Iterator<Item = &Broadcast<H>> {
        self.queue.iter().skip(next.wrapping_sub(self.first) as usize)
    }

    /// One connection has taken those from `from` up to `to`. Messages that all have taken go to `freed`.
    fn take(&mut self, from: u32, to: u32, freed: &mut Vec<Broadcast<H>>) {
        let start = from.wrapping_sub(self.first) as usize;
        let end = (to.wrapping_sub(self.first) as usize).min(self.queue.len());
        for broadcast in self.queue.range_mut(start.min(end)..end) {
            broadcast.left = broadcast.left.saturating_sub(1);
        }
        while self.queue.front().is_some_and(|first| first.left == 0) {
            if let Some(first) = self.queue.pop_front() {
                self.bytes -= cost(&first.message);
                self.first = self.first.wrapping_add(1);
                freed.push(first);
            }
        }
    }
}

/// What a message in the queue is charged, in bytes.
fn cost(message: &Prepared) -> usize {
    message.message().as_bytes().len() + MESSAGE_COST
}
