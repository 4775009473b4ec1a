//! A timer with a resolution of fifty microseconds. The runtime's own timer has a resolution of a
//! millisecond.
//!
//! In: instants, from the tasks that wait for them. Out: each task is woken at its instant. All
//! tasks of a thread share one timer of the kernel. If the timer fails, [`Timer::run`] returns the
//! error and no task is woken any more.

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

/// The shortest time for which the timer is set. Tasks whose instants are closer together are woken
/// together: at 80,000 sends per second, an alarm for each would use the whole thread, and sends
/// would be later (0.2 ms at the median instead of 0.1 ms).
const RESOLUTION: Duration = Duration::from_micros(50);

/// See the module. Clones share the timer, which belongs to one thread.
#[derive(Debug, Clone)]
pub(crate) struct Timer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    timer: AsyncFd<OwnedFd>,
    waiting: Mutex<BinaryHeap<Reverse<Waiting>>>,
    /// Notified when a task waits for an earlier instant than all others.
    earlier: Notify,
}

#[derive(Debug)]
struct Waiting {
    instant: Instant,
    waker: Waker,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, BinaryHeap<Reverse<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Option<Instant> {
        self.waiting().peek().map(|Reverse(first)| first.instant)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.instant == other.instant
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
        self.instant.cmp(&other.instant)
    }
}

impl Timer {
    /// Creates a timer on a runtime with one thread.
    ///
    /// # Errors
    /// The kernel cannot create a timer.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "the replacement is unsafe, for handles that do not own their descriptor"
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

    /// Waits until an instant. [`Timer::run`] has to run meanwhile.
    pub(crate) async fn sleep_until(&self, instant: Instant) {
        let mut is_first_poll = true;
        poll_fn(|context| {
            if instant <= Instant::now() {
                return Poll::Ready(());
            }
            if std::mem::take(&mut is_first_poll) {
                let mut waiting = self.shared.waiting();
                let is_earlier = waiting
                    .peek()
                    .is_none_or(|Reverse(first)| instant < first.instant);
                waiting.push(Reverse(Waiting {
                    instant,
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

    /// Wakes the waiting tasks at their instants. Returns only on an error.
    ///
    /// # Errors
    /// The kernel's timer fails.
    pub(crate) async fn run(&self) -> io::Result<()> {
        loop {
            let Some(first) = self.shared.first() else {
                self.shared.earlier.notified().await;
                continue;
            };
            let left = first.saturating_duration_since(Instant::now());
            if !left.is_zero() {
                self.set_alarm(left.max(RESOLUTION))?;
                tokio::select! {
                    alarm = self.shared.timer.readable() => {
                        let mut expirations = [0; 8];
                        let _ = alarm?.try_io(|timer| {
                            Ok(rustix::io::read(timer.get_ref(), &mut expirations)?)
                        });
                    }
                    () = self.shared.earlier.notified() => {}
                }
            }
            self.wake_due();
        }
    }

    fn set_alarm(&self, after: Duration) -> io::Result<()> {
        let alarm = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: after.as_secs() as i64,
                tv_nsec: i64::from(after.subsec_nanos()),
            },
        };
        let timer = self.shared.timer.get_ref();
        rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &alarm)?;
        Ok(())
    }

    fn wake_due(&self) {
        let now = Instant::now();
        let mut waiting = self.shared.waiting();
        while waiting
            .peek()
            .is_some_and(|Reverse(first)| first.instant <= now)
        {
            if let Some(Reverse(due)) = waiting.pop() {
                due.waker.wake();
            }
        }
    }
}
