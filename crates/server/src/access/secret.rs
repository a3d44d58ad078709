//! Secrets: how they are made, and the digests by which they are known. Only the digest
//! of a token is kept. One round of SHA-256 is enough for that, since a token is 256
//! random bits: nobody can try them all, with a slow hash or a fast one. Words that people
//! choose would need a slow hash; there are none here.

use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use subtle::ConstantTimeEq;

/// What every token begins with, so that scanners for secrets and people know one.
pub const PREFIX: &str = "evf_";
/// Random bytes of a token and of a session.
const RANDOM_BYTES: usize = 32;
/// Characters of a secret at most; what is longer is none of ours.
pub const MAX_SECRET: usize = 512;

/// A secret as it is shown once. Its debug form does not tell it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new random secret that begins with `prefix`.
    pub fn random(prefix: &str) -> std::io::Result<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| std::io::Error::other("the system gives no random numbers"))?;
        Ok(Self(format!("{prefix}{}", hexadecimal(&bytes))))
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// SHA-256 of a secret. It tells nothing of the secret, but is not shown all the same.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of the text of a secret.
    pub fn of(secret: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, secret.as_bytes());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
        }
        Some(Self(bytes))
    }

    /// 64 hexadecimal digits.
    pub fn to_hexadecimal(self) -> String {
        hexadecimal(&self.0)
    }

    /// What a token is called by: the first 12 digits of its digest.
    pub fn id(self) -> String {
        hexadecimal(&self.0[..6])
    }
}

/// Takes the same time wherever two differ.
impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Digest {}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Digest({}…)", self.id())
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard_and_come_back() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(Digest::of("abc").to_hexadecimal(), abc);
        assert_eq!(Digest::parse(abc), Some(Digest::of("abc")));
        assert_ne!(Digest::of("abc"), Digest::of("abd"));
        assert_eq!(Digest::of("abc").id(), "ba7816bf8f01");
        let not_ascii = "é".repeat(32);
        for wrong in ["", "ba", &"g".repeat(64), not_ascii.as_str()] {
            assert!(Digest::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_long_differ_and_are_not_printed() {
        let (one, other) = (Secret::random(PREFIX).expect("random"), Secret::random(PREFIX).expect("random"));
        assert!(one.reveal().starts_with("evf_") && one.reveal().len() == 68);
        assert_ne!(one, other);
        assert_eq!(format!("{one:?}"), "Secret(…)");
        assert!(!format!("{:?}", one.digest()).contains(&one.digest().to_hexadecimal()));
    }
}
