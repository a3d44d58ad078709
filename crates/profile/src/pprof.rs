//! pprof files (`profile.proto`, gzipped), which `go tool pprof` and many other
//! programs read.

use std::{hash::Hash, io, io::Write, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use prost::Message;
use rustc_hash::FxHashMap;

use crate::{
    frame::Mapping,
    named::{NamedFrame, NamedProfile, NamedSample},
};

/// The profile as a gzipped pprof file: samples (`samples/count`) and CPU time
/// (`cpu/nanoseconds`, the default), equal stacks of a thread summed. Process and
/// thread are labels (`process`, `pid`, `thread`, `tid`); a stack that did not reach
/// its root has `[incomplete: REASON]` as its root.
pub fn pprof(profile: &NamedProfile) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    let written = gzip.write_all(&message(profile).encode_to_vec()).and_then(|()| gzip.finish());
    written.unwrap_or_else(|error: io::Error| unreachable!("writing to memory cannot fail: {error}"))
}

fn message(profile: &NamedProfile) -> proto::Profile {
    let mut writer = Writer::new();
    for sample in &profile.samples {
        writer.add(sample);
    }
    let samples = writer.value_type("samples", "count");
    let cpu = writer.value_type("cpu", "nanoseconds");
    proto::Profile {
        sample_type: vec![samples, cpu],
        default_sample_type: cpu.kind,
        sample: writer.samples.into_iter().map(|(key, values)| key.message(values)).collect(),
        mapping: writer.mappings.messages,
        location: writer.locations.messages,
        function: writer.functions.messages,
        string_table: writer.strings.messages,
        time_nanos: profile.time,
        duration_nanos: profile.duration,
        period_type: Some(cpu),
        period: profile.period,
    }
}

/// Messages, each once; their ids are their places.
#[derive(Debug)]
struct Table<K, M> {
    places: FxHashMap<K, u64>,
    messages: Vec<M>,
}

impl<K: Hash + Eq, M> Table<K, M> {
    fn new() -> Self {
        Self { places: FxHashMap::default(), messages: Vec::new() }
    }

    /// Place of the message for `key`, which `make` makes when it is new.
    fn intern(&mut self, key: K, make: impl FnOnce(&K) -> M) -> u64 {
        let next = self.messages.len() as u64;
        let messages = &mut self.messages;
        match self.places.entry(key) {
            std::collections::hash_map::Entry::Occupied(place) => *place.get(),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                messages.push(make(vacant.key()));
                *vacant.insert(next)
            }
        }
    }
}

/// What makes two samples of a pprof file the same.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SampleKey {
    locations: Vec<u64>,
    labels: [proto::Label; 4],
}

impl SampleKey {
    fn message(self, (count, value): (i64, i64)) -> proto::Sample {
        let label = self.labels.into_iter().filter(|label| label.str != 0 || label.num != 0).collect();
        proto::Sample { location_id: self.locations, value: vec![count, value], label }
    }
}

#[derive(Debug)]
struct Writer {
    strings: Table<String, String>,
    mappings: Table<Arc<Mapping>, proto::Mapping>,
    functions: Table<(i64, i64), proto::Function>,
    locations: Table<(u64, u64, Vec<proto::Line>), proto::Location>,
    samples: FxHashMap<SampleKey, (i64, i64)>,
}

impl Writer {
    fn new() -> Self {
        let (strings, mappings, functions) = (Table::new(), Table::new(), Table::new());
        let mut writer = Self { strings, mappings, functions, locations: Table::new(), samples: FxHashMap::default() };
        writer.string("");
        writer
    }

    fn add(&mut self, sample: &NamedSample) {
        let mut locations = Vec::with_capacity(sample.frames.len() + 1);
        let mut lines = Vec::new();
        for (at, frame) in sample.frames.iter().enumerate() {
            lines.push(self.line(&frame.function, &frame.file, frame.line));
            // An inlined frame is a line of the location that the frame after it closes.
            if !frame.inlined || at + 1 == sample.frames.len() {
                locations.push(self.location(frame, std::mem::take(&mut lines)));
            }
        }
        if let Some(marker) = sample.marker() {
            let line = self.line(&marker, "", 0);
            locations.push(self.locate(0, 0, vec![line]));
        }
        let labels = [
            self.text_label("process", &sample.process),
            self.number_label("pid", sample.pid),
            self.text_label("thread", &sample.thread),
            self.number_label("tid", sample.tid),
        ];
        let sum = self.samples.entry(SampleKey { locations, labels }).or_default();
        sum.0 = sum.0.saturating_add_unsigned(sample.count);
        sum.1 = sum.1.saturating_add(sample.value);
    }

    fn location(&mut self, frame: &NamedFrame, lines: Vec<proto::Line>) -> u64 {
        let mapping = frame.mapping.as_ref().map_or(0, |mapping| self.mapping(mapping));
        if let Some(message) = mapping.checked_sub(1).and_then(|at| self.mappings.messages.get_mut(at as usize)) {
            message.memory_limit = message.memory_limit.max(frame.address.saturating_add(1));
        }
        self.locate(mapping, frame.address, lines)
    }

    fn locate(&mut self, mapping: u64, address: u64, lines: Vec<proto::Line>) -> u64 {
        let id = self.locations.messages.len() as u64 + 1;
        let make = |(mapping_id, address, line): &(u64, u64, Vec<proto::Line>)| proto::Location {
            id,
            mapping_id: *mapping_id,
            address: *address,
            line: line.clone(),
        };
        self.locations.intern((mapping, address, lines), make) + 1
    }

    /// Addresses are those of the ELF file, so a mapping starts at 0.
    fn mapping(&mut self, mapping: &Arc<Mapping>) -> u64 {
        let (filename, build_id) = (self.string(&mapping.name), self.string(&mapping.build_id));
        let id = self.mappings.messages.len() as u64 + 1;
        let message =
            proto::Mapping { id, memory_limit: 1, filename, build_id, has_functions: true, ..Default::default() };
        self.mappings.intern(mapping.clone(), |_| message) + 1
    }

    fn line(&mut self, function: &str, file: &str, line: u32) -> proto::Line {
        let (name, filename) = (self.string(function), self.string(file));
        let id = self.functions.messages.len() as u64 + 1;
        let make = |_: &(i64, i64)| proto::Function { id, name, system_name: name, filename };
        proto::Line { function_id: self.functions.intern((name, filename), make) + 1, line: i64::from(line) }
    }

    fn string(&mut self, text: &str) -> i64 {
        self.strings.intern(text.to_owned(), String::clone) as i64
    }

    fn text_label(&mut self, key: &str, text: &str) -> proto::Label {
        proto::Label { key: self.string(key), str: self.string(text), num: 0 }
    }

    fn number_label(&mut self, key: &str, number: u32) -> proto::Label {
        proto::Label { key: self.string(key), str: 0, num: i64::from(number) }
    }

    fn value_type(&mut self, kind: &str, unit: &str) -> proto::ValueType {
        proto::ValueType { kind: self.string(kind), unit: self.string(unit) }
    }
}

/// The part of pprof's `profile.proto` that is written. Strings are places in the
/// string table; ids start at 1, 0 is none.
mod proto {
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    pub struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub location: Vec<Location>,
        #[prost(message, repeated, tag = "5")]
        pub function: Vec<Function>,
        #[prost(string, repeated, tag = "6")]
        pub string_table: Vec<String>,
        #[prost(int64, tag = "9")]
        pub time_nanos: i64,
        #[prost(int64, tag = "10")]
        pub duration_nanos: i64,
        #[prost(message, optional, tag = "11")]
        pub period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub period: i64,
        #[prost(int64, tag = "14")]
        pub default_sample_type: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct ValueType {
        #[prost(int64, tag = "1")]
        pub kind: i64,
        #[prost(int64, tag = "2")]
        pub unit: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub value: Vec<i64>,
        #[prost(message, repeated, tag = "3")]
        pub label: Vec<Label>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
    pub struct Label {
        #[prost(int64, tag = "1")]
        pub key: i64,
        #[prost(int64, tag = "2")]
        pub str: i64,
        #[prost(int64, tag = "3")]
        pub num: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Mapping {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub file_offset: u64,
        #[prost(int64, tag = "5")]
        pub filename: i64,
        #[prost(int64, tag = "6")]
        pub build_id: i64,
        #[prost(bool, tag = "7")]
        pub has_functions: bool,
    }

    #[derive(Clone, PartialEq, Message)]
    pub struct Location {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(uint64, tag = "2")]
        pub mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub address: u64,
        #[prost(message, repeated, tag = "4")]
        pub line: Vec<Line>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
    pub struct Line {
        #[prost(uint64, tag = "1")]
        pub function_id: u64,
        #[prost(int64, tag = "2")]
        pub line: i64,
    }

    #[derive(Clone, Copy, PartialEq, Message)]
    pub struct Function {
        #[prost(uint64, tag = "1")]
        pub id: u64,
        #[prost(int64, tag = "2")]
        pub name: i64,
        #[prost(int64, tag = "3")]
        pub system_name: i64,
        #[prost(int64, tag = "4")]
        pub filename: i64,
    }
}
