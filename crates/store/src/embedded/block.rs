//! A block on disk: sorted rows and their dictionaries as plain Parquet files.
//!
//! `samples.parquet` (sorted by series, thread, stack, time), `series.parquet` with
//! `series_labels.parquet`, `sample_labels.parquet`, `threads.parquet`,
//! `nodes.parquet`, `frames.parquet` with `lines.parquet` and `mappings.parquet`;
//! ids are row numbers of these files. The value of a row of samples is
//! `samples * period + value_rest`. `ids.bin` holds the profile ids, 16 bytes each.

use std::{
    fs::{self, File},
    io::{self, Read},
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use everflame_profile::{ContentId, Labels, Line, Mapping, ProfileId, SampleType, Str};
use parquet::{
    arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
    file::{
        metadata::PageIndexPolicy,
        reader::{ChunkReader, Length},
    },
};

use rustc_hash::FxHashMap;

use super::{
    dictionary::{Names, Series, Stacks},
    frames::{Frames, NONE, hash_frame, hash_mapping},
    meta::Meta,
    table::{Table, into_io, read_bytes},
};
use crate::query::TrieNode;

/// A block. The directory of one that was replaced or expired is removed with the
/// last reference, so that running queries read on undisturbed.
#[derive(Debug)]
pub(crate) struct Block {
    pub meta: Meta,
    pub dir: PathBuf,
    /// Set once the file of rows was found whole.
    checked: OnceLock<()>,
    obsolete: AtomicBool,
}

/// The part of a block's dictionaries that every query needs.
#[derive(Debug)]
pub(crate) struct BlockNames {
    pub names: Names,
    /// Rows of each series.
    pub ranges: Vec<Range<usize>>,
    /// Where row groups and pages are.
    pub metadata: ArrowReaderMetadata,
}

const SAMPLES: &str = "samples.parquet";

/// The open file of rows, read at positions so that threads do not disturb each other.
#[derive(Debug, Clone)]
pub(crate) struct Samples {
    file: Arc<File>,
    length: u64,
}

impl Block {
    pub fn open(dir: &Path) -> io::Result<Self> {
        let meta = Meta::read(dir)?;
        Ok(Self { meta, dir: dir.to_owned(), checked: OnceLock::new(), obsolete: AtomicBool::new(false) })
    }

    /// Says that the directory is to go once nobody reads it any more.
    pub fn retire(&self) {
        self.obsolete.store(true, Ordering::Relaxed);
    }

    fn table(&self, file: &str) -> io::Result<Table> {
        let info = self.meta.files.get(file).copied();
        let info = info.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "is not described"));
        info.and_then(|info| Table::read(&self.dir.join(file), info)).map_err(|error| with_path(error, &self.dir, file))
    }

    /// The file of rows, opened anew: blocks are many, open files are few.
    pub fn samples(&self) -> io::Result<Samples> {
        let open = || {
            let file = File::open(self.dir.join(SAMPLES))?;
            let length = file.metadata()?.len();
            Ok(Samples { file: Arc::new(file), length })
        };
        open().map_err(|error| with_path(error, &self.dir, SAMPLES))
    }

    /// The description of the rows' file, which is checked when first used.
    fn metadata(&self) -> io::Result<ArrowReaderMetadata> {
        let samples = self.samples()?;
        let read = || {
            if self.checked.get().is_none() {
                self.check(&samples)?;
                let _ = self.checked.set(());
            }
            let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
            ArrowReaderMetadata::load(&samples, options).map_err(into_io)
        };
        read().map_err(|error| with_path(error, &self.dir, SAMPLES))
    }

    fn check(&self, samples: &Samples) -> io::Result<()> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let info = self.meta.files.get(SAMPLES).ok_or_else(|| invalid("is not described"))?;
        let mut hasher = crc32fast::Hasher::new();
        let mut reader = At { file: samples.file.clone(), position: 0 };
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        let whole = samples.length == info.bytes && hasher.finalize() == info.crc32;
        if whole { Ok(()) } else { Err(invalid("the file's checksum is wrong")) }
    }

    /// Profile ids whose samples are in it.
    pub fn ids(&self) -> io::Result<Vec<ProfileId>> {
        const FILE: &str = "ids.bin";
        let Some(info) = self.meta.files.get(FILE) else { return Ok(Vec::new()) };
        let bytes = read_bytes(&self.dir.join(FILE), *info).map_err(|error| with_path(error, &self.dir, FILE))?;
        Ok(bytes.as_chunks::<16>().0.to_vec())
    }

    /// Series, labels and thread names, and about how many bytes they take.
    pub fn names(&self) -> io::Result<(BlockNames, usize)> {
        let series = self.table("series.parquet")?;
        let (types, units) = (series.text("type")?, series.text("unit")?);
        let (first, rows) = (series.u64("first_row")?, series.u64("rows")?);
        let labels = self.label_sets("series_labels.parquet", "series", types.len())?;
        let sets = self.label_sets("sample_labels.parquet", "labels", 1)?;
        let threads = self.table("threads.parquet")?.text("name")?;
        let mut bytes = threads.iter().map(|name| name.len() + 32).sum::<usize>() + types.len() * 160;
        bytes += labels.iter().chain(&sets).map(|labels| 64 + labels.len() * 64).sum::<usize>();
        let metadata = self.metadata()?;
        bytes += metadata.metadata().memory_size();
        let total = usize::try_from(self.meta.rows).map_err(io::Error::other)?;
        let range = |(first, rows): (u64, u64)| {
            let first = usize::try_from(first).unwrap_or(total).min(total);
            first..first.saturating_add(usize::try_from(rows).unwrap_or(total)).min(total)
        };
        let ranges = first.into_iter().zip(rows).map(range).collect();
        let series = types.into_iter().zip(units).zip(labels);
        let names = Names {
            threads: threads.into_iter().collect(),
            sets: sets.into_iter().map(Arc::new).collect(),
            series: series
                .map(|((name, unit), labels)| Arc::new(Series { sample_type: SampleType { name, unit }, labels }))
                .collect(),
        };
        Ok((BlockNames { names, ranges, metadata }, bytes))
    }

    fn label_sets(&self, file: &str, id: &str, at_least: usize) -> io::Result<Vec<Labels>> {
        let table = self.table(file)?;
        let (ids, names, values) = (table.u32(id)?, table.text("name")?, table.text("value")?);
        let count = ids.iter().max().map_or(0, |max| *max as usize + 1).max(at_least);
        // Ids come from the disk: a set beyond those expected takes at least a row.
        if count > ids.len() + at_least {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "label sets are out of range"));
        }
        let mut sets = vec![Vec::new(); count];
        for ((id, name), value) in ids.into_iter().zip(names).zip(values) {
            sets[id as usize].push((name, value));
        }
        Ok(sets.into_iter().map(Labels::new).collect())
    }

    /// The trie and its frames, and about how many bytes they take.
    pub fn stacks(&self) -> io::Result<(Stacks, usize)> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mappings = self.table("mappings.parquet")?;
        let (names, builds, contents) =
            (mappings.text("name")?, mappings.text("build_id")?, mappings.text("content_id")?);
        let mappings = names.into_iter().zip(builds).zip(contents).map(|((name, build_id), content)| {
            let mapping = Mapping { name, build_id, content_id: ContentId::parse(&content) };
            (hash_mapping(&mapping), Arc::new(mapping))
        });
        let mappings: Vec<(u128, Arc<Mapping>)> = mappings.collect();
        let frames = self.table("frames.parquet")?;
        let (kinds, files, addresses) = (frames.text("kind")?, frames.i32("mapping")?, frames.u64("address")?);
        let table = self.table("lines.parquet")?;
        let columns = (table.u32("frame")?, table.text("function")?, table.text("file")?, table.u32("line")?);
        let mut bytes = kinds.len() * 40 + mappings.len() * 128;
        let lines = columns.0.into_iter().zip(columns.1).zip(columns.2).zip(columns.3);
        let mut lines =
            lines.map(|(((frame, function), file), line)| (frame, Line { function, file, line })).peekable();
        let mut frames = Frames::default();
        let mut kind_ids: FxHashMap<Str, u32> = FxHashMap::default();
        let (mut own, mut scratch) = (Vec::new(), Vec::new());
        for (number, ((kind, file), address)) in kinds.into_iter().zip(files).zip(addresses).enumerate() {
            own.clear();
            while let Some((_, line)) = lines.next_if(|(frame, _)| *frame as usize == number) {
                bytes += 56 + line.function.len() / 2;
                own.push(line);
            }
            let mapping = match u32::try_from(file) {
                Ok(file) => Some(mappings.get(file as usize).ok_or_else(|| invalid("mappings"))?.0),
                Err(_) => None,
            };
            let hash = hash_frame(&kind, mapping, address, &own, &mut scratch);
            let kind = *kind_ids.entry(kind).or_insert_with_key(|kind| frames.kinds.push(kind.clone()));
            frames.push(hash, address, kind, u32::try_from(file).unwrap_or(NONE), &own);
        }
        if lines.next().is_some() {
            return Err(invalid("lines"));
        }
        frames.mappings = mappings.into_iter().map(|(_, mapping)| mapping).collect();
        let nodes = self.table("nodes.parquet")?;
        let columns = nodes.i32("parent")?.into_iter().zip(nodes.u32("frame")?);
        let nodes = columns.enumerate().map(|(index, (parent, frame))| {
            // Parents stand before children: a walk to the root always ends.
            let parent = u32::try_from(parent).unwrap_or(u32::MAX);
            let ok = (parent == u32::MAX || (parent as usize) < index) && (frame as usize) < frames.len();
            if ok { Ok(TrieNode { parent, frame }) } else { Err(invalid("nodes")) }
        });
        let nodes = nodes.collect::<io::Result<super::chunked::Chunked<TrieNode>>>()?;
        bytes += nodes.len() * size_of::<TrieNode>();
        Ok((Stacks { frames, nodes }, bytes))
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.obsolete.load(Ordering::Relaxed)
            && let Err(error) = fs::remove_dir_all(&self.dir)
        {
            tracing::warn!(path = %self.dir.display(), %error, "cannot remove an old block: it is tried again at start");
        }
    }
}

fn with_path(error: io::Error, dir: &Path, file: &str) -> io::Error {
    io::Error::new(error.kind(), format!("block {} ({file}): {error}", dir.display()))
}

impl Length for Samples {
    fn len(&self) -> u64 {
        self.length
    }
}

/// Reads on from a position of a shared file.
#[derive(Debug)]
pub(crate) struct At {
    file: Arc<File>,
    position: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl ChunkReader for Samples {
    type T = io::BufReader<At>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        Ok(io::BufReader::new(At { file: self.file.clone(), position: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}
