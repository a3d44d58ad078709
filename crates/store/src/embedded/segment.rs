//! A segment of the write-ahead log: one file per generation of the head.
//!
//! `EVFLLOG1`, the generation (8 bytes), then records: length (4), CRC-32 (4), bytes;
//! all little endian. A segment goes once the block of its generation is on disk.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use super::record::{Decoder, Record};

const MAGIC: &[u8; 8] = b"EVFLLOG1";
const HEADER: u64 = 16;

/// What one record may take on disk.
const MAX_RECORD: usize = 2 << 30;

/// A segment that is written to.
#[derive(Debug)]
pub(crate) struct Segment {
    file: File,
    path: PathBuf,
    length: u64,
}

/// Why a group of records is not in the log.
#[derive(Debug)]
pub(crate) enum AppendError {
    /// There was no room; the segment is as it was before.
    Full,
    /// The segment can no longer be trusted with more.
    Broken(io::Error),
}

/// Name of the segment of a generation.
pub(crate) fn path_of(dir: &Path, generation: u64) -> PathBuf {
    dir.join(format!("{generation:012}.log"))
}

/// Generations that have a segment, ascending.
pub(crate) fn generations(dir: &Path) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|n| n.parse().ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether an error means that there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Frames a record.
pub(crate) fn frame(record: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(record.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
    out.extend_from_slice(record);
}

impl Segment {
    /// A new, empty segment, on disk when this returns.
    pub fn create(dir: &Path, generation: u64) -> io::Result<Self> {
        let path = path_of(dir, generation);
        // A temporary name first: a segment under its own name always has its header.
        let temporary = path.with_extension("new");
        let write = || -> io::Result<File> {
            let mut file = File::create(&temporary)?;
            file.write_all(MAGIC)?;
            file.write_all(&generation.to_le_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(dir)?.sync_all()?;
            Ok(file)
        };
        let file = write().inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        Ok(Self { file, path, length: HEADER })
    }

    /// A segment that was replayed, to write on at the end of its good part.
    pub fn open(dir: &Path, generation: u64, length: u64) -> io::Result<Self> {
        let path = path_of(dir, generation);
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.seek(SeekFrom::Start(length))?;
        Ok(Self { file, path, length })
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// Writes framed records and waits until they are on disk.
    pub fn append(&mut self, framed: &[u8]) -> Result<(), AppendError> {
        match self.file.write_all(framed) {
            Ok(()) => {}
            Err(error) if is_full(&error) => {
                self.cut().map_err(AppendError::Broken)?;
                return Err(AppendError::Full);
            }
            Err(error) => {
                // What was written in part would hide what comes after it.
                self.cut().map_err(AppendError::Broken)?;
                return Err(AppendError::Broken(error));
            }
        }
        // After a failed fsync the kernel may have dropped the pages: nobody knows
        // what is on disk, so nothing more may be promised.
        self.file.sync_data().map_err(AppendError::Broken)?;
        self.length += framed.len() as u64;
        Ok(())
    }

    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(self.length)?;
        self.file.seek(SeekFrom::Start(self.length))?;
        Ok(())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What reading a segment found.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    /// Whole records.
    pub records: u64,
    /// Torn or damaged records.
    pub torn: u64,
    /// Length of the good part.
    pub length: u64,
}

/// Reads all whole records of a segment. Cuts a torn tail; sets aside what follows
/// a damaged record under a name of its own.
pub(crate) fn replay(dir: &Path, generation: u64, mut each: impl FnMut(Record)) -> io::Result<Replayed> {
    let path = path_of(dir, generation);
    let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
    let size = file.metadata()?.len();
    let mut header = [0_u8; HEADER as usize];
    let whole_header = size >= HEADER && {
        file.read_exact(&mut header)?;
        &header[..8] == MAGIC && header[8..] == generation.to_le_bytes()
    };
    let mut replayed = Replayed::default();
    if !whole_header {
        tracing::error!(path = %path.display(), "segment of the log has no valid header: set aside");
        replayed.torn = 1;
        fs::rename(&path, path.with_extension("damaged"))?;
        File::open(dir)?.sync_all()?;
        return Ok(replayed);
    }
    let mut at = HEADER;
    let mut reader = io::BufReader::with_capacity(1 << 20, &file);
    let mut record = Vec::new();
    let mut decoder = Decoder::default();
    let trouble = loop {
        if at == size {
            break None;
        }
        let mut frame = [0_u8; 8];
        if size - at < 8 {
            break Some("ends inside a record's head");
        }
        reader.read_exact(&mut frame)?;
        let word = |at: usize| u32::from_le_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
        let (length, crc) = (word(0), word(4));
        if u64::from(length) > size - at - 8 || length as usize > MAX_RECORD {
            break Some("ends inside a record");
        }
        record.resize(length as usize, 0);
        reader.read_exact(&mut record)?;
        if crc32fast::hash(&record) != crc {
            break Some("holds a record with a wrong checksum");
        }
        match decoder.next(&record) {
            Ok(record) => each(record),
            Err(_) => break Some("holds a record that cannot be read"),
        }
        replayed.records += 1;
        at += 8 + u64::from(length);
    };
    replayed.length = at;
    if let Some(trouble) = trouble {
        replayed.torn = 1;
        set_aside(&mut file, &path, at, size, trouble)?;
        File::open(dir)?.sync_all()?;
    }
    Ok(replayed)
}

/// Cuts a segment at `at`. What was behind stays in a file of its own unless it is
/// no more than the start of one record, as a crash leaves it: that was never
/// acknowledged.
fn set_aside(file: &mut File, path: &Path, at: u64, size: u64, trouble: &str) -> io::Result<()> {
    file.seek(SeekFrom::Start(at))?;
    let mut frame = [0_u8; 8];
    let torn_tail = size - at < 8 || {
        file.read_exact(&mut frame)?;
        let length = u64::from(u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]));
        length >= size - at - 8 || frame == [0; 8]
    };
    if torn_tail {
        tracing::warn!(path = %path.display(), at, bytes = size - at, "log {trouble}: the torn tail is cut off");
    } else {
        let aside = path.with_extension(format!("{at}.damaged"));
        tracing::error!(
            path = %path.display(), at, bytes = size - at, aside = %aside.display(),
            "log {trouble}: what follows is set aside and not in the store"
        );
        file.seek(SeekFrom::Start(at))?;
        let mut copy = File::create(&aside)?;
        io::copy(&mut *file, &mut copy)?;
        copy.sync_all()?;
    }
    file.set_len(at)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            dictionary::{Interner, Mark},
            head::Addition,
            record::{self, Rejected},
        },
        *,
    };

    fn record(received: i64) -> Vec<u8> {
        let empty = Addition::default();
        let body = record::body(received, &Rejected::default(), None, (&Interner::new(), &Mark::NEW), &empty);
        let mut framed = Vec::new();
        frame(&record::encode(&body).unwrap(), &mut framed);
        framed
    }

    fn read(dir: &Path) -> (Vec<i64>, Replayed) {
        let mut seen = Vec::new();
        let each = |record| match record {
            Record::V2(record) => seen.push(record.received),
            Record::V1(_) => panic!("nobody wrote that"),
        };
        let replayed = replay(dir, 1, each).unwrap();
        (seen, replayed)
    }

    #[test]
    fn every_truncation_keeps_the_whole_records_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = Segment::create(dir.path(), 1).unwrap();
        let mut ends = vec![HEADER];
        for received in 1..=3 {
            segment.append(&record(received)).unwrap();
            ends.push(segment.length());
        }
        let whole = fs::read(segment.path()).unwrap();
        for cut in HEADER..=whole.len() as u64 {
            fs::write(path_of(dir.path(), 1), &whole[..cut as usize]).unwrap();
            let expected = ends.iter().filter(|&&end| end <= cut).count() as i64 - 1;
            let (seen, replayed) = read(dir.path());
            assert_eq!(seen, (1..=expected).collect::<Vec<_>>());
            assert_eq!(replayed.torn, u64::from(!ends.contains(&cut)));
            assert_eq!(read(dir.path()).1.torn, 0, "the tail was cut off");
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a torn tail is not set aside");
    }

    #[test]
    fn what_follows_a_damaged_record_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let mut segment = Segment::create(dir.path(), 1).unwrap();
        segment.append(&record(1)).unwrap();
        let bad = segment.length();
        for received in [2, 3] {
            segment.append(&record(received)).unwrap();
        }
        let mut bytes = fs::read(segment.path()).unwrap();
        bytes[bad as usize + 12] ^= 1;
        fs::write(segment.path(), &bytes).unwrap();
        let (seen, replayed) = read(dir.path());
        assert_eq!((seen, replayed.torn), (vec![1], 1));
        let aside = fs::read(segment.path().with_extension(format!("{bad}.damaged"))).unwrap();
        assert_eq!(aside, &bytes[bad as usize..]);
        assert_eq!(read(dir.path()).0, [1]);
    }
}
