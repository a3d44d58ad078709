//! Records of the side band (linux/perf_event.h), as the kernel lays them out when the time
//! is the only field behind each.

/// Longest file name that is kept of a record.
const MAX_NAME: usize = 4096;

/// PERF_RECORD_* numbers.
const LOST: u32 = 2;
const COMM: u32 = 3;
const EXIT: u32 = 4;
const FORK: u32 = 7;
const MMAP2: u32 = 10;

const MISC_COMM_EXEC: u16 = 1 << 13;
const MISC_BUILD_ID: u16 = 1 << 14;

/// A file, as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId {
    /// Major and minor number of the device.
    pub device: (u32, u32),
    /// Inode number.
    pub inode: u64,
}

/// An executable mapping as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// The file; inode 0 for memory of no file.
    pub file: FileId,
    /// Tells apart files that had the same inode number; 0 where unknown.
    pub inode_generation: u64,
    /// Path as the process sees it, or `//anon`, `[vdso]` and the like.
    pub name: Box<[u8]>,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A process mapped something executable.
    Map {
        /// Process.
        pid: u32,
        /// What it mapped.
        mapping: NewMapping,
    },
    /// A thread was renamed, by itself or because it runs another image.
    Comm {
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
        /// Whether by exec.
        exec: bool,
        /// The new name.
        name: Box<[u8]>,
    },
    /// A thread was made; `pid` differs from `parent` when a process was.
    Fork {
        /// New thread's process.
        pid: u32,
        /// New thread.
        tid: u32,
        /// Process of the thread that made it.
        parent: u32,
    },
    /// A thread ended.
    Exit {
        /// Process.
        pid: u32,
        /// Thread.
        tid: u32,
    },
    /// The ring was full: this many records are missing.
    Lost {
        /// How many.
        records: u64,
    },
}

/// An event and its time (CLOCK_MONOTONIC, nanoseconds).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When.
    pub time: u64,
    /// What.
    pub event: Event,
}

/// Appends the records in `bytes`. Kinds that are not asked for are skipped; what is cut
/// short ends the reading.
pub fn parse(mut bytes: &[u8], out: &mut Vec<Record>) {
    while let Some((header, _)) = bytes.split_at_checked(8) {
        let kind = u32_at(header, 0).unwrap_or_default();
        let misc = u16::from_le_bytes([header[4], header[5]]);
        let size = usize::from(u16::from_le_bytes([header[6], header[7]]));
        if size < 16 {
            return;
        }
        let Some((record, rest)) = bytes.split_at_checked(size) else { return };
        bytes = rest;
        let body = &record[8..size - 8];
        let (Some(event), Some(time)) = (event(kind, misc, body), u64_at(record, size - 8)) else { continue };
        out.push(Record { time, event });
    }
}

fn event(kind: u32, misc: u16, body: &[u8]) -> Option<Event> {
    let event = match kind {
        LOST => Event::Lost { records: u64_at(body, 8)? },
        COMM => Event::Comm {
            pid: u32_at(body, 0)?,
            tid: u32_at(body, 4)?,
            exec: misc & MISC_COMM_EXEC != 0,
            name: text(body.get(8..)?),
        },
        FORK => Event::Fork { pid: u32_at(body, 0)?, tid: u32_at(body, 8)?, parent: u32_at(body, 4)? },
        EXIT => Event::Exit { pid: u32_at(body, 0)?, tid: u32_at(body, 8)? },
        MMAP2 => {
            let (start, length) = (u64_at(body, 8)?, u64_at(body, 16)?);
            if u32_at(body, 56)? & libc::PROT_EXEC as u32 == 0 {
                return None;
            }
            let known = misc & MISC_BUILD_ID == 0; // else these words hold a build id
            let word = |at| if known { u64_at(body, at) } else { Some(0) };
            let device = if known { (u32_at(body, 32)?, u32_at(body, 36)?) } else { (0, 0) };
            Event::Map {
                pid: u32_at(body, 0)?,
                mapping: NewMapping {
                    start,
                    end: start.checked_add(length)?,
                    offset: u64_at(body, 24)?,
                    file: FileId { device, inode: word(40)? },
                    inode_generation: word(48)?,
                    name: text(body.get(64..)?),
                },
            }
        }
        _ => return None,
    };
    // Tasks outside of our PID namespace, or already without a pid.
    match &event {
        Event::Map { pid, .. } | Event::Comm { pid, .. } | Event::Fork { pid, .. } | Event::Exit { pid, .. }
            if *pid == 0 || *pid > i32::MAX as u32 =>
        {
            None
        }
        _ => Some(event),
    }
}

/// Up to the first zero.
fn text(bytes: &[u8]) -> Box<[u8]> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    bytes[..end.min(MAX_NAME)].into()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, misc: u16, body: &[u8], time: u64) -> Vec<u8> {
        let mut bytes = kind.to_le_bytes().to_vec();
        bytes.extend(misc.to_le_bytes());
        bytes.extend(((8 + body.len() + 8) as u16).to_le_bytes());
        bytes.extend(body);
        bytes.extend(time.to_le_bytes());
        bytes
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }

    #[test]
    fn reads_each_kind() {
        let mut map = words(&[7, 7]);
        for word in [0x1000u64, 0x2000, 0x3000] {
            map.extend(word.to_le_bytes());
        }
        map.extend(words(&[8, 1]));
        map.extend(99u64.to_le_bytes());
        map.extend(5u64.to_le_bytes());
        map.extend(words(&[5, 2]));
        map.extend(b"/bin/x\0\0");
        let mut comm = words(&[7, 8]);
        comm.extend(b"name\0\0\0\0");
        let mut bytes = record(MMAP2, 0, &map, 10);
        bytes.extend(record(COMM, MISC_COMM_EXEC, &comm, 11));
        bytes.extend(record(FORK, 0, &words(&[9, 7, 10, 8, 0, 0]), 12));
        bytes.extend(record(EXIT, 0, &words(&[9, 7, 10, 8, 0, 0]), 13));
        bytes.extend(record(LOST, 0, &[1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0], 14));
        bytes.extend(record(9999, 0, &[], 15));
        let mut out = Vec::new();
        parse(&bytes, &mut out);
        let events: Vec<_> = out.iter().map(|r| (r.time, r.event.clone())).collect();
        let mapping = NewMapping {
            start: 0x1000,
            end: 0x3000,
            offset: 0x3000,
            file: FileId { device: (8, 1), inode: 99 },
            inode_generation: 5,
            name: (*b"/bin/x").into(),
        };
        assert_eq!(
            events,
            [
                (10, Event::Map { pid: 7, mapping }),
                (11, Event::Comm { pid: 7, tid: 8, exec: true, name: (*b"name").into() }),
                (12, Event::Fork { pid: 9, tid: 10, parent: 7 }),
                (13, Event::Exit { pid: 9, tid: 10 }),
                (14, Event::Lost { records: 6 }),
            ]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>, kind in 0u32..12, size in 0u16..200) {
            let mut all = record(kind, 0, &bytes, 1);
            all[6..8].copy_from_slice(&size.to_le_bytes());
            parse(&all, &mut Vec::new());
            parse(&bytes, &mut Vec::new());
        }
    }
}
