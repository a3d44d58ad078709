//! An admin's token that somebody else made and put into a file, as a Kubernetes Secret is
//! mounted: the way in to a new server that nobody can reach but over the network.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    file::Stamp,
    secret::{Digest, MAX_SECRET},
    token::TokenError,
};

/// Characters of a token that somebody else made (`--admin-token-file`), at least.
pub const MIN_GIVEN: usize = 32;

/// A token that somebody else made, in a file.
#[derive(Debug)]
pub struct Given {
    path: PathBuf,
    known: Mutex<(Option<Stamp>, Option<Digest>)>,
}

impl Given {
    /// Reads it.
    pub fn open(path: PathBuf) -> Result<Self, TokenError> {
        let read = read_given(&path).map_err(|source| TokenError::File { what: "read", path: path.clone(), source })?;
        let known = Mutex::new((Stamp::of(&path), Some(read)));
        Ok(Self { path, known })
    }

    /// Of the file as it is now; one that cannot be read lets nobody in anew, but what was
    /// good before stays so.
    pub fn digest(&self) -> Option<Digest> {
        let stamp = Stamp::of(&self.path);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp != known.0 {
            match read_given(&self.path) {
                Ok(digest) => known.1 = Some(digest),
                Err(error) => {
                    tracing::error!(path = %self.path.display(), %error, "the admin's token cannot be read anew");
                }
            }
            known.0 = stamp;
        }
        known.1
    }
}

fn read_given(path: &Path) -> io::Result<Digest> {
    let text = fs::read_to_string(path)?;
    let secret = text.trim();
    let fits = (MIN_GIVEN..=MAX_SECRET).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        let what = format!(
            "it is no token: write {MIN_GIVEN} to {MAX_SECRET} visible characters, made at random (`openssl rand -hex 32`)"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(Digest::of(secret))
}
