//! How often a user may ask. Media and artwork don't count; questions do.
//!
//! A window of fixed length from the first question on, as clients know it: so many in it, then 429 until it is over.
//= legacy-relay-wire s.3.3

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use phlix_protocol::ids::UserId;

use crate::uplink::directory::Digest;

/// Askers remembered at once. When there are more, those whose window is over are forgotten, then anybody.
const MOST: usize = 10_000;

/// Who asks, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Asker {
    User(UserId),
    /// By a credential that nobody has vouched for yet.
    Stranger(Digest),
}

/// Questions of each asker.
pub(crate) struct Allowance {
    /// In one window; 0: no limit.
    most: u32,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    windows: HashMap<Asker, Window>,
    /// Whose credential it turned out to be.
    known: HashMap<Digest, UserId>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    asked: u32,
}

impl Allowance {
    pub(crate) fn new(most: u32, window: Duration) -> Self {
        Self { most, window, state: Mutex::default() }
    }

    /// One more question; how long to wait if it is one too many.
    pub(crate) fn ask(&self, asker: Asker, now: Instant) -> Result<(), Duration> {
        if self.most == 0 {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |window: &Window| now.saturating_duration_since(window.since) >= self.window;
        make_room(&mut state.windows, |window| over(window));
        let window = state.windows.entry(asker).or_insert(Window { since: now, asked: 0 });
        if over(window) {
            *window = Window { since: now, asked: 0 };
        }
        if window.asked >= self.most {
            return Err(self.window.saturating_sub(now.saturating_duration_since(window.since)));
        }
        window.asked += 1;
        Ok(())
    }

    /// Whose a credential is, as far as it was ever exchanged here.
    pub(crate) fn asker(&self, credential: Digest) -> Asker {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.known.get(&credential).map_or(Asker::Stranger(credential), |user| Asker::User(*user))
    }

    /// A credential turned out to be this user's; what was `asked` by it just now counts as theirs.
    pub(crate) fn introduce(
        &self,
        credential: Digest,
        user: UserId,
        asked: bool,
        now: Instant,
    ) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.windows.remove(&Asker::Stranger(credential));
        make_room(&mut state.known, |_| false);
        state.known.insert(credential, user);
        drop(state);
        if asked { self.ask(Asker::User(user), now) } else { Ok(()) }
    }
}

/// Before one more goes in.
fn make_room<K: Hash + Eq + Copy, V>(map: &mut HashMap<K, V>, is_over: impl Fn(&V) -> bool) {
    if map.len() < MOST {
        return;
    }
    map.retain(|_, value| !is_over(value));
    if map.len() >= MOST
        && let Some(victim) = map.keys().next().copied()
    {
        map.remove(&victim);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn user(n: u128) -> Asker {
        Asker::User(UserId::new(uuid::Uuid::from_u128(n)))
    }

    #[test]
    fn so_many_in_a_window_and_the_next_when_it_is_over() {
        let allowance = Allowance::new(3, MINUTE);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..3 {
            assert_eq!(allowance.ask(user(1), at(second)), Ok(()));
        }
        assert_eq!(allowance.ask(user(1), at(10)), Err(Duration::from_secs(50)));
        assert_eq!(allowance.ask(user(2), at(10)), Ok(()), "somebody else");
        assert_eq!(allowance.ask(user(1), at(59)), Err(Duration::from_secs(1)));
        assert_eq!(allowance.ask(user(1), at(60)), Ok(()));
    }

    #[test]
    fn no_limit_is_none() {
        let allowance = Allowance::new(0, MINUTE);
        let now = Instant::now();
        assert!((0..10_000).all(|_| allowance.ask(user(1), now).is_ok()));
    }

    #[test]
    fn all_of_a_users_credentials_share_one_allowance() {
        let allowance = Allowance::new(2, MINUTE);
        let now = Instant::now();
        let Asker::User(me) = user(1) else { unreachable!() };
        let (phone, tv) = ([1; 32], [2; 32]);
        assert_eq!(allowance.asker(phone), Asker::Stranger(phone));
        assert_eq!(allowance.introduce(phone, me, true, now), Ok(()));
        assert_eq!(allowance.asker(phone), user(1));
        assert_eq!(allowance.introduce(tv, me, true, now), Ok(()));
        assert_eq!(allowance.ask(allowance.asker(tv), now), Err(MINUTE));
    }

    #[test]
    fn a_stranger_who_asks_for_what_is_not_there_is_counted_too() {
        let allowance = Allowance::new(2, MINUTE);
        let now = Instant::now();
        let nobody = Asker::Stranger([3; 32]);
        assert!(allowance.ask(nobody, now).is_ok() && allowance.ask(nobody, now).is_ok());
        assert_eq!(allowance.ask(nobody, now), Err(MINUTE));
    }

    #[test]
    fn the_book_does_not_grow_for_ever() {
        let allowance = Allowance::new(2, MINUTE);
        let now = Instant::now();
        for n in 0..(MOST as u128 + 50) {
            assert!(allowance.ask(user(n), now).is_ok());
        }
        assert!(allowance.state.lock().unwrap().windows.len() <= MOST);
    }
}
