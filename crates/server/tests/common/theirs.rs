//! A request in the shape of the OpenTelemetry eBPF profiler, by the published proto
//! and its conventions: a resource a process, no names on native frames, on-CPU
//! samples as timestamps without values.

use opentelemetry_proto::tonic::{
    collector::profiles::v1development::ExportProfilesServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    profiles::v1development as wire,
    resource::v1::Resource,
};

fn any(value: Value) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

fn text(value: &str) -> Value {
    Value::StringValue(value.into())
}

/// Three samples of one stack of a Python process, from `time` on.
pub fn request(time: i64) -> ExportProfilesServiceRequest {
    let strings = [
        "",
        "samples",
        "count",
        "cpu",
        "nanoseconds",
        "profile.frame.type",
        "thread.name",
        "process.executable.build_id.htlhash",
        "libpython3.11.so.1.0",
        "handler",
        "app.py",
    ];
    let attribute =
        |key_strindex, value: &str| wire::KeyValueAndUnit { key_strindex, value: any(text(value)), unit_strindex: 0 };
    let python = wire::Line { function_index: 1, line: 17, column: 0 };
    let dictionary = wire::ProfilesDictionary {
        string_table: strings.map(String::from).to_vec(),
        attribute_table: vec![
            wire::KeyValueAndUnit::default(),
            attribute(5, "native"),
            attribute(5, "cpython"),
            attribute(6, "MainThread"),
            attribute(7, "00112233445566778899aabbccddeeff"),
        ],
        mapping_table: vec![
            wire::Mapping::default(),
            wire::Mapping { filename_strindex: 8, attribute_indices: vec![4], ..Default::default() },
        ],
        function_table: vec![
            wire::Function::default(),
            wire::Function { name_strindex: 9, filename_strindex: 10, ..Default::default() },
        ],
        location_table: vec![
            wire::Location::default(),
            wire::Location { mapping_index: 1, address: 0x1000, lines: vec![], attribute_indices: vec![1] },
            wire::Location { mapping_index: 0, address: 0, lines: vec![python], attribute_indices: vec![2] },
        ],
        link_table: vec![wire::Link::default()],
        stack_table: vec![wire::Stack::default(), wire::Stack { location_indices: vec![2, 1] }],
    };
    let sample = wire::Sample {
        stack_index: 1,
        attribute_indices: vec![3],
        timestamps_unix_nano: (0..3).map(|n| time as u64 + n * 50_000_000).collect(),
        ..Default::default()
    };
    let profile = wire::Profile {
        sample_type: Some(wire::ValueType { type_strindex: 1, unit_strindex: 2 }),
        period_type: Some(wire::ValueType { type_strindex: 3, unit_strindex: 4 }),
        period: 50_000_000,
        time_unix_nano: time as u64,
        duration_nano: 5_000_000_000,
        samples: vec![sample],
        ..Default::default()
    };
    let attribute = |key: &str, value| KeyValue { key: key.into(), value: any(value), ..KeyValue::default() };
    let attributes = vec![
        attribute("process.pid", Value::IntValue(4711)),
        attribute("process.executable.name", text("python3")),
        attribute("container.id", text("0123abcd")),
    ];
    ExportProfilesServiceRequest {
        resource_profiles: vec![wire::ResourceProfiles {
            resource: Some(Resource { attributes, ..Default::default() }),
            scope_profiles: vec![wire::ScopeProfiles {
                scope: Some(InstrumentationScope {
                    name: "go.opentelemetry.io/ebpf-profiler".into(),
                    ..Default::default()
                }),
                profiles: vec![profile],
                ..Default::default()
            }],
            ..Default::default()
        }],
        dictionary: Some(dictionary),
    }
}
