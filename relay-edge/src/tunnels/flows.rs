//! Answers under way in one tunnel, and which of them must go when viewers who don't read hold the tunnel's credit.
//!
//! What a viewer has not read stays in its stream's window and counts against the connection's. Enough of them, and
//! nobody's bytes come through. So before they hold most of it, those that have not read for longest are reset: a player
//! that comes back resumes by Range.
//= native-tunnel s.1

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phlix_protocol::native::stream::ResetCode;

use super::activity::Activity;
use super::leg::Flow;

/// A viewer who has taken nothing for so long doesn't read. Slow ones do, in steps: half a megabyte of buffers on a line of
/// 2 Mbit/s is a step of 2 s.
const UNREAD: Duration = Duration::from_secs(2);

/// The list.
pub(super) struct Flows {
    state: Arc<Mutex<State>>,
    /// Unread answers that are borne.
    bearable: usize,
}

#[derive(Default)]
struct State {
    next: u64,
    flows: HashMap<u64, (Arc<Activity>, Flow)>,
}

/// An answer that is listed until this is dropped.
pub(super) struct Listed {
    state: Arc<Mutex<State>>,
    number: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let flow = lock(&self.state).flows.remove(&self.number);
        drop(flow);
    }
}

impl Flows {
    /// For a connection that bears so many unread answers.
    pub(super) fn new(bearable: usize) -> Self {
        Self { state: Arc::default(), bearable }
    }

    pub(super) fn list(&self, activity: Arc<Activity>, flow: Flow) -> Listed {
        let mut state = lock(&self.state);
        let number = state.next;
        state.next += 1;
        state.flows.insert(number, (activity, flow));
        drop(state);
        Listed { state: Arc::clone(&self.state), number }
    }

    /// Resets the answers that have been unread for longest where they are too many; says how many.
    pub(super) fn relieve(&self, now: Instant) -> usize {
        let mut unread: Vec<(Instant, Arc<Activity>, Flow)> = lock(&self.state)
            .flows
            .values()
            .filter_map(|(activity, flow)| {
                let since = activity.unread_since()?;
                let doesnt_read = now.saturating_duration_since(since) >= UNREAD && !activity.is_cut();
                doesnt_read.then(|| (since, Arc::clone(activity), flow.clone()))
            })
            .collect();
        let surplus = unread.len().saturating_sub(self.bearable);
        unread.sort_unstable_by_key(|(since, ..)| *since);
        for (_, activity, flow) in unread.drain(..surplus) {
            activity.cut(ResetCode::Stalled);
            flow.stop();
        }
        surplus
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_have_not_read_for_longest_give_way_and_those_who_wait_do_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let flows = Flows::new(3);
        let mut listed = Vec::new();
        let activities: Vec<_> = (0..5)
            .map(|number| {
                let activity = Arc::new(Activity::new(start));
                activity.touch(at(number));
                listed.push(flows.list(Arc::clone(&activity), Flow::none()));
                activity
            })
            .collect();
        activities[0].set_awaiting_origin(true);
        assert_eq!(flows.relieve(at(5)), 0, "the last one read a moment ago");
        assert_eq!(flows.relieve(at(60)), 1);
        let cut: Vec<bool> = activities.iter().map(|activity| activity.is_cut()).collect();
        assert_eq!(cut, [false, true, false, false, false]);
        assert_eq!(flows.relieve(at(60)), 0);
        drop(listed);
        assert!(lock(&flows.state).flows.is_empty());
    }
}
