//! The record of the write-ahead log: rows in the ids of their generation, what they
//! add to its dictionaries, the sender's report, and what of a request was refused.
//! Old versions are read forever; a change of shape gets a number of its own.

use everflame_profile::{Batch, Completeness, ProfileId, Report};

use super::{
    bytes::{Corrupt, Reader, Writer},
    delta::{self, Delta},
    dictionary::{Interner, Mark},
    head::Addition,
    record_v1,
    row::Row,
};

/// Version of the record's shape that is written.
const VERSION: u8 = 2;

/// What a batch may take in a record before it is compressed.
pub(crate) const MAX_BATCH: usize = 512 << 20;
/// What a record may take once decompressed. Far more than a batch, since it also
/// carries the entries of dictionaries that earlier ones left when the disk was full.
const MAX_BODY: usize = 2 << 30;

/// What of a batch was refused on arrival, in samples (and profiles).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub future: u64,
    pub old: u64,
    pub limit: u64,
    /// Before the store saw them.
    pub invalid: u64,
    /// Profiles of which the store refused something; for the sender only, not logged.
    pub profiles: u64,
}

impl Rejected {
    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.future = self.future.saturating_add(other.future);
        self.old = self.old.saturating_add(other.old);
        self.limit = self.limit.saturating_add(other.limit);
        self.invalid = self.invalid.saturating_add(other.invalid);
        self.profiles = self.profiles.saturating_add(other.profiles);
    }

    /// Samples that the store refused.
    pub fn samples(&self) -> u64 {
        self.future.saturating_add(self.old).saturating_add(self.limit)
    }
}

/// One record of the log, of any version.
#[derive(Debug)]
pub(crate) enum Record {
    V1(record_v1::Record),
    V2(Written),
}

/// A record of the version that is written.
#[derive(Debug, PartialEq)]
pub(crate) struct Written {
    /// Unix nanoseconds when the server received it.
    pub received: i64,
    pub rejected: Rejected,
    pub report: Option<Report>,
    pub delta: Delta,
    pub addition: Addition,
}

/// What a batch takes in a record at most, in bytes, without compression.
pub(crate) fn most_bytes(batch: &Batch) -> usize {
    let labels = |labels: &everflame_profile::Labels| -> usize {
        labels.iter().map(|(name, value)| name.len() + value.len() + 20).sum()
    };
    let mut bytes: usize = batch.resources.iter().map(labels).sum();
    for frame in &batch.frames {
        let lines = frame.lines.iter().map(|line| line.function.len() + line.file.len() + 25);
        let mapping = frame.mapping.as_ref().map_or(0, |mapping| mapping.name.len() + mapping.build_id.len() + 40);
        bytes += 50 + frame.kind.0.len() + mapping + lines.sum::<usize>();
    }
    bytes += batch.stacks.iter().map(|stack| stack.0.len() * 10).sum::<usize>();
    for profile in &batch.profiles {
        bytes += 100 + profile.sample_type.name.len() + profile.sample_type.unit.len();
        for sample in &profile.samples {
            bytes += sample.thread.len() + labels(&sample.labels) + 20 + sample.points.len() * 60;
        }
    }
    bytes
}

/// What [`encode`] leaves to be compressed.
pub(crate) fn body(
    received: i64,
    rejected: &Rejected,
    report: Option<&Report>,
    (dictionary, mark): (&Interner, &Mark),
    addition: &Addition,
) -> Vec<u8> {
    let mut out = Writer::default();
    out.i64(received);
    let counts = [rejected.future, rejected.old, rejected.limit, rejected.invalid];
    out.list(&counts, |out, count| out.u64(*count));
    out.list(report.as_slice(), |out, report| {
        out.bytes(&serde_json::to_vec(report).expect("a report is plain data"));
    });
    delta::write(&mut out, dictionary, mark);
    out.list(&addition.ids, |out, id| out.raw(id));
    let runs: Vec<&[Row]> = addition.rows.chunk_by(|a, b| shared(a) == shared(b)).collect();
    let mut last = 0_i64;
    out.list(&runs, |out, rows| {
        let (series, pid, period) = shared(&rows[0]);
        out.u64(u64::from(series));
        out.u64(u64::from(pid));
        out.i64(period);
        out.list(rows, |out, row| {
            out.u64(u64::from(row.thread));
            out.u64(u64::from(row.tid));
            out.index(row.cpu);
            out.u64(u64::from(row.labels));
            out.index(row.node);
            out.byte(row.completeness as u8);
            out.i64(row.time.wrapping_sub(last));
            last = row.time;
            out.u64(row.samples);
            out.i64(row.value_rest());
        });
    });
    out.finish()
}

/// What neighbouring rows mostly have in common.
fn shared(row: &Row) -> (u32, u32, i64) {
    (row.series, row.pid, row.period)
}

/// The record of a [`body`].
pub(crate) fn encode(body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = Writer::default();
    out.byte(VERSION);
    out.u64(body.len() as u64);
    out.raw(&zstd::bulk::compress(body, 1)?);
    Ok(out.into_raw())
}

/// Reads the records of a segment in their order.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// Where the dictionaries are; unknown after a record of version 1.
    mark: Option<Mark>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { mark: Some(Mark::NEW) }
    }
}

impl Decoder {
    /// Reads the next record.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Record, Corrupt> {
        match bytes.split_first() {
            Some((1, bytes)) => {
                self.mark = None;
                record_v1::decode(bytes).map(Record::V1)
            }
            Some((&VERSION, bytes)) => {
                let mark = self.mark.as_mut().ok_or(Corrupt("follows a record of version 1"))?;
                decode(bytes, mark).map(Record::V2)
            }
            _ => Err(Corrupt("record of an unknown version")),
        }
    }
}

fn decode(bytes: &[u8], mark: &mut Mark) -> Result<Written, Corrupt> {
    let mut input = Reader::raw(bytes);
    let length = usize::try_from(input.u64()?).map_err(|_| Corrupt("length of body"))?;
    if length > MAX_BODY {
        return Err(Corrupt("length of body"));
    }
    let body = zstd::bulk::decompress(input.rest(), length).map_err(|_| Corrupt("compressed body"))?;
    let mut input = Reader::open(&body)?;
    let received = input.i64()?;
    let [future, old, limit, invalid] = input.list(|input| input.u64())?[..] else { return Err(Corrupt("counts")) };
    let rejected = Rejected { future, old, limit, invalid, profiles: 0 };
    let reports =
        input.list(|input| serde_json::from_slice::<Report>(input.bytes()?).map_err(|_| Corrupt("report")))?;
    let delta = Delta::read(&mut input, mark)?;
    let ids: Vec<ProfileId> = input.list(|input| input.array())?;
    let mut rows = Vec::new();
    let mut last = 0_i64;
    input.list(|input| {
        let (series, pid, period) = (input.below(mark.series)?, input.u32()?, input.i64()?);
        let run = input.list(|input| {
            let mut row = Row {
                series,
                pid,
                period,
                thread: input.below(mark.threads)?,
                tid: input.u32()?,
                cpu: input.index(u32::MAX)?,
                labels: input.below(mark.sets)?,
                node: input.index(mark.nodes)?,
                completeness: Completeness::from_u8(input.byte()?).ok_or(Corrupt("completeness"))?,
                time: last.wrapping_add(input.i64()?),
                samples: input.u64()?,
                value: 0,
            };
            row.value = row.value_of_rest(input.i64()?);
            last = row.time;
            Ok(row)
        })?;
        rows.extend_from_slice(&run);
        Ok(())
    })?;
    Ok(Written { received, rejected, report: reports.into_iter().next(), delta, addition: Addition { ids, rows } })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use everflame_profile::{ContentId, Frame, FrameKind, Labels, Line, Mapping, Str};
    use proptest::prelude::*;

    use super::{
        super::{dictionary::Series, frames::hash_frames},
        *,
    };
    use crate::query::TrieNode;

    fn labels(value: &str) -> Labels {
        Labels::new(vec![(Str::from("k"), Str::from(value))])
    }

    /// Adds an entry of each kind whose names have `tag` in them, and rows of it.
    fn grow(all: &mut Interner, tag: &str) -> Addition {
        let mapping = Arc::new(Mapping { name: tag.into(), build_id: "b".into(), content_id: Some(ContentId(7)) });
        let line = Line { function: tag.into(), file: "a.py".into(), line: 3 };
        let frame = |address| Frame {
            kind: FrameKind(format!("kind {}", address % 3).into()),
            mapping: (address % 2 == 0).then(|| mapping.clone()),
            address,
            lines: vec![line.clone(); address as usize % 3],
        };
        let frames: Vec<Frame> = (0..6).map(frame).collect();
        let mut parent = u32::MAX;
        for (frame, hash) in frames.iter().zip(hash_frames(&frames)) {
            let frame = all.frame(hash, frame);
            parent = all.node(TrieNode { parent, frame });
        }
        let sample_type = everflame_profile::SampleType::cpu();
        let series = all.series(Series { sample_type, labels: labels(tag) }, usize::MAX).unwrap();
        let (thread, set) = (all.thread(&Str::from(tag)), all.set(&labels(tag)));
        let row = |time, cpu, node| Row {
            time,
            period: 50,
            samples: 1,
            value: -time,
            series,
            pid: 7,
            thread,
            tid: 8,
            cpu,
            labels: set,
            node,
            completeness: Completeness::NotSaid,
        };
        let rows = vec![row(i64::MAX, 0, parent), row(i64::MIN, u32::MAX, u32::MAX), row(0, 3, 0)];
        Addition { ids: vec![[tag.len() as u8; 16]], rows: [rows.clone(), rows].concat() }
    }

    /// Two records, and the dictionaries behind them.
    fn records() -> ([Vec<u8>; 2], [Addition; 2], Interner) {
        let mut all = Interner::new();
        let report = Report { instance: "i".to_owned(), cpu_percent: 0.1, ..Report::default() };
        let rejected = Rejected { future: 1, old: 2, limit: 3, invalid: 4, profiles: 0 };
        let mut mark = all.mark();
        let mut record = |tag, report| {
            let addition = grow(&mut all, tag);
            let body = body(-9, &rejected, report, (&all, &mark), &addition);
            mark = all.mark();
            (encode(&body).unwrap(), addition)
        };
        let (first, second) = (record("one", Some(&report)), record("three", None));
        ([first.0, second.0], [first.1, second.1], all)
    }

    #[test]
    fn records_come_back_in_the_same_ids() {
        let (records, additions, all) = records();
        let mut decoder = Decoder::default();
        let mut again = Interner::new();
        for (record, addition) in records.iter().zip(additions) {
            let Ok(Record::V2(record)) = decoder.next(record) else { panic!("another version") };
            assert_eq!((record.received, record.rejected.samples(), record.rejected.invalid), (-9, 6, 4));
            assert_eq!(record.report.is_some(), addition.ids == [[3; 16]]);
            assert_eq!(record.addition, addition);
            record.delta.apply(&mut again);
        }
        assert_eq!(again.mark(), all.mark());
        for frame in 0..all.mark().frames {
            assert_eq!(again.stacks.frames.get(frame), all.stacks.frames.get(frame));
            assert_eq!(again.stacks.frames.hash(frame), all.stacks.frames.hash(frame));
        }
        assert!(again.stacks.nodes.iter().eq(all.stacks.nodes.iter()));
        assert!(again.names.series.iter().eq(all.names.series.iter()));
        assert_eq!(again.bytes(), all.bytes());
        // What is known by now is found under its id.
        grow(&mut again, "one");
        assert_eq!(again.mark(), all.mark());
    }

    #[test]
    fn a_record_without_those_before_it_is_refused() {
        let ([_, second], _, _) = records();
        assert!(Decoder::default().next(&second).is_err());
    }

    proptest! {
        #[test]
        fn damaged_records_are_refused_without_harm(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
            let ([first, _], _, _) = records();
            let mut bytes = zstd::bulk::decompress(&first[3..], 1 << 20).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            if cut {
                bytes.truncate(at);
            }
            if let Ok(Record::V2(record)) = Decoder::default().next(&encode(&bytes).unwrap()) {
                record.delta.apply(&mut Interner::new());
            }
        }

        #[test]
        fn random_records_are_refused_without_harm(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Decoder::default().next(&body);
            let _ = Decoder::default().next(&encode(&body).unwrap());
        }
    }
}
