//! What became of the messages of a person: which were not sent, and which may be lost.

use std::collections::BTreeMap;

use super::print::count;

/// Characters of a message that are shown where it is named.
const MAX_SHOWN: usize = 60;

/// The messages of a person that may not have reached the server.
#[derive(Default)]
pub(super) struct Outbox {
    /// The screen shows it as sent, and it was not passed to a connection yet.
    accepted: Option<String>,
    /// Those that were passed to a connection, by their numbers, until its transport has taken them.
    queued: BTreeMap<u64, String>,
    /// The number of the next one.
    next: u64,
    /// Those that no transport will take.
    unsent: Messages,
    /// Those that a transport has taken since something has last arrived.
    unanswered: Messages,
}

/// Several messages, of which the first is named.
#[derive(Default)]
struct Messages {
    first: Option<String>,
    count: u64,
}

impl Outbox {
    /// The screen shows a message as sent.
    pub(super) fn accept(&mut self, text: &str) {
        self.accepted = Some(beginning(text));
    }

    /// The message that was accepted is not sent, and the person was told.
    pub(super) fn withdraw(&mut self) {
        self.accepted = None;
    }

    /// A message is passed to a connection. Returns its number.
    pub(super) fn queue(&mut self, text: &str) -> u64 {
        let shown = self.accepted.take().unwrap_or_else(|| beginning(text));
        let number = self.next;
        self.next += 1;
        self.queued.insert(number, shown);
        number
    }

    /// The transport has taken the message with this number, or will not take it.
    pub(super) fn resolve(&mut self, number: u64, is_sent: bool) {
        let Some(shown) = self.queued.remove(&number) else { return };
        match is_sent {
            true => self.unanswered.add(shown),
            false => self.unsent.add(shown),
        }
    }

    /// Something has arrived. What was sent before is not lost, as far as a person sees.
    pub(super) fn heard(&mut self) {
        self.unanswered = Messages::default();
    }

    /// No transport will take what is left: the command ends.
    pub(super) fn end(&mut self) {
        let queued = std::mem::take(&mut self.queued).into_values();
        queued.chain(self.accepted.take()).for_each(|shown| self.unsent.add(shown));
    }

    /// A sentence about the messages that were not sent. Later calls do not name them again.
    pub(super) fn take_unsent(&mut self) -> Option<String> {
        std::mem::take(&mut self.unsent)
            .sentence(|what, were, _| format!("the connection ended before {what} {were} sent"))
    }

    /// As [`take_unsent`](Self::take_unsent), for those that may be lost with a connection that has ended.
    pub(super) fn take_unanswered(&mut self) -> Option<String> {
        std::mem::take(&mut self.unanswered).sentence(|what, were, they| {
            format!("nothing has arrived since {what} {were} sent, so {they} may be lost")
        })
    }
}

impl Messages {
    fn add(&mut self, shown: String) {
        self.first.get_or_insert(shown);
        self.count += 1;
    }

    /// A sentence that names the first of them. `text` has the words for them, for "was", and for "it".
    fn sentence(self, text: impl FnOnce(&str, &str, &str) -> String) -> Option<String> {
        let first = self.first?;
        Some(match self.count {
            1 => format!("{}: {first}", text("this message", "was", "it")),
            n => format!("{}; the first: {first}", text(&count(n, "message"), "were", "they")),
        })
    }
}

/// The beginning of a message, in one line.
fn beginning(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let end = line.char_indices().nth(MAX_SHOWN).map_or(line.len(), |(end, _)| end);
    let more = if end < text.len() { " ..." } else { "" };
    format!("{}{more}", &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_message_that_is_not_sent_is_reported_once() {
        let mut outbox = Outbox::default();
        let numbers = ["one", "two", "three"].map(|text| outbox.queue(text));
        outbox.resolve(numbers[0], true);
        outbox.resolve(numbers[1], false);
        outbox.accept("four");
        assert_eq!(
            outbox.take_unsent().as_deref(),
            Some("the connection ended before this message was sent: two")
        );
        assert_eq!(outbox.take_unsent(), None);
        outbox.end();
        assert_eq!(
            outbox.take_unsent().as_deref(),
            Some("the connection ended before 2 messages were sent; the first: three")
        );
        outbox.resolve(numbers[2], false);
        assert_eq!(outbox.take_unsent(), None);
    }

    #[test]
    fn what_was_sent_before_something_arrived_is_not_reported() {
        let mut outbox = Outbox::default();
        let send = |outbox: &mut Outbox, text| {
            outbox.accept(text);
            let number = outbox.queue(text);
            outbox.resolve(number, true);
        };
        send(&mut outbox, "one");
        outbox.heard();
        assert_eq!(outbox.take_unanswered(), None);
        send(&mut outbox, "two");
        send(&mut outbox, "three");
        assert_eq!(
            outbox.take_unanswered().as_deref(),
            Some(
                "nothing has arrived since 2 messages were sent, so they may be lost; the first: two"
            )
        );
        outbox.accept("four");
        outbox.withdraw();
        outbox.end();
        assert_eq!((outbox.take_unsent(), outbox.take_unanswered()), (None, None));
    }

    #[test]
    fn a_long_message_is_named_by_its_beginning() {
        let long = "κ".repeat(MAX_SHOWN);
        assert_eq!(beginning(&long), long);
        assert_eq!(beginning(&format!("{long}x")), format!("{long} ..."));
        assert_eq!(beginning("two\nlines"), "two ...");
        assert_eq!(beginning(""), "");
    }
}
