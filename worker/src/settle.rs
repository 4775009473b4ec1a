//! Settling: from transactions that end in any order to one acknowledgement that covers all before it.
//!
//! In: the runs of deliveries that transactions hold, in the order in which they were taken, and which of them is done.
//! Out: the last delivery up to which everything is done. A broker works off one acknowledgement of many much faster than
//! many of one, but it must never cover a delivery whose transaction is still open.

use std::collections::VecDeque;

use service::source::Token;

/// Names a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run(u64);

/// The runs that are not acknowledged yet.
#[derive(Debug, Default)]
pub struct Settlement {
    open: VecDeque<Open>,
    begun: u64,
}

#[derive(Debug)]
struct Open {
    /// The last delivery of the run that is to be acknowledged; none where all were rejected one by one.
    last: Option<Token>,
    done: bool,
}

impl Settlement {
    /// A run begins. `last` is its last delivery that was not rejected.
    pub fn begin(&mut self, last: Option<Token>) -> Run {
        self.open.push_back(Open { last, done: false });
        self.begun += 1;
        Run(self.begun - 1)
    }

    /// A run is done. Returns what can be acknowledged now, itself and everything before it; never the same twice.
    pub fn done(&mut self, run: Run) -> Option<Token> {
        let first = self.begun - self.open.len() as u64;
        let index = run
            .0
            .checked_sub(first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(open) = index.and_then(|index| self.open.get_mut(index)) {
            open.done = true;
        }
        let mut through = None;
        while self.open.front().is_some_and(|open| open.done) {
            through = self.open.pop_front().and_then(|open| open.last).or(through);
        }
        through
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(tag: u64) -> Option<Token> {
        Some(Token { generation: 1, tag })
    }

    #[test]
    fn nothing_is_acknowledged_before_what_came_before_it() {
        let mut settlement = Settlement::default();
        let (a, b, c) = (
            settlement.begin(token(10)),
            settlement.begin(token(20)),
            settlement.begin(token(30)),
        );
        assert_eq!(settlement.done(b), None);
        assert_eq!(settlement.done(a), token(20));
        assert_eq!(settlement.done(c), token(30));
        let d = settlement.begin(token(40));
        assert_eq!(settlement.done(d), token(40));
    }

    #[test]
    fn a_run_of_poison_alone_is_acknowledged_by_nobody() {
        let mut settlement = Settlement::default();
        let (a, b) = (settlement.begin(token(10)), settlement.begin(None));
        assert_eq!(settlement.done(b), None);
        assert_eq!(settlement.done(a), token(10));
        let c = settlement.begin(None);
        assert_eq!(settlement.done(c), None);
    }
}
