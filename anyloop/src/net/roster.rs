//! The connections of an endpoint, by their place in the loop.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use anyloop_proto::State;

use crate::endpoint::{self, BacklogLimits, Handle, Handler, Seat};
use crate::event_loop::{Remote, Token, waker};
use crate::sync::unmodelled::{Mutex, MutexGuard};

/// The connections of an endpoint, by their place in the loop. A connection costs four bytes here, and
/// has a seat only if somebody wants to reach it.
pub(super) struct Roster<H: Handler> {
    remote: Arc<Remote>,
    limits: BacklogLimits,
    members: Mutex<Members<H>>,
}

struct Members<H: Handler> {
    /// By the slot; absent where the slot has another source.
    all: Vec<Option<Member>>,
    seats: HashMap<u32, Arc<Seat<H>>>,
}

#[derive(Clone, Copy)]
struct Member {
    generation: u16,
    state: State,
}

impl<H: Handler> Roster<H> {
    pub(super) fn new(remote: Arc<Remote>, limits: BacklogLimits) -> Self {
        let members = Members { all: Vec::new(), seats: HashMap::new() };
        Self { remote, limits, members: Mutex::new(members) }
    }

    /// A panic elsewhere leaves the members as they were.
    fn members(&self) -> MutexGuard<'_, Members<H>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Handler> Drop for Roster<H> {
    /// The loop is gone: who has a handle learns that the connection is.
    fn drop(&mut self) {
        for seat in self.members().seats.values() {
            seat.leave();
        }
    }
}

impl<H: Handler> Members<H> {
    fn member(&mut self, token: Token) -> Option<&mut Member> {
        let member = self.all.get_mut(token.index as usize)?.as_mut()?;
        (member.generation == token.generation).then_some(member)
    }

    fn seat(
        &mut self,
        index: u32,
        member: Member,
        remote: &Arc<Remote>,
        limits: BacklogLimits,
    ) -> Arc<Seat<H>> {
        let make = || {
            let token = Token { index, generation: member.generation };
            Arc::new(Seat::new(waker(remote, token), limits, member.state))
        };
        self.seats.entry(index).or_insert_with(make).clone()
    }
}

impl<H: Handler> endpoint::Roster<H> for Roster<H> {
    fn enter(&self, key: u64) {
        let token = Token::from_number(key as usize);
        let mut members = self.members();
        let index = token.index as usize;
        if members.all.len() <= index {
            members.all.resize(index + 1, None);
        }
        let member = Member { generation: token.generation, state: State::Connecting };
        members.all[index] = Some(member);
        let former = members.seats.remove(&token.index);
        drop(members);
        debug_assert!(former.is_none(), "who leaves takes the seat along");
    }

    fn handles(&self) -> Vec<Handle<H>> {
        let mut members = self.members();
        let there = members.all.iter().enumerate();
        let there: Vec<_> =
            there.filter_map(|(index, member)| Some((index as u32, (*member)?))).collect();
        let seats = there.into_iter().map(|(index, member)| {
            if !members.seats.contains_key(&index) {
                // It takes its seat, and says from there how it is.
                self.remote.wake(Token { index, generation: member.generation });
            }
            Handle::new(members.seat(index, member, &self.remote, self.limits))
        });
        seats.collect()
    }

    fn seat(&self, key: u64) -> Arc<Seat<H>> {
        let token = Token::from_number(key as usize);
        let mut members = self.members();
        match members.member(token).copied() {
            Some(member) => members.seat(token.index, member, &self.remote, self.limits),
            // It is over: a seat that nobody else will have.
            None => Arc::new(Seat::new(waker(&self.remote, token), self.limits, State::Ended)),
        }
    }

    fn publish(&self, key: u64, state: State) {
        let token = Token::from_number(key as usize);
        let mut members = self.members();
        let Some(member) = members.member(token) else { return };
        member.state = state;
        if let Some(seat) = members.seats.get(&token.index) {
            seat.publish_state(state);
        }
        if state == State::Ended {
            members.all[token.index as usize] = None;
            let seat = members.seats.remove(&token.index);
            drop(members);
            // It may never have been adopted, and who has sent to it must learn that it is over.
            if let Some(seat) = seat {
                seat.leave();
            }
        }
    }
}
