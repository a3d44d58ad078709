//! What goes over the worker's socket: one request with one descriptor, one answer.
//!
//! Numbers are little endian. A request is `size u64, wish u32, length u32, name`; an
//! answer `length u32, last u8, ok u8, payload`.

use everflame_profile::ContentId;
use everflame_symbols::{ElfFacts, Segment};

/// Largest file that is looked at.
pub const MAX_FILE: u64 = 4 << 30;
/// Largest payload of an answer: an index may be 256 MiB.
pub const MAX_ANSWER: usize = 257 << 20;
/// Longest name that is sent along.
pub const MAX_NAME: usize = 255;
/// Room for a request.
pub const REQUEST_BYTES: usize = 16 + MAX_NAME;
/// Bytes before the payload of an answer.
pub const ANSWER_HEADER: usize = 6;
/// Longest reason that is kept of a refusal.
const MAX_REASON: usize = 300;
/// Most loadable segments of a file that are believed.
const MAX_SEGMENTS: usize = 256;
/// Longest build id, in hexadecimal digits.
const MAX_BUILD_ID: usize = 128;

/// What is to be made of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Wish {
    /// Its [`Facts`].
    Facts,
    /// Its unwind table.
    Table,
    /// Its symbol index.
    Index,
    /// It is kept for questions; the request's name is its content id.
    Module,
    /// The file is a question: see [`crate::opinion`].
    Question,
    /// For tests: what the file's first byte says, see [`fault`].
    #[cfg(test)]
    Fault,
}

/// A request, beside the descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Bytes of the file.
    pub size: u64,
    /// What to do.
    pub wish: Wish,
    /// The file's base name, for the index.
    pub name: String,
}

impl Request {
    /// As sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wish = match self.wish {
            Wish::Facts => 1u32,
            Wish::Table => 2,
            Wish::Index => 3,
            Wish::Module => 4,
            Wish::Question => 5,
            #[cfg(test)]
            Wish::Fault => 6,
        };
        let mut end = self.name.len().min(MAX_NAME);
        while !self.name.is_char_boundary(end) {
            end -= 1;
        }
        let name = &self.name.as_bytes()[..end];
        let mut bytes = self.size.to_le_bytes().to_vec();
        bytes.extend(wish.to_le_bytes());
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name);
        bytes
    }

    /// As received.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk()?;
        let (wish, rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let name = rest.get(..u32::from_le_bytes(*length) as usize)?;
        let wish = match u32::from_le_bytes(*wish) {
            1 => Wish::Facts,
            2 => Wish::Table,
            3 => Wish::Index,
            4 => Wish::Module,
            5 => Wish::Question,
            #[cfg(test)]
            6 => Wish::Fault,
            _ => return None,
        };
        Some(Self { size: u64::from_le_bytes(*size), wish, name: String::from_utf8_lossy(name).into_owned() })
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The worker ends after this one.
    pub last: bool,
    /// What was wished, or why not.
    pub result: Result<Vec<u8>, String>,
}

impl Answer {
    /// As sent.
    pub fn to_bytes(&self) -> Vec<u8> {
        let payload = match &self.result {
            Ok(bytes) => bytes.as_slice(),
            Err(reason) => reason.as_bytes().get(..MAX_REASON).unwrap_or(reason.as_bytes()),
        };
        let mut bytes = Vec::with_capacity(ANSWER_HEADER + payload.len());
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.push(self.last.into());
        bytes.push(self.result.is_ok().into());
        bytes.extend(payload);
        bytes
    }
}

/// What is known of an executable once a worker looked at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub content_id: ContentId,
    /// GNU build id in hexadecimal, or empty.
    pub build_id: String,
    /// Its loadable segments.
    pub segments: Vec<Segment>,
}

pub(super) fn facts_to_bytes(facts: &ElfFacts) -> Vec<u8> {
    let mut bytes = facts.content_id.0.to_le_bytes().to_vec();
    let build_id = facts.build_id.get(..MAX_BUILD_ID).unwrap_or(&facts.build_id);
    bytes.push(build_id.len() as u8);
    bytes.extend(build_id.as_bytes());
    for s in facts.segments.iter().take(MAX_SEGMENTS) {
        for word in [s.vaddr, s.offset, s.file_size, s.mem_size, s.executable.into()] {
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes
}

impl Facts {
    /// Reads what a worker sent; `None` where that is nonsense.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (length, rest) = rest.split_first()?;
        let (build_id, rest) = rest.split_at_checked(usize::from(*length))?;
        let build_id = std::str::from_utf8(build_id).ok()?;
        if build_id.len() > MAX_BUILD_ID || !build_id.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let (segments, odd) = rest.as_chunks::<40>();
        if !odd.is_empty() || segments.len() > MAX_SEGMENTS {
            return None;
        }
        let segment = |bytes: &[u8; 40]| {
            let (words, _) = bytes.as_chunks::<8>();
            let word = |n: usize| words.get(n).map_or(0, |w| u64::from_le_bytes(*w));
            Segment { vaddr: word(0), offset: word(1), file_size: word(2), mem_size: word(3), executable: word(4) != 0 }
        };
        Some(Self {
            content_id: ContentId(u128::from_le_bytes(*id)),
            build_id: build_id.to_owned(),
            segments: segments.iter().map(segment).collect(),
        })
    }
}

/// Misbehaves as the first byte says: `p`anics, `a`borts, `h`angs, eats `m`emory, tries what
/// is for`b`idden.
#[cfg(test)]
pub(super) fn fault(bytes: &[u8]) -> Result<Vec<u8>, String> {
    match bytes.first() {
        Some(b'p') => panic!("as asked"),
        Some(b'a') => std::process::abort(),
        Some(b'h') => loop {
            std::hint::spin_loop();
        },
        Some(b'm') => {
            let mut all: Vec<Vec<u8>> = Vec::new();
            loop {
                all.push(vec![1; 1 << 26]);
            }
        }
        Some(b'b') => {
            let open = std::fs::read("/etc/shadow").is_ok();
            let run = std::process::Command::new("/bin/true").spawn().is_ok();
            let write = std::fs::write("/etc/everflame-worker", b"x").is_ok();
            let connect = std::net::TcpStream::connect("127.0.0.1:9").err().map(|e| e.kind());
            let connect = connect != Some(std::io::ErrorKind::PermissionDenied);
            Ok(format!("open {open} run {run} write {write} connect {connect}").into_bytes())
        }
        _ => Ok(bytes.to_vec()),
    }
}

/// Whether the bytes are a table as `bpf/abi.h` lays it out, as far as the header says.
/// What is inside, the kernel program checks at every step.
pub fn is_table(bytes: &[u8]) -> bool {
    let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk()).map(|b| u32::from_le_bytes(*b));
    bytes.len().is_multiple_of(64)
        && word(0) == Some(u32::from_le_bytes(*b"EFT1"))
        && word(4).is_some_and(|elements| elements as usize * 64 == bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_way() {
        let segment = Segment { vaddr: 1, offset: 2, file_size: 3, mem_size: 4, executable: true };
        let facts = ElfFacts {
            content_id: ContentId(7 << 100),
            build_id: "abcdef".into(),
            segments: vec![segment; 3],
            is_go: false,
            entry: 0,
        };
        let back = Facts::from_bytes(&facts_to_bytes(&facts)).unwrap();
        assert_eq!((back.content_id, back.build_id, back.segments), (facts.content_id, facts.build_id, facts.segments));
    }

    #[test]
    fn long_names_are_cut_at_a_character() {
        let request = Request { size: 9, wish: Wish::Index, name: "ü".repeat(200) };
        let back = Request::from_bytes(&request.to_bytes()).unwrap();
        assert_eq!(back, Request { name: "ü".repeat(127), ..request });
    }

    proptest::proptest! {
        #[test]
        fn nonsense_is_no_facts_and_no_panic(bytes: Vec<u8>) {
            let _ = Facts::from_bytes(&bytes);
            let _ = Request::from_bytes(&bytes);
            let _ = is_table(&bytes);
        }
    }
}
