//! Tracks which deliveries can be acknowledged.
//!
//! In: transactions in the order in which their deliveries were received, and in any order the news
//! that one is committed. Out: the last delivery up to which everything is committed. A broker
//! processes one acknowledgement of many deliveries much faster than many of one, but it must not
//! cover a delivery whose transaction is still open.

use std::collections::VecDeque;

use transport::DeliveryTag;

/// Identifies a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TransactionId(u64);

/// The transactions that are not acknowledged yet.
#[derive(Debug, Default)]
pub(crate) struct AckTracker {
    open: VecDeque<OpenTransaction>,
    begun: u64,
}

#[derive(Debug)]
struct OpenTransaction {
    /// Its last delivery that has to be acknowledged; `None` if all were rejected one by one.
    last: Option<DeliveryTag>,
    committed: bool,
}

impl AckTracker {
    /// Adds a transaction. `last` is its last delivery that was not rejected.
    pub(crate) fn begin(&mut self, last: Option<DeliveryTag>) -> TransactionId {
        self.open.push_back(OpenTransaction {
            last,
            committed: false,
        });
        self.begun += 1;
        TransactionId(self.begun - 1)
    }

    /// Marks a transaction as committed. Returns the delivery up to which everything can be
    /// acknowledged now, if there is a new one.
    pub(crate) fn commit(&mut self, transaction: TransactionId) -> Option<DeliveryTag> {
        let first = self.begun - self.open.len() as u64;
        let index = transaction
            .0
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(open) = index.and_then(|index| self.open.get_mut(index)) {
            open.committed = true;
        }
        let mut through = None;
        while self.open.front().is_some_and(|open| open.committed) {
            through = self.open.pop_front().and_then(|open| open.last).or(through);
        }
        through
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(tag: u64) -> Option<DeliveryTag> {
        Some(DeliveryTag { generation: 1, tag })
    }

    #[test]
    fn a_delivery_is_acknowledged_only_with_everything_before_it() {
        let mut tracker = AckTracker::default();
        let a = tracker.begin(tag(10));
        let b = tracker.begin(tag(20));
        let c = tracker.begin(tag(30));
        assert_eq!(tracker.commit(b), None);
        assert_eq!(tracker.commit(a), tag(20));
        assert_eq!(tracker.commit(c), tag(30));
        let d = tracker.begin(tag(40));
        assert_eq!(tracker.commit(d), tag(40));
    }

    #[test]
    fn a_transaction_of_poison_messages_alone_acknowledges_nothing() {
        let mut tracker = AckTracker::default();
        let (a, b) = (tracker.begin(tag(10)), tracker.begin(None));
        assert_eq!(tracker.commit(b), None);
        assert_eq!(tracker.commit(a), tag(10));
        let c = tracker.begin(None);
        assert_eq!(tracker.commit(c), None);
    }
}
