//! The tokens of a running server: those of its file, as it is at each request, so that
//! what was revoked is refused from then on, whoever revoked it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::{
    file::{Stamp, TokenFile},
    secret::{Digest, Secret},
    token::{self, Token, TokenError, Wanted},
};

/// Seconds between two notes of when tokens were used.
const USE_RESOLUTION: i64 = 60;

#[derive(Debug, Default)]
struct Known {
    stamp: Option<Stamp>,
    tokens: Arc<Vec<Token>>,
    /// When each was used, as far as it is not in the file.
    used: HashMap<String, i64>,
    noted: i64,
}

/// Tokens by their digest.
#[derive(Debug)]
pub struct Tokens {
    file: TokenFile,
    known: Mutex<Known>,
    /// Whether there ever was a file: then it is wanted for good, and without it nobody is
    /// let in.
    wanted: AtomicBool,
    /// Times that the file could not be read; what was known before holds on.
    pub unreadable: AtomicU64,
}

impl Tokens {
    /// Reads the file, where there is one.
    pub fn open(file: TokenFile) -> Result<Self, TokenError> {
        let known = Known { stamp: file.stamp(), tokens: Arc::new(file.read()?), ..Known::default() };
        let wanted = AtomicBool::new(known.stamp.is_some());
        Ok(Self { file, known: Mutex::new(known), wanted, unreadable: AtomicU64::new(0) })
    }

    /// Whether callers have to show one.
    pub fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) || {
            drop(self.current());
            self.wanted.load(Ordering::Relaxed)
        }
    }

    /// The token of a digest, if it is good now.
    pub fn find(&self, digest: Digest, now: i64) -> Option<Token> {
        let mut known = self.current();
        let found = token::find(&known.tokens, digest).filter(|token| !token.has_expired(now)).cloned()?;
        known.used.insert(found.id.clone(), now);
        Some(found)
    }

    /// All of them, the newest last.
    pub fn list(&self) -> Vec<Token> {
        let known = self.current();
        let mut tokens = known.tokens.as_ref().clone();
        note(&mut tokens, &known.used);
        tokens
    }

    /// Makes one. Blocks.
    pub fn create(&self, wanted: Wanted, now: i64) -> Result<(Token, Secret), TokenError> {
        let (token, secret) = wanted.make(now)?;
        self.file.change(|tokens| token::add(tokens, token.clone(), now))?;
        Ok((token, secret))
    }

    /// Makes a successor. Blocks.
    pub fn rotate(&self, id: &str, overlap_s: i64, now: i64) -> Result<(Token, Secret), TokenError> {
        self.file.change(|tokens| token::rotate(tokens, id, overlap_s, now))
    }

    /// Takes one away. Blocks.
    pub fn revoke(&self, id: &str) -> Result<(), TokenError> {
        self.file.change(|tokens| token::revoke(tokens, id))
    }

    /// Whether it is time to [note](Self::note_use) what was used.
    pub fn should_note_use(&self, now: i64) -> bool {
        let mut known = self.lock();
        let due = !known.used.is_empty() && now.saturating_sub(known.noted) >= USE_RESOLUTION;
        if due {
            known.noted = now;
        }
        due
    }

    /// Writes down when tokens were used. Blocks.
    pub fn note_use(&self) {
        let used = std::mem::take(&mut self.lock().used);
        let noted = self.file.change(|tokens| {
            note(tokens, &used);
            Ok(())
        });
        if let Err(error) = noted {
            tracing::warn!(%error, "when tokens were last used was not written down");
        }
    }

    /// What is known, as the file is now.
    fn current(&self) -> MutexGuard<'_, Known> {
        let stamp = self.file.stamp();
        let mut known = self.lock();
        if stamp != known.stamp {
            match self.file.read() {
                Ok(tokens) => known.tokens = Arc::new(tokens),
                Err(error) => {
                    self.unreadable.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(%error, "the tokens as they were before hold on");
                }
            }
            if stamp.is_some() && !self.wanted.swap(true, Ordering::Relaxed) {
                tracing::info!("there are tokens now: every request needs one from here on");
            }
            known.stamp = stamp;
        }
        known
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(tokens: &mut [Token], used: &HashMap<String, i64>) {
    for token in tokens {
        token.last_used = token.last_used.max(used.get(&token.id).copied());
    }
}
