//! The OTLP codec from the outside: our own batches round, the OpenTelemetry eBPF
//! profiler's shape, each kind of bad input, and noise.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::sync::Arc;

use everflame_profile::{
    Batch, Completeness, ContentId, Frame, FrameKind, Labels, Line, Mapping, Point, Profile, Sample, SampleType, Stack,
    Str,
    otlp::{ExportProfilesServiceRequest, Limits, decode, decode_bytes, encode, encode_to_bytes},
};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    profiles::v1development as wire,
    resource::v1::Resource,
};
use proptest::prelude::*;
use prost::Message;

fn s(text: &str) -> Str {
    Str::from(text)
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(n, v)| (s(n), s(v))).collect()
}

/// What our agent sends.
fn ours() -> Batch {
    let envoy = Arc::new(Mapping {
        name: s("envoy"),
        build_id: s("00aabbccddeeff0011223344556677889900aabb"),
        content_id: Some(ContentId(7 << 100 | 9)),
    });
    let kernel = Arc::new(Mapping { name: s("vmlinux"), build_id: s(""), content_id: None });
    let native =
        |address| Frame { kind: FrameKind(s(FrameKind::NATIVE)), mapping: Some(envoy.clone()), address, lines: vec![] };
    Batch {
        resources: vec![
            labels(&[("host.name", "n1"), ("process.pid", "42"), ("process.executable.name", "envoy")]),
            labels(&[("host.name", "n1"), ("process.pid", "43"), ("process.executable.name", "sh")]),
        ],
        frames: vec![
            Frame {
                kind: FrameKind(s(FrameKind::KERNEL)),
                mapping: Some(kernel),
                address: 0xffff_ffff_8100_0010,
                lines: vec![Line { function: s("do_syscall_64"), file: s(""), line: 0 }],
            },
            native(0x1000),
            native(0x2000),
        ],
        stacks: vec![Stack(vec![0, 1, 2]), Stack(vec![1, 2]), Stack(vec![])],
        profiles: vec![
            Profile {
                id: Some([3; 16]),
                resource: 0,
                sample_type: SampleType::cpu(),
                period: 52_631_578,
                samples: vec![
                    Sample {
                        stack: 0,
                        completeness: Completeness::Complete,
                        thread: s("wrk:worker_0"),
                        tid: 44,
                        cpu: 1,
                        labels: Labels::default(),
                        points: vec![
                            Point { time: 1_800_000_000_000_000_000, samples: 1, value: 52_631_578 },
                            Point { time: 1_800_000_000_052_631_578, samples: 1, value: 52_631_578 },
                        ],
                    },
                    Sample {
                        stack: 1,
                        completeness: Completeness::NoUnwindInfo,
                        thread: s(""),
                        tid: 0,
                        cpu: u32::MAX,
                        labels: labels(&[("request", "1")]),
                        points: vec![Point { time: 1_800_000_000_000_000_001, samples: 1, value: 52_631_578 }],
                    },
                ],
            },
            Profile {
                id: None,
                resource: 1,
                sample_type: SampleType::cpu(),
                period: 10,
                samples: vec![Sample {
                    stack: 2,
                    completeness: Completeness::NotSaid,
                    thread: s("sh"),
                    tid: 43,
                    cpu: 0,
                    labels: Labels::default(),
                    points: vec![Point { time: 5, samples: 3, value: 30 }],
                }],
            },
        ],
    }
}

#[test]
fn ours_comes_back() {
    let decoded = decode_bytes(&encode_to_bytes(&ours()), &Limits::default()).unwrap();
    assert_eq!(decoded.first_cause, None);
    assert_eq!((decoded.rejected_profiles, decoded.rejected_samples, decoded.skipped_attributes), (0, 0, 0));
    assert_eq!(named(&decoded.batch), named(&ours()));
}

#[test]
fn tables_begin_with_zero_and_repeat_nothing() {
    let dictionary = encode(&ours()).dictionary.unwrap();
    assert_eq!(dictionary.mapping_table[0], wire::Mapping::default());
    assert_eq!(dictionary.location_table[0], wire::Location::default());
    assert_eq!(dictionary.function_table[0], wire::Function::default());
    assert_eq!(dictionary.link_table, [wire::Link::default()]);
    assert_eq!(dictionary.string_table[0], "");
    assert_eq!(dictionary.attribute_table[0], wire::KeyValueAndUnit::default());
    assert_eq!(dictionary.stack_table[0], wire::Stack::default());
    fn unique<T: Message>(table: &[T]) {
        let mut seen: Vec<Vec<u8>> = table.iter().map(Message::encode_to_vec).collect();
        seen.sort();
        let before = seen.len();
        seen.dedup();
        assert_eq!(seen.len(), before);
    }
    unique(&dictionary.mapping_table);
    unique(&dictionary.location_table);
    unique(&dictionary.function_table);
    unique(&dictionary.attribute_table);
    unique(&dictionary.stack_table);
    let mut strings = dictionary.string_table.clone();
    strings.sort();
    strings.dedup();
    assert_eq!(strings.len(), dictionary.string_table.len());
}

fn attribute(key: i32, value: Value) -> wire::KeyValueAndUnit {
    wire::KeyValueAndUnit { key_strindex: key, value: Some(AnyValue { value: Some(value) }), unit_strindex: 0 }
}

fn text(value: &str) -> Value {
    Value::StringValue(value.into())
}

fn resource_attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What the OpenTelemetry eBPF profiler sends: one resource per process, no native
/// names, on-CPU samples as timestamps and off-CPU time as a value per timestamp.
fn theirs() -> ExportProfilesServiceRequest {
    let strings = [
        "",
        "samples",
        "count",
        "cpu",
        "nanoseconds",
        "off_cpu",
        "profile.frame.type",
        "thread.name",
        "thread.id",
        "cpu.logical_number",
        "process.executable.build_id.gnu",
        "process.executable.build_id.htlhash",
        "libc.so.6",
        "handle",
        "app.py",
        "vfs_read",
        "process.context.label.tenant",
    ];
    let function = |name, file| wire::Function { name_strindex: name, filename_strindex: file, ..Default::default() };
    let location = |mapping, address, lines: &[(i32, i64)], kind| wire::Location {
        mapping_index: mapping,
        address,
        lines: lines.iter().map(|&(function_index, line)| wire::Line { function_index, line, column: 0 }).collect(),
        attribute_indices: vec![kind],
    };
    let dictionary = wire::ProfilesDictionary {
        mapping_table: vec![
            wire::Mapping::default(),
            wire::Mapping { filename_strindex: 12, attribute_indices: vec![4, 5], ..Default::default() },
        ],
        location_table: vec![
            wire::Location::default(),
            location(1, 0x9_0f30, &[], 1),
            location(0, 0, &[(1, 17)], 2),
            location(0, 0xffff_ffff_8120_0000, &[(2, 0)], 3),
            location(0, 0, &[], 10),
        ],
        function_table: vec![wire::Function::default(), function(13, 14), function(15, 0)],
        link_table: vec![wire::Link::default()],
        string_table: strings.map(String::from).to_vec(),
        attribute_table: vec![
            wire::KeyValueAndUnit::default(),
            attribute(6, text("native")),
            attribute(6, text("cpython")),
            attribute(6, text("kernel")),
            attribute(10, text("ABCDEF0123")),
            attribute(11, text("00112233445566778899aabbccddeeff")),
            attribute(7, text("worker")),
            attribute(8, Value::IntValue(77)),
            attribute(9, Value::IntValue(3)),
            attribute(16, text("blue")),
            attribute(6, text("abort-marker")),
        ],
        stack_table: vec![
            wire::Stack::default(),
            wire::Stack { location_indices: vec![3, 1, 2] },
            wire::Stack { location_indices: vec![1, 4] },
        ],
    };
    let sample = |stack_index, values: &[i64], times: &[u64]| wire::Sample {
        stack_index,
        attribute_indices: vec![6, 7, 8, 9],
        link_index: 0,
        values: values.to_vec(),
        timestamps_unix_nano: times.to_vec(),
    };
    let on_cpu = wire::Profile {
        sample_type: Some(wire::ValueType { type_strindex: 1, unit_strindex: 2 }),
        period_type: Some(wire::ValueType { type_strindex: 3, unit_strindex: 4 }),
        period: 50_000_000,
        time_unix_nano: 1000,
        duration_nano: 5000,
        samples: vec![sample(1, &[], &[1001, 1002]), sample(2, &[4], &[])],
        ..Default::default()
    };
    let off_cpu = wire::Profile {
        sample_type: Some(wire::ValueType { type_strindex: 5, unit_strindex: 4 }),
        samples: vec![sample(1, &[700, 800], &[1001, 1002])],
        ..Default::default()
    };
    ExportProfilesServiceRequest {
        resource_profiles: vec![wire::ResourceProfiles {
            resource: Some(Resource {
                attributes: vec![
                    resource_attribute("process.pid", Value::IntValue(4711)),
                    resource_attribute("process.executable.name", text("python3")),
                    resource_attribute("process.command_args", Value::ArrayValue(ArrayValue::default())),
                ],
                ..Default::default()
            }),
            scope_profiles: vec![wire::ScopeProfiles {
                scope: Some(InstrumentationScope {
                    name: "go.opentelemetry.io/ebpf-profiler".into(),
                    ..Default::default()
                }),
                profiles: vec![on_cpu, off_cpu],
                ..Default::default()
            }],
            ..Default::default()
        }],
        dictionary: Some(dictionary),
    }
}

#[test]
fn the_opentelemetry_profilers_shape() {
    let decoded = decode(theirs(), &Limits::default());
    assert_eq!((decoded.rejected_profiles, decoded.rejected_samples), (0, 0));
    assert_eq!(decoded.skipped_attributes, 1, "the array is left out");
    let batch = decoded.batch;
    assert_eq!(batch.resources, [labels(&[("process.pid", "4711"), ("process.executable.name", "python3")])]);
    let [cpu, off] = &batch.profiles[..] else { panic!("{batch:?}") };
    assert_eq!((cpu.sample_type.clone(), cpu.period, cpu.samples()), (SampleType::cpu(), 50_000_000, 6));
    let first = &cpu.samples[0];
    assert_eq!((first.thread.as_ref(), first.tid, first.cpu), ("worker", 77, 3));
    assert_eq!(first.completeness, Completeness::NotSaid);
    assert_eq!(first.labels, labels(&[("process.context.label.tenant", "blue")]));
    assert_eq!(first.points[1], Point { time: 1002, samples: 1, value: 50_000_000 });
    assert_eq!(
        cpu.samples[1].points,
        [Point { time: 1000, samples: 4, value: 200_000_000 }],
        "takes its profile's time"
    );
    let frames: Vec<&Frame> = batch.stacks[first.stack as usize].0.iter().map(|f| &batch.frames[*f as usize]).collect();
    assert_eq!(frames.iter().map(|f| f.kind.as_str()).collect::<Vec<_>>(), ["kernel", "native", "cpython"]);
    let libc = frames[1].mapping.as_deref().unwrap();
    assert_eq!((libc.name.as_ref(), libc.build_id.as_ref(), frames[1].address), ("libc.so.6", "abcdef0123", 0x9_0f30));
    assert_eq!(frames[2].lines, [Line { function: s("handle"), file: s("app.py"), line: 17 }]);
    assert_eq!(batch.stacks[cpu.samples[1].stack as usize].0.len(), 1, "a marker is no frame");
    assert_eq!((off.sample_type.name.as_ref(), off.sample_type.unit.as_ref()), ("off_cpu", "nanoseconds"));
    assert_eq!(off.samples[0].points[0], Point { time: 1001, samples: 1, value: 700 });
}

/// Breaks one thing in the first profile and says what is to be rejected.
fn broken(change: impl FnOnce(&mut wire::ProfilesDictionary, &mut wire::Profile)) -> (u64, u64, String) {
    let mut request = theirs();
    let profile = &mut request.resource_profiles[0].scope_profiles[0].profiles[0];
    change(request.dictionary.as_mut().unwrap(), profile);
    let decoded = decode(request, &Limits { frames: 8, memory_bytes: 1 << 20, ..Limits::default() });
    (decoded.rejected_profiles, decoded.rejected_samples, decoded.first_cause.unwrap_or_default())
}

#[test]
fn what_is_bad_is_rejected_alone() {
    let (profiles, samples, cause) = broken(|_, p| p.samples[0].stack_index = 99);
    assert_eq!((profiles, samples), (0, 2));
    assert!(cause.contains("99") && cause.contains("stack"), "{cause}");
    assert_eq!(broken(|_, p| p.samples[1].stack_index = -1).1, 4, "an aggregated sample counts its value");
    assert_eq!(broken(|_, p| p.samples[0].attribute_indices.push(1000)).1, 2);
    assert_eq!(broken(|_, p| p.samples[0].link_index = 7).1, 2);
    assert_eq!(broken(|_, p| p.samples[0].values = vec![1, 2, 3]).1, 6);
    assert_eq!(broken(|_, p| p.samples[1].values = vec![]).1, 1);
    assert_eq!(broken(|_, p| p.samples[1].values = vec![-5]).1, 1);
    assert_eq!(broken(|_, p| p.samples[1].values = vec![i64::MAX]).1, i64::MAX as u64);
    assert_eq!(broken(|_, p| p.samples[0].timestamps_unix_nano[0] = u64::MAX).1, 2);
    assert_eq!(broken(|d, _| d.stack_table[1].location_indices = vec![1; 9]).1, 2 + 2, "in both profiles");
    assert_eq!(broken(|d, _| d.stack_table[1].location_indices = vec![0]).1, 4);
    assert_eq!(broken(|d, _| d.location_table[1].mapping_index = 5).1, 2 + 4 + 2);
    assert_eq!(broken(|d, _| d.location_table[2].lines[0].function_index = 50).1, 4);
    assert_eq!(broken(|d, _| d.function_table[1].name_strindex = -3).1, 4);
    assert_eq!(broken(|d, _| d.string_table[13] = "x".repeat(100_000)).1, 4);
    assert_eq!(broken(|_, p| p.period = -1).0, 1);
    assert_eq!(broken(|_, p| p.sample_type = None).0, 1);
    assert_eq!(broken(|_, p| p.time_unix_nano = u64::MAX).0, 1);
    assert_eq!(
        broken(|_, p| p.samples = vec![p.samples[0].clone(); 20_000]).2,
        "the request decodes to more than 1048576 bytes; send smaller requests"
    );
    let mut request = theirs();
    request.dictionary = None;
    let decoded = decode(request, &Limits::default());
    assert_eq!((decoded.rejected_profiles, decoded.batch.samples()), (2, 0));
}

/// A field of a message, length-delimited.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    prost::encode_length_delimiter(content.len(), &mut bytes).unwrap();
    bytes.extend_from_slice(content);
    bytes
}

#[test]
fn few_bytes_do_not_become_many() {
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    let many = |number: u8| [number << 3 | 2, 0].repeat(1 << 20);
    // 2 MiB of empty samples, locations, attributes, resources, values: up to 100 MiB.
    let bombs = [
        field(1, &field(2, &field(2, &many(2)))),
        field(2, &many(2)),
        field(2, &many(6)),
        field(1, &field(1, &many(1))),
        many(1),
        field(2, &field(6, &field(2, &field(5, &many(1))))),
    ];
    for bomb in bombs {
        let error = decode_bytes(&bomb, &limits).unwrap_err();
        assert!(error.to_string().contains("more than 8388608 bytes"), "{error}");
    }
    assert!(decode_bytes(&encode_to_bytes(&ours()), &limits).is_ok());
}

#[test]
fn a_value_of_zero_is_no_sample() {
    let mut request = theirs();
    request.resource_profiles[0].scope_profiles[0].profiles[0].samples[1].values = vec![0];
    let decoded = decode(request, &Limits::default());
    assert_eq!((decoded.rejected_samples, decoded.batch.profiles[0].samples()), (0, 2));
}

/// Everything a batch says, free of the order of its tables.
fn named(batch: &Batch) -> Vec<String> {
    let mut lines = Vec::new();
    for profile in &batch.profiles {
        for sample in &profile.samples {
            let frames: Vec<&Frame> =
                batch.stacks[sample.stack as usize].0.iter().map(|f| &batch.frames[*f as usize]).collect();
            let resource = &batch.resources[profile.resource as usize];
            let head = (profile.id, resource, &profile.sample_type, profile.period);
            let Sample { completeness, thread, tid, cpu, labels, points, .. } = sample;
            lines.push(format!("{head:?} {frames:?} {completeness:?} {thread} {tid} {cpu} {labels:?} {points:?}"));
        }
    }
    lines.sort();
    lines
}

fn frame() -> impl Strategy<Value = Frame> {
    let mapping = ("[a-z.\\[\\]]{1,8}", "([0-9a-f]{40})?", any::<Option<u128>>()).prop_map(|(name, build_id, id)| {
        Arc::new(Mapping { name: name.into(), build_id: build_id.into(), content_id: id.map(ContentId) })
    });
    let line = ("[a-z:<>]{1,9}", "[a-z/.]{0,9}", any::<u32>()).prop_map(|(function, file, line)| Line {
        function: function.into(),
        file: file.into(),
        line,
    });
    let kind = prop::sample::select(vec!["native", "kernel", "cpython", "go"]).prop_map(|kind| FrameKind(s(kind)));
    (kind, prop::option::of(mapping), any::<u64>(), prop::collection::vec(line, 0..3))
        .prop_map(|(kind, mapping, address, lines)| Frame { kind, mapping, address, lines })
}

fn batch() -> impl Strategy<Value = Batch> {
    let pairs = || prop::collection::vec(("[a-z.]{1,6}", "[a-zA-Z0-9 ]{0,6}"), 0..4);
    let label_set =
        move || pairs().prop_map(|pairs| pairs.into_iter().map(|(n, v)| (s(&n), s(&v))).collect::<Labels>());
    let point = (0..i64::MAX, 1u64..4, 1i64..1 << 40);
    let sample = (
        any::<u32>(),
        0u8..11,
        "[a-z]{0,6}",
        any::<u32>(),
        any::<u32>(),
        label_set(),
        prop::collection::vec(point, 1..4),
    );
    let profile =
        (any::<Option<[u8; 16]>>(), any::<u32>(), any::<bool>(), 0i64..1 << 40, prop::collection::vec(sample, 1..4));
    let tables = (
        prop::collection::hash_set(label_set(), 1..4),
        prop::collection::hash_set(frame(), 1..6),
        prop::collection::hash_set(prop::collection::vec(any::<u32>(), 0..5), 1..5),
    );
    (tables, prop::collection::vec(profile, 0..4)).prop_map(|((resources, frames, stacks), profiles)| {
        let (resources, frames): (Vec<Labels>, Vec<Frame>) =
            (resources.into_iter().collect(), frames.into_iter().collect());
        let stacks: Vec<Stack> =
            stacks.into_iter().map(|s| Stack(s.into_iter().map(|f| f % frames.len() as u32).collect())).collect();
        let profiles = profiles
            .into_iter()
            .map(|(id, resource, cpu, period, samples)| Profile {
                id: id.filter(|id| *id != [0; 16]),
                resource: resource % resources.len() as u32,
                sample_type: match cpu {
                    true => SampleType::cpu(),
                    false => SampleType { name: s("alloc"), unit: s("bytes") },
                },
                period,
                samples: samples
                    .into_iter()
                    .map(|(stack, completeness, thread, tid, cpu_number, labels, points)| Sample {
                        stack: stack % stacks.len() as u32,
                        completeness: Completeness::from_u8(completeness).unwrap(),
                        thread: thread.into(),
                        tid,
                        cpu: cpu_number,
                        labels,
                        points: points
                            .into_iter()
                            .map(|(time, samples, value)| match cpu {
                                true => Point { time, samples, value: samples as i64 * period },
                                false => Point { time, samples: 1, value },
                            })
                            .collect(),
                    })
                    .collect(),
            })
            .collect();
        Batch { resources, frames, stacks, profiles }
    })
}

/// Every index of a batch is valid, or this panics.
fn check(batch: &Batch) {
    named(batch);
    assert!(batch.profiles.iter().flat_map(|p| &p.samples).all(|s| !s.points.is_empty()));
}

proptest! {
    #[test]
    fn any_batch_comes_back(batch in batch()) {
        let decoded = decode_bytes(&encode_to_bytes(&batch), &Limits::default()).unwrap();
        prop_assert_eq!(decoded.first_cause, None);
        prop_assert_eq!(named(&decoded.batch), named(&batch));
    }

    #[test]
    fn noise_is_refused_or_harmless(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(decoded) = decode_bytes(&bytes, &Limits::default()) {
            check(&decoded.batch);
        }
    }

    #[test]
    fn flipped_bytes_are_refused_or_harmless(flips in prop::collection::vec((any::<usize>(), any::<u8>()), 1..20), whose in any::<bool>()) {
        let mut bytes = if whose { encode_to_bytes(&ours()) } else { theirs().encode_to_vec() };
        let length = bytes.len();
        for (at, value) in flips {
            bytes[at % length] = value;
        }
        if let Ok(decoded) = decode_bytes(&bytes, &Limits::default()) {
            check(&decoded.batch);
        }
    }
}
