//! Version 1 of the log's record: a whole batch, with the frames and strings it needs.
//! It is no longer written, since reading it means to take each batch apart again,
//! but read forever.

use std::sync::Arc;

use everflame_profile::{
    Batch, Completeness, ContentId, Frame, FrameKind, Labels, Line, Mapping, Point, Profile, Report, Sample,
    SampleType, Stack,
};

use super::{
    bytes::{Corrupt, Reader},
    record::Rejected,
};

/// What a record may take once decompressed.
const MAX_BODY: usize = 512 << 20;

/// One record of version 1.
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

/// Reads what follows the byte of the version.
pub(crate) fn decode(bytes: &[u8]) -> Result<Record, Corrupt> {
    let mut input = Reader::raw(bytes);
    let received = input.i64()?;
    let (future, old, limit) = (input.u64()?, input.u64()?, input.u64()?);
    let _profiles = input.u64()?;
    let rejected = Rejected { future, old, limit, ..Rejected::default() };
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

fn read_labels(input: &mut Reader<'_>) -> Result<Labels, Corrupt> {
    Ok(Labels::new(input.list(|input| Ok((input.text()?, input.text()?)))?))
}

fn read_mapping(input: &mut Reader<'_>) -> Result<Arc<Mapping>, Corrupt> {
    let (name, build_id) = (input.text()?, input.text()?);
    let ids = input.list(|input| Ok(ContentId(u128::from_le_bytes(input.array()?))))?;
    Ok(Arc::new(Mapping { name, build_id, content_id: ids.first().copied() }))
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

    use super::{super::bytes::Writer, *};

    /// A segment that was written when this was the newest version: a header of 16
    /// bytes, then length, checksum and bytes of its one record.
    const SEGMENT: &[u8] = include_bytes!("../../tests/fixtures/v1/log/000000000002.log");

    fn record() -> &'static [u8] {
        let (version, record) = SEGMENT[24..].split_first().unwrap();
        assert_eq!(*version, 1);
        record
    }

    #[test]
    fn a_record_of_then_is_read() {
        let record = decode(record()).unwrap();
        assert_eq!((record.batch.samples(), record.batch.frames.len()), (3, 4));
        assert_eq!(record.report.map(|report| report.sequence), Some(2));
    }

    proptest! {
        #[test]
        fn damaged_records_are_refused_without_harm(at in any::<prop::sample::Index>(), byte: u8, cut: bool) {
            let mut bytes = record().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
            if cut {
                bytes.truncate(at);
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn random_bodies_are_refused_without_harm(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = Writer::default();
            // When it was received, what was refused, duplicates.
            bytes.raw(&[0; 6]);
            bytes.u64(body.len() as u64);
            bytes.raw(&zstd::bulk::compress(&body, 1).unwrap());
            let _ = decode(&bytes.into_raw());
        }
    }
}
