//! Sessions of browsers: a random cookie for a token that was shown once. They live in
//! memory: a restart of the server logs everybody out. A session is as good as its token,
//! which is looked up anew with every request, so that a revoked one ends its sessions too.

use std::{
    collections::HashMap,
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::secret::{Digest, Secret};

/// Name of the cookie.
pub const COOKIE: &str = "everflame_session";
/// Seconds that a session lasts.
pub const SESSION_SECONDS: i64 = 12 * 3_600;
/// Sessions at once; beyond it the oldest ends.
pub const MAX_SESSIONS: usize = 10_000;

#[derive(Debug, Clone, Copy)]
struct Session {
    token: Digest,
    ends: i64,
}

/// The sessions that are open.
#[derive(Debug, Default)]
pub struct Sessions {
    /// By the digest of the cookie: who reads this memory cannot come in by it.
    open: Mutex<HashMap<String, Session>>,
    /// Sessions that ended early, since there were too many.
    pub evicted: AtomicU64,
}

impl Sessions {
    /// Opens one for a token; the cookie's value.
    pub fn open(&self, token: Digest, now: i64) -> io::Result<Secret> {
        let cookie = Secret::random("")?;
        let mut open = self.lock();
        open.retain(|_, session| session.ends > now);
        if open.len() >= MAX_SESSIONS {
            let oldest = open.iter().min_by_key(|(_, session)| session.ends).map(|(key, _)| key.clone());
            oldest.map(|key| open.remove(&key));
            self.evicted.fetch_add(1, Ordering::Relaxed);
        }
        let ends = now.saturating_add(SESSION_SECONDS);
        open.insert(cookie.digest().to_hexadecimal(), Session { token, ends });
        Ok(cookie)
    }

    /// The token of a session, by the cookie's digest.
    pub fn token(&self, cookie: Digest, now: i64) -> Option<Digest> {
        self.lock().get(&cookie.to_hexadecimal()).filter(|session| session.ends > now).map(|session| session.token)
    }

    /// Ends a session.
    pub fn close(&self, cookie: Digest) {
        self.lock().remove(&cookie.to_hexadecimal());
    }

    /// Sessions that are open.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_by_time_by_hand_and_by_number() {
        let (sessions, token) = (Sessions::default(), Digest::of("token"));
        let cookie = sessions.open(token, 100).expect("a session").digest();
        assert_eq!(sessions.token(cookie, 100), Some(token));
        assert_eq!(sessions.token(Digest::of("another"), 100), None);
        assert_eq!(sessions.token(cookie, 100 + SESSION_SECONDS), None);
        sessions.close(cookie);
        assert_eq!(sessions.token(cookie, 100), None);
        let first = sessions.open(token, 100).expect("a session").digest();
        for _ in 0..MAX_SESSIONS {
            sessions.open(token, 101).expect("a session");
        }
        assert_eq!((sessions.len(), sessions.evicted.load(Ordering::Relaxed)), (MAX_SESSIONS, 1));
        assert_eq!(sessions.token(first, 102), None, "the oldest went");
    }
}
