//! The requests of one thread in the order of their scheduled times.

use std::time::Duration;

use super::Partition;
use crate::scenario::Mode;
use crate::traffic::Traffic;

/// Two sequences of requests, merged by their scheduled times: those of online devices, and those
/// that offline devices send after their outage.
pub(super) struct RequestQueue {
    partition: Partition,
    online: u64,
    offline: u64,
    offline_end: u64,
}

impl RequestQueue {
    pub(super) fn new(traffic: &Traffic, partition: Partition) -> Self {
        let outage = traffic.outage_requests();
        // The first request of this thread within the outage.
        let to_own = (partition.thread + partition.threads - outage.start % partition.threads)
            % partition.threads;
        Self {
            partition,
            online: partition.thread,
            offline: outage.start + to_own,
            offline_end: outage.end,
        }
    }

    /// Removes the next request and returns its number and when it is due, in time since the start;
    /// none if the schedule is at its end. The requests of a closed loop have no end, and are due
    /// at once.
    pub(super) fn pop(&mut self, traffic: &Traffic) -> Option<(u64, Duration)> {
        let step = self.partition.threads;
        if traffic.scenario().mode == Mode::Closed {
            let request = self.online;
            self.online += step;
            return Some((request, Duration::ZERO));
        }
        while self.online < traffic.requests() && traffic.is_offline(self.online) {
            self.online += step;
        }
        while self.offline < self.offline_end && !traffic.is_offline(self.offline) {
            self.offline += step;
        }
        let online = (self.online < traffic.requests()).then(|| traffic.due(self.online));
        let offline = (self.offline < self.offline_end).then(|| traffic.due(self.offline));
        let (next, due) = match (online, offline) {
            (Some(online), Some(offline)) if offline < online => (&mut self.offline, offline),
            (Some(online), _) => (&mut self.online, online),
            (None, Some(offline)) => (&mut self.offline, offline),
            (None, None) => return None,
        };
        let request = *next;
        *next += step;
        Some((request, Duration::from_secs_f64(due)))
    }
}
