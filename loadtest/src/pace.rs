//! Waiting for the moment of a send, to fifty microseconds. The runtime's own timer has a resolution of a millisecond.
//!
//! In: moments, in ascending order from each task that waits. Out: a task is woken at its moment. One timer of the kernel
//! serves all tasks of a thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

/// Least time for which the timer is set. Sends that are closer together share an alarm: at 80,000 a second one each would
/// take all of the thread's time, and they would be later for it (0.2 ms at the median instead of 0.1).
const APART: Duration = Duration::from_micros(50);

/// See the module. Clones share the timer; it belongs to one thread.
#[derive(Debug, Clone)]
pub struct Pace {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    timer: AsyncFd<OwnedFd>,
    waiting: Mutex<BinaryHeap<Reverse<Waiting>>>,
    /// There is a moment before every other.
    earlier: Notify,
}

#[derive(Debug)]
struct Waiting {
    moment: Instant,
    waker: Waker,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.moment == other.moment
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.moment.cmp(&other.moment)
    }
}

impl Pace {
    /// A timer, on a runtime of one thread.
    ///
    /// # Errors
    /// The kernel has none.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for handles that lie about what they own; this one owns it"
        )]
        let timer = AsyncFd::new(timer)?;
        let shared = Shared {
            timer,
            waiting: Mutex::default(),
            earlier: Notify::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Waits for a moment.
    pub async fn until(&self, moment: Instant) {
        let mut is_first_poll = true;
        poll_fn(|context| {
            if moment <= Instant::now() {
                return Poll::Ready(());
            }
            if std::mem::take(&mut is_first_poll) {
                let mut waiting = self.shared.waiting();
                let is_earlier = waiting
                    .peek()
                    .is_none_or(|Reverse(first)| moment < first.moment);
                waiting.push(Reverse(Waiting {
                    moment,
                    waker: context.waker().clone(),
                }));
                if is_earlier {
                    self.shared.earlier.notify_one();
                }
            }
            Poll::Pending
        })
        .await;
    }

    /// Wakes who waits, for ever.
    ///
    /// # Errors
    /// The timer fails.
    pub async fn run(&self) -> io::Result<()> {
        loop {
            let first = self
                .shared
                .waiting()
                .peek()
                .map(|Reverse(first)| first.moment);
            let Some(first) = first else {
                self.shared.earlier.notified().await;
                continue;
            };
            let left = first.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                let left = left.max(APART);
                let value = Timespec {
                    tv_sec: left.as_secs() as i64,
                    tv_nsec: i64::from(left.subsec_nanos()),
                };
                let once = Itimerspec {
                    it_interval: Timespec::default(),
                    it_value: value,
                };
                rustix::time::timerfd_settime(
                    self.shared.timer.get_ref(),
                    TimerfdTimerFlags::empty(),
                    &once,
                )?;
                tokio::select! {
                    fired = self.shared.timer.readable() => {
                        let mut expirations = [0; 8];
                        let _ = fired?.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut expirations)?));
                    }
                    () = self.shared.earlier.notified() => {}
                }
            }
            let now = Instant::now();
            let mut waiting = self.shared.waiting();
            while waiting
                .peek()
                .is_some_and(|Reverse(first)| first.moment <= now)
            {
                if let Some(Reverse(due)) = waiting.pop() {
                    due.waker.wake();
                }
            }
        }
    }
}
