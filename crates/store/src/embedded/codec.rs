//! The record of the write-ahead log: a batch, the sender's report, and what the
//! store decided about them, in a compact form of our own (varints, strings once,
//! zstd). Version 1 is read forever; a change of shape gets a number of its own.

use std::sync::Arc;

use everflame_profile::{
    Batch, Completeness, ContentId, Frame, FrameKind, Labels, Line, Mapping, Point, Profile, Report, Sample,
    SampleType, Stack,
};

use rustc_hash::FxHashMap;

use super::bytes::{Corrupt, Reader, Writer};

/// Version of the record's shape.
const VERSION: u8 = 1;

/// What a record may take once decompressed.
pub(crate) const MAX_BODY: usize = 512 << 20;

/// What of a batch was refused on arrival, in samples (and profiles).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rejected {
    pub future: u64,
    pub old: u64,
    pub limit: u64,
    pub profiles: u64,
}

impl Rejected {
    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.future = self.future.saturating_add(other.future);
        self.old = self.old.saturating_add(other.old);
        self.limit = self.limit.saturating_add(other.limit);
        self.profiles = self.profiles.saturating_add(other.profiles);
    }

    /// Samples refused.
    pub fn samples(&self) -> u64 {
        self.future.saturating_add(self.old).saturating_add(self.limit)
    }
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// Unix nanoseconds when the server received it.
    pub received: i64,
    /// What was refused; not in `batch` any more.
    pub rejected: Rejected,
    /// Profiles of `batch` (ascending) that had been stored before: not to be counted.
    pub duplicates: Vec<u32>,
    pub batch: Batch,
    pub report: Option<Report>,
}

/// Batch and report, compressed: the part that any thread can prepare.
pub(crate) fn encode_body(batch: &Batch, report: Option<&Report>) -> Result<Vec<u8>, String> {
    let mut out = Writer::default();
    out.list(&batch.resources, write_labels);
    let mappings = Mappings::of(&batch.frames);
    out.list(&mappings.list, |out, mapping| write_mapping(out, mapping));
    out.list(&batch.frames, |out, frame| write_frame(out, frame, &mappings));
    out.list(&batch.stacks, |out, stack| out.list(&stack.0, |out, frame| out.u64(u64::from(*frame))));
    out.list(&batch.profiles, write_profile);
    out.list(report.as_slice(), |out, report| {
        out.bytes(&serde_json::to_vec(report).expect("a report is plain data"));
    });
    let body = out.finish();
    if body.len() > MAX_BODY {
        return Err(format!("the batch takes {} bytes, more than {MAX_BODY}: send smaller ones", body.len()));
    }
    let mut framed = Writer::default();
    framed.u64(body.len() as u64);
    let mut bytes = framed.into_raw();
    bytes.extend(zstd::bulk::compress(&body, 1).map_err(|error| format!("zstd: {error}"))?);
    Ok(bytes)
}

/// The whole record around an encoded body.
pub(crate) fn encode_record(received: i64, rejected: &Rejected, duplicates: &[u32], body: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.byte(VERSION);
    out.i64(received);
    for count in [rejected.future, rejected.old, rejected.limit, rejected.profiles] {
        out.u64(count);
    }
    out.list(duplicates, |out, index| out.u64(u64::from(*index)));
    let mut bytes = out.into_raw();
    bytes.extend_from_slice(body);
    bytes
}

/// Reads a record.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<Record, Corrupt> {
    let mut input = Reader::raw(bytes);
    if input.byte()? != VERSION {
        return Err(Corrupt("record of an unknown version"));
    }
    let received = input.i64()?;
    let rejected = Rejected { future: input.u64()?, old: input.u64()?, limit: input.u64()?, profiles: input.u64()? };
    let duplicates = input.list(|input| input.u32())?;
    let length = usize::try_from(input.u64()?).map_err(|_| Corrupt("length of body"))?;
    if length > MAX_BODY {
        return Err(Corrupt("length of body"));
    }
    let body = zstd::bulk::decompress(input.rest(), length).map_err(|_| Corrupt("compressed body"))?;
    let mut input = Reader::open(&body)?;
    let resources = input.list(read_labels)?;
    let mappings = input.list(read_mapping)?;
    let batch = Batch {
        resources,
        frames: input.list(|input| read_frame(input, &mappings))?,
        stacks: input.list(|input| Ok(Stack(input.list(|input| input.u32())?)))?,
        profiles: input.list(read_profile)?,
    };
    let reports =
        input.list(|input| serde_json::from_slice::<Report>(input.bytes()?).map_err(|_| Corrupt("report")))?;
    check_indexes(&batch)?;
    Ok(Record { received, rejected, duplicates, batch, report: reports.into_iter().next() })
}

/// A batch promises valid indexes; what comes from a disk is checked before.
fn check_indexes(batch: &Batch) -> Result<(), Corrupt> {
    let frames = batch.frames.len();
    let frames_ok = batch.stacks.iter().flat_map(|stack| &stack.0).all(|&frame| (frame as usize) < frames);
    let profile_ok = |profile: &Profile| {
        // A profile all of whose samples were refused may have had a bad resource.
        (profile.samples.is_empty() || (profile.resource as usize) < batch.resources.len())
            && profile.samples.iter().all(|sample| (sample.stack as usize) < batch.stacks.len())
    };
    if frames_ok && batch.profiles.iter().all(profile_ok) { Ok(()) } else { Err(Corrupt("index out of range")) }
}

fn write_labels(out: &mut Writer, labels: &Labels) {
    out.u64(labels.len() as u64);
    for (name, value) in labels.iter() {
        out.text(name);
        out.text(value);
    }
}

fn read_labels(input: &mut Reader<'_>) -> Result<Labels, Corrupt> {
    Ok(Labels::new(input.list(|input| Ok((input.text()?, input.text()?)))?))
}

/// The mappings of frames, once each, and where each stands in the list, plus one.
#[derive(Default)]
struct Mappings {
    list: Vec<Arc<Mapping>>,
    by_address: FxHashMap<usize, u64>,
}

impl Mappings {
    fn of(frames: &[Frame]) -> Self {
        let mut mappings = Self::default();
        let mut by_value: FxHashMap<&Mapping, u64> = FxHashMap::default();
        for mapping in frames.iter().filter_map(|frame| frame.mapping.as_ref()) {
            mappings.by_address.entry(Arc::as_ptr(mapping).addr()).or_insert_with(|| {
                *by_value.entry(mapping).or_insert_with(|| {
                    mappings.list.push(mapping.clone());
                    mappings.list.len() as u64
                })
            });
        }
        mappings
    }
}

fn write_mapping(out: &mut Writer, mapping: &Mapping) {
    out.text(&mapping.name);
    out.text(&mapping.build_id);
    out.list(mapping.content_id.as_slice(), |out, id| out.raw(&id.0.to_le_bytes()));
}

fn read_mapping(input: &mut Reader<'_>) -> Result<Arc<Mapping>, Corrupt> {
    let (name, build_id) = (input.text()?, input.text()?);
    let ids = input.list(|input| Ok(ContentId(u128::from_le_bytes(input.array()?))))?;
    Ok(Arc::new(Mapping { name, build_id, content_id: ids.first().copied() }))
}

fn write_frame(out: &mut Writer, frame: &Frame, mappings: &Mappings) {
    out.text(&frame.kind.0);
    let mapping = frame.mapping.as_ref().and_then(|m| mappings.by_address.get(&Arc::as_ptr(m).addr()));
    out.u64(mapping.copied().unwrap_or(0));
    out.u64(frame.address);
    out.list(&frame.lines, |out, line| {
        out.text(&line.function);
        out.text(&line.file);
        out.u64(u64::from(line.line));
    });
}

fn read_frame(input: &mut Reader<'_>, mappings: &[Arc<Mapping>]) -> Result<Frame, Corrupt> {
    let kind = FrameKind(input.text()?);
    let mapping = match input.u32()?.checked_sub(1) {
        Some(index) => Some(mappings.get(index as usize).cloned().ok_or(Corrupt("mapping"))?),
        None => None,
    };
    let address = input.u64()?;
    let lines = input.list(|input| Ok(Line { function: input.text()?, file: input.text()?, line: input.u32()? }))?;
    Ok(Frame { kind, mapping, address, lines })
}

fn write_profile(out: &mut Writer, profile: &Profile) {
    out.list(profile.id.as_slice(), |out, id| out.raw(id));
    out.u64(u64::from(profile.resource));
    out.text(&profile.sample_type.name);
    out.text(&profile.sample_type.unit);
    out.i64(profile.period);
    let mut last = 0_i64;
    out.list(&profile.samples, |out, sample| {
        out.u64(u64::from(sample.stack));
        out.byte(sample.completeness as u8);
        out.text(&sample.thread);
        out.u64(u64::from(sample.tid));
        out.u64(u64::from(sample.cpu));
        write_labels(out, &sample.labels);
        out.list(&sample.points, |out, point| {
            out.i64(point.time.wrapping_sub(last));
            last = point.time;
            out.u64(point.samples);
            out.i64(point.value);
        });
    });
}

fn read_profile(input: &mut Reader<'_>) -> Result<Profile, Corrupt> {
    let ids = input.list(|input| input.array::<16>())?;
    let resource = input.u32()?;
    let sample_type = SampleType { name: input.text()?, unit: input.text()? };
    let period = input.i64()?;
    let mut last = 0_i64;
    let samples = input.list(|input| {
        Ok(Sample {
            stack: input.u32()?,
            completeness: Completeness::from_u8(input.byte()?).ok_or(Corrupt("completeness"))?,
            thread: input.text()?,
            tid: input.u32()?,
            cpu: input.u32()?,
            labels: read_labels(input)?,
            points: input.list(|input| {
                last = last.wrapping_add(input.i64()?);
                Ok(Point { time: last, samples: input.u64()?, value: input.i64()? })
            })?,
        })
    })?;
    Ok(Profile { id: ids.first().copied(), resource, sample_type, period, samples })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Vec<u8> {
        let mapping = Arc::new(Mapping { name: "a".into(), build_id: "b".into(), content_id: Some(ContentId(7)) });
        let line = Line { function: "f".into(), file: "a.py".into(), line: 3 };
        let frame = |address| Frame {
            kind: FrameKind("native".into()),
            mapping: (address % 2 == 0).then(|| mapping.clone()),
            address,
            lines: vec![line.clone(); address as usize % 3],
        };
        let point = |time| Point { time, samples: 1, value: -time };
        let sample = Sample {
            stack: 0,
            completeness: Completeness::NotSaid,
            thread: "main".into(),
            tid: 1,
            cpu: u32::MAX,
            labels: Labels::new(vec![("k".into(), "v".into())]),
            points: vec![point(i64::MAX), point(i64::MIN), point(0)],
        };
        let profile = Profile {
            id: Some([1; 16]),
            resource: 0,
            sample_type: SampleType::cpu(),
            period: 5,
            samples: vec![sample],
        };
        let batch = Batch {
            resources: vec![Labels::default()],
            frames: (0..6).map(frame).collect(),
            stacks: vec![Stack(vec![5, 0, 3])],
            profiles: vec![profile],
        };
        let report = Report { instance: "i".to_owned(), cpu_percent: 0.1, ..Report::default() };
        let rejected = Rejected { future: 1, old: 2, limit: 3, profiles: 4 };
        let body = encode_body(&batch, Some(&report)).unwrap();
        let bytes = encode_record(-9, &rejected, &[0], &body);
        let expected = Record { received: -9, rejected, duplicates: vec![0], batch, report: Some(report) };
        assert_eq!(decode_record(&bytes), Ok(expected));
        bytes
    }

    proptest! {
        #[test]
        fn damaged_records_are_refused_without_harm(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
            let mut bytes = record();
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = decode_record(&bytes);
        }

        #[test]
        fn random_bodies_are_refused_without_harm(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut framed = Writer::default();
            framed.u64(body.len() as u64);
            let mut bytes = framed.into_raw();
            bytes.extend(zstd::bulk::compress(&body, 1).unwrap());
            let _ = decode_record(&encode_record(0, &Rejected::default(), &[], &bytes));
        }
    }
}
