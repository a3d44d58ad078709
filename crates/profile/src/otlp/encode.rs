//! Writes a batch as an OTLP request: a dictionary without repetition or orphans, and
//! one `ResourceProfiles` per resource.

use std::ops::Range;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    profiles::v1development::{
        Function, KeyValueAndUnit, Line as WireLine, Link, Location, Mapping as WireMapping, Profile as WireProfile,
        ProfilesDictionary, ResourceProfiles, Sample as WireSample, ScopeProfiles, Stack as WireStack, ValueType,
    },
    resource::v1::Resource,
};
use prost::Message;
use rustc_hash::FxHashMap;

use super::{ExportProfilesServiceRequest, names};
use crate::{
    batch::{Batch, Point, Profile, Sample, SampleType},
    completeness::Completeness,
    frame::{ContentId, Frame, Mapping},
    labels::Labels,
};

/// The request that carries a batch.
///
/// Every point must carry a time. CPU samples travel as counts (`samples`/`count` with
/// a `cpu`/`nanoseconds` period); points of any other type travel as their value alone
/// and stand for one sample each.
pub fn encode(batch: &Batch) -> ExportProfilesServiceRequest {
    let mut tables = Tables::new();
    let locations: Vec<i32> = batch.frames.iter().map(|frame| tables.location(frame)).collect();
    let stacks: Vec<i32> = batch
        .stacks
        .iter()
        .map(|stack| tables.stack(stack.0.iter().filter_map(|frame| locations.get(*frame as usize).copied()).collect()))
        .collect();
    let times = || batch.profiles.iter().flat_map(|p| &p.samples).flat_map(|s| &s.points).map(|p| p.time.max(0) as u64);
    let window = times().min().unwrap_or(0)..times().max().map_or(0, |last| last + 1);
    let mut by_resource: Vec<Vec<WireProfile>> = batch.resources.iter().map(|_| Vec::new()).collect();
    for profile in &batch.profiles {
        let made = tables.profile(profile, &stacks, &window);
        if let Some(profiles) = by_resource.get_mut(profile.resource as usize) {
            profiles.push(made);
        }
    }
    let resource_profiles =
        batch.resources.iter().zip(by_resource).map(|(labels, profiles)| resource_profiles(labels, profiles)).collect();
    ExportProfilesServiceRequest { resource_profiles, dictionary: Some(tables.dictionary) }
}

/// The protobuf bytes of [`encode`], not compressed.
pub fn encode_to_bytes(batch: &Batch) -> Vec<u8> {
    encode(batch).encode_to_vec()
}

fn resource_profiles(labels: &Labels, profiles: Vec<WireProfile>) -> ResourceProfiles {
    let attributes = labels
        .iter()
        .map(|(name, value)| {
            let value = match value.parse() {
                Ok(pid) if name.as_ref() == names::PID => Value::IntValue(pid),
                _ => Value::StringValue(value.to_string()),
            };
            KeyValue { key: name.to_string(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
        })
        .collect();
    let scope = InstrumentationScope {
        name: names::SCOPE.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    ResourceProfiles {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_profiles: vec![ScopeProfiles { scope: Some(scope), profiles, ..ScopeProfiles::default() }],
        ..ResourceProfiles::default()
    }
}

/// A value of the attribute table.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Text<'a> {
    String(&'a str),
    Int(i64),
}

/// The dictionary under construction; every table begins with its zero value.
struct Tables<'a> {
    dictionary: ProfilesDictionary,
    strings: FxHashMap<&'a str, i32>,
    attributes: FxHashMap<(&'a str, Text<'a>), i32>,
    mappings: FxHashMap<&'a Mapping, i32>,
    content_ids: FxHashMap<ContentId, i32>,
    functions: FxHashMap<(i32, i32), i32>,
}

impl<'a> Tables<'a> {
    fn new() -> Self {
        Self {
            dictionary: ProfilesDictionary {
                mapping_table: vec![WireMapping::default()],
                location_table: vec![Location::default()],
                function_table: vec![Function::default()],
                link_table: vec![Link::default()],
                string_table: vec![String::new()],
                attribute_table: vec![KeyValueAndUnit::default()],
                stack_table: vec![WireStack::default()],
            },
            strings: FxHashMap::from_iter([("", 0)]),
            attributes: FxHashMap::default(),
            mappings: FxHashMap::default(),
            content_ids: FxHashMap::default(),
            functions: FxHashMap::default(),
        }
    }

    fn string(&mut self, text: &'a str) -> i32 {
        *self.strings.entry(text).or_insert_with(|| push(&mut self.dictionary.string_table, text.to_string()))
    }

    fn attribute(&mut self, name: &'a str, text: Text<'a>) -> i32 {
        if let Some(&known) = self.attributes.get(&(name, text)) {
            return known;
        }
        let value = match text {
            Text::String(text) => Value::StringValue(text.to_string()),
            Text::Int(number) => Value::IntValue(number),
        };
        let key_strindex = self.string(name);
        let item = KeyValueAndUnit { key_strindex, value: Some(AnyValue { value: Some(value) }), unit_strindex: 0 };
        let index = push(&mut self.dictionary.attribute_table, item);
        self.attributes.insert((name, text), index);
        index
    }

    fn mapping(&mut self, mapping: &'a Mapping) -> i32 {
        if let Some(&known) = self.mappings.get(mapping) {
            return known;
        }
        let mut attribute_indices = Vec::with_capacity(2);
        if !mapping.build_id.is_empty() {
            attribute_indices.push(self.attribute(names::BUILD_ID, Text::String(&mapping.build_id)));
        }
        if let Some(id) = mapping.content_id {
            attribute_indices.push(self.content_id(id));
        }
        let filename_strindex = self.string(&mapping.name);
        let item = WireMapping { filename_strindex, attribute_indices, ..WireMapping::default() };
        // A mapping that says nothing is the zero value, which is there already.
        let index = if item == WireMapping::default() { 0 } else { push(&mut self.dictionary.mapping_table, item) };
        self.mappings.insert(mapping, index);
        index
    }

    fn content_id(&mut self, id: ContentId) -> i32 {
        if let Some(&known) = self.content_ids.get(&id) {
            return known;
        }
        let key_strindex = self.string(names::CONTENT_ID);
        let value = Some(AnyValue { value: Some(Value::StringValue(id.to_string())) });
        let item = KeyValueAndUnit { key_strindex, value, unit_strindex: 0 };
        let index = push(&mut self.dictionary.attribute_table, item);
        self.content_ids.insert(id, index);
        index
    }

    fn location(&mut self, frame: &'a Frame) -> i32 {
        let mapping_index = frame.mapping.as_deref().map_or(0, |mapping| self.mapping(mapping));
        let kind = self.attribute(names::FRAME_TYPE, Text::String(frame.kind.as_str()));
        let lines = frame
            .lines
            .iter()
            .map(|line| {
                let key = (self.string(&line.function), self.string(&line.file));
                let function_index = *self.functions.entry(key).or_insert_with(|| {
                    let function = Function { name_strindex: key.0, filename_strindex: key.1, ..Function::default() };
                    push(&mut self.dictionary.function_table, function)
                });
                WireLine { function_index, line: line.line.into(), column: 0 }
            })
            .collect();
        let location = Location { mapping_index, address: frame.address, lines, attribute_indices: vec![kind] };
        push(&mut self.dictionary.location_table, location)
    }

    fn stack(&mut self, location_indices: Vec<i32>) -> i32 {
        if location_indices.is_empty() {
            return 0;
        }
        push(&mut self.dictionary.stack_table, WireStack { location_indices })
    }

    /// All profiles say the same window: they were gathered together.
    fn profile(&mut self, profile: &'a Profile, stacks: &[i32], window: &Range<u64>) -> WireProfile {
        let points = || profile.samples.iter().flat_map(|sample| &sample.points);
        let worth = |p: &Point| i64::try_from(p.samples).ok().and_then(|n| n.checked_mul(profile.period));
        let cpu = profile.sample_type == SampleType::cpu();
        let counted = cpu && points().all(|p| worth(p) == Some(p.value));
        let value = |p: &Point| if counted { p.samples as i64 } else { p.value };
        let bare = points().all(|p| value(p) == 1);
        let stated = profile.samples.iter().any(|sample| sample.completeness != Completeness::NotSaid);
        let period_type = cpu.then(|| self.value_type("cpu", "nanoseconds"));
        let sample_type = match counted {
            true => self.value_type("samples", "count"),
            false => self.value_type(&profile.sample_type.name, &profile.sample_type.unit),
        };
        let samples = profile
            .samples
            .iter()
            .map(|sample| WireSample {
                stack_index: stacks.get(sample.stack as usize).copied().unwrap_or(0),
                attribute_indices: self.sample_attributes(sample, stated),
                link_index: 0,
                values: if bare { Vec::new() } else { sample.points.iter().map(value).collect() },
                timestamps_unix_nano: sample.points.iter().map(|p| p.time.max(0) as u64).collect(),
            })
            .collect();
        WireProfile {
            sample_type: Some(sample_type),
            samples,
            time_unix_nano: window.start,
            duration_nano: window.end - window.start,
            period_type,
            period: profile.period,
            profile_id: profile.id.map_or_else(Vec::new, |id| id.to_vec()),
            attribute_indices: match stated {
                true => vec![self.attribute(names::STACKS, Text::String(names::STATED))],
                false => Vec::new(),
            },
            ..WireProfile::default()
        }
    }

    fn value_type(&mut self, name: &'a str, unit: &'a str) -> ValueType {
        ValueType { type_strindex: self.string(name), unit_strindex: self.string(unit) }
    }

    fn sample_attributes(&mut self, sample: &'a Sample, stated: bool) -> Vec<i32> {
        let mut indices = Vec::with_capacity(3 + sample.labels.len());
        if !sample.thread.is_empty() {
            indices.push(self.attribute(names::THREAD_NAME, Text::String(&sample.thread)));
        }
        if sample.tid != 0 {
            indices.push(self.attribute(names::THREAD_ID, Text::Int(sample.tid.into())));
        }
        if sample.cpu != u32::MAX {
            indices.push(self.attribute(names::CPU, Text::Int(sample.cpu.into())));
        }
        if stated && !sample.completeness.is_complete() {
            indices.push(self.attribute(names::INCOMPLETE, Text::String(sample.completeness.as_str())));
        }
        for (name, value) in sample.labels.iter() {
            indices.push(self.attribute(name, Text::String(value)));
        }
        indices
    }
}

/// Appends and says where.
fn push<T>(table: &mut Vec<T>, item: T) -> i32 {
    let index = i32::try_from(table.len()).expect("a batch has far fewer than 2^31 entries");
    table.push(item);
    index
}
