//! A request in the shape that the OpenTelemetry eBPF profiler sends, built here from the
//! published protocol and conventions: it is stored, shown, and counted once.

use std::collections::HashMap;
use std::time::Duration;

use everflame_tests::api::unix_now;
use everflame_tests::machine::wait_for;
use everflame_tests::{Api, Everflame, Outcome};
use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse, profiles_service_client::ProfilesServiceClient,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::profiles::v1development as wire;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;

/// Samples of each of the stacks below, at 20 Hz.
const PYTHON: u64 = 40;
const NATIVE: u64 = 25;
const KERNEL: u64 = 10;
const PERIOD: f64 = 0.05;

pub fn over_http() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let server = Everflame::server(0, folder.path());
    let body = request("over-http", [1; 16]).encode_to_vec();
    // The same profile twice, as after a lost acknowledgement: it counts once.
    for _ in 0..2 {
        let (status, answer) =
            server.api().post("/v1development/profiles", &[("content-type", "application/x-protobuf")], &body);
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        let answer = ExportProfilesServiceResponse::decode(&*answer).unwrap();
        assert!(answer.partial_success.is_none_or(|partial| partial.rejected_profiles == 0));
    }
    shown(server.api(), "over-http");
    // Acknowledged is durable: it is there after a kill.
    server.kill_9();
    let server = Everflame::server(0, folder.path());
    shown(server.api(), "over-http");
    Ok(())
}

pub fn over_grpc() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let server = Everflame::server(0, folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = ProfilesServiceClient::connect(server.api().url().to_owned())
            .await
            .unwrap()
            .send_compressed(tonic::codec::CompressionEncoding::Gzip);
        for _ in 0..2 {
            let answer = client.export(request("over-grpc", [2; 16])).await.unwrap().into_inner();
            assert!(answer.partial_success.is_none_or(|partial| partial.rejected_profiles == 0));
        }
        // One profile is good, the other points beside its tables: partial success says so.
        let mut half = request("half", [3; 16]);
        let profiles = &mut half.resource_profiles[0].scope_profiles[0].profiles;
        let mut bad = profiles[0].clone();
        bad.profile_id = vec![4; 16];
        bad.samples.iter_mut().for_each(|sample| sample.stack_index = 1_000_000);
        profiles.push(bad);
        let answer = client.export(half).await.unwrap().into_inner();
        let partial = answer.partial_success.expect("a bad profile is said");
        assert_eq!(partial.rejected_profiles, 1, "{partial:?}");
        assert!(!partial.error_message.is_empty());
    });
    // The client's connection ends with its runtime.
    drop(runtime);
    shown(server.api(), "over-grpc");
    shown(server.api(), "half");
    server.stop();
    Ok(())
}

fn shown(api: &Api, process: &str) {
    let query = format!("{{process=\"{process}\"}}");
    let all = PYTHON + NATIVE + KERNEL;
    wait_for("the samples", Duration::from_secs(10), || (api.samples(&query) == all).then_some(()));
    let graph = api.graph(&query);
    assert!((graph.value - all as f64 * PERIOD).abs() < 1e-6, "{} CPU seconds", graph.value);
    assert_eq!(graph.complete, 0);
    assert_eq!(graph.incomplete.get("not_said"), Some(&all), "the sender does not say whether stacks are whole");
    let python = graph.count(|path| path.has_chain(&["<module>", "handle"]) && path.leaf().unwrap().kind == "cpython");
    assert_eq!(python, PYTHON);
    // No name came with the native frames: they are shown by module and address.
    let native = graph
        .count(|path| path.leaf().is_some_and(|leaf| leaf.kind == "native" && leaf.name.starts_with("libwork.so+0x")));
    assert_eq!(native, NATIVE, "{}", graph.heaviest(|_| true));
    let kernel = graph.count(|path| path.leaf().is_some_and(|leaf| leaf.kind == "kernel" && leaf.is("do_nanosleep")));
    assert_eq!(kernel, KERNEL);
    // And by every attribute that came with them.
    assert_eq!(api.samples(&format!("{{process=\"{process}\", thread=\"worker\"}}")), all);
    assert_eq!(api.samples(&format!("{{process=\"{process}\", \"container.id\"=~\"abcdef.*\"}}")), all);
    let top = api.json("/api/v1/top", &[("query", &query), ("by", "function")]);
    let own: u64 = top["rows"].as_array().unwrap().iter().map(|row| row["self"].as_u64().unwrap()).sum();
    assert_eq!(own, all, "the sum of self over all rows is the number of samples");
}

/// Tables whose entry 0 is the zero value, as the protocol wants it.
struct Dictionary {
    tables: wire::ProfilesDictionary,
    strings: HashMap<String, i32>,
}

impl Dictionary {
    fn new() -> Self {
        let tables = wire::ProfilesDictionary {
            mapping_table: vec![wire::Mapping::default()],
            location_table: vec![wire::Location::default()],
            function_table: vec![wire::Function::default()],
            link_table: vec![wire::Link::default()],
            string_table: vec![String::new()],
            attribute_table: vec![wire::KeyValueAndUnit::default()],
            stack_table: vec![wire::Stack::default()],
        };
        Self { tables, strings: HashMap::from([(String::new(), 0)]) }
    }

    fn string(&mut self, text: &str) -> i32 {
        if let Some(&index) = self.strings.get(text) {
            return index;
        }
        let index = push(&mut self.tables.string_table, text.to_owned());
        self.strings.insert(text.to_owned(), index);
        index
    }

    fn attribute(&mut self, key: &str, value: Value) -> i32 {
        let key_strindex = self.string(key);
        let value = Some(AnyValue { value: Some(value) });
        push(&mut self.tables.attribute_table, wire::KeyValueAndUnit { key_strindex, value, unit_strindex: 0 })
    }

    fn text(&mut self, key: &str, value: &str) -> i32 {
        self.attribute(key, Value::StringValue(value.to_owned()))
    }

    fn mapping(&mut self, file: &str, build_id: &str) -> i32 {
        let filename_strindex = self.string(file);
        let attribute_indices = vec![
            self.text("process.executable.build_id.gnu", build_id),
            self.text("process.executable.build_id.htlhash", "0123456789abcdef0123456789abcdef"),
        ];
        push(
            &mut self.tables.mapping_table,
            wire::Mapping { memory_limit: 0x10_0000, filename_strindex, attribute_indices, ..Default::default() },
        )
    }

    fn location(&mut self, kind: &str, mapping_index: i32, address: u64, name: &str, file: &str, line: i64) -> i32 {
        let mut lines = Vec::new();
        if !name.is_empty() {
            let (name_strindex, filename_strindex) = (self.string(name), self.string(file));
            let function = wire::Function { name_strindex, filename_strindex, ..Default::default() };
            let function_index = push(&mut self.tables.function_table, function);
            lines.push(wire::Line { function_index, line, column: 0 });
        }
        let attribute_indices = vec![self.text("profile.frame.type", kind)];
        push(&mut self.tables.location_table, wire::Location { mapping_index, address, lines, attribute_indices })
    }
}

fn push<T>(table: &mut Vec<T>, value: T) -> i32 {
    table.push(value);
    table.len() as i32 - 1
}

/// A process with a Python, a native and a kernel stack.
pub fn request(process: &str, profile_id: [u8; 16]) -> ExportProfilesServiceRequest {
    let mut d = Dictionary::new();
    let python = d.mapping("/usr/bin/python3.11", "aa00");
    let library = d.mapping("/usr/lib/libwork.so", "bb11");
    let module = d.location("cpython", 0, 0, "<module>", "/app/main.py", 3);
    let handle = d.location("cpython", 0, 0, "handle", "/app/main.py", 17);
    let evaluate = d.location("native", python, 0x12_3456, "", "", 0);
    let work = d.location("native", library, 0x1010, "", "", 0);
    let system_call = d.location("kernel", 0, 0, "entry_SYSCALL_64_after_hwframe", "vmlinux", 0);
    let sleep = d.location("kernel", 0, 0, "do_nanosleep", "vmlinux", 0);
    // Leaf first.
    let stacks =
        [(vec![handle, module], PYTHON), (vec![work, evaluate], NATIVE), (vec![sleep, system_call, evaluate], KERNEL)];
    let thread = [
        d.text("thread.name", "worker"),
        d.attribute("thread.id", Value::IntValue(4243)),
        d.attribute("cpu.logical_number", Value::IntValue(1)),
    ];
    let now = (unix_now() - 10) * 1_000_000_000;
    let samples = stacks
        .into_iter()
        .map(|(location_indices, count)| wire::Sample {
            stack_index: push(&mut d.tables.stack_table, wire::Stack { location_indices }),
            attribute_indices: thread.to_vec(),
            // One timestamp an observation and no values: each counts as one.
            timestamps_unix_nano: (0..count).map(|i| now + i * 50_000_000).collect(),
            ..Default::default()
        })
        .collect();
    let (samples_string, count, cpu, nanoseconds) =
        (d.string("samples"), d.string("count"), d.string("cpu"), d.string("nanoseconds"));
    let profile = wire::Profile {
        sample_type: Some(wire::ValueType { type_strindex: samples_string, unit_strindex: count }),
        period_type: Some(wire::ValueType { type_strindex: cpu, unit_strindex: nanoseconds }),
        period: 50_000_000,
        time_unix_nano: now,
        duration_nano: 5_000_000_000,
        profile_id: profile_id.to_vec(),
        samples,
        ..Default::default()
    };
    let attribute = |key: &str, value: Value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..Default::default()
    };
    let resource = Resource {
        attributes: vec![
            attribute("process.pid", Value::IntValue(4242)),
            attribute("process.executable.name", Value::StringValue(process.to_owned())),
            attribute("process.executable.path", Value::StringValue(format!("/usr/bin/{process}"))),
            attribute("container.id", Value::StringValue("abcdef".repeat(10) + "abcd")),
        ],
        ..Default::default()
    };
    ExportProfilesServiceRequest {
        resource_profiles: vec![wire::ResourceProfiles {
            resource: Some(resource),
            scope_profiles: vec![wire::ScopeProfiles {
                scope: Some(InstrumentationScope {
                    name: "go.opentelemetry.io/ebpf-profiler".to_owned(),
                    ..Default::default()
                }),
                profiles: vec![profile],
                schema_url: "https://opentelemetry.io/schemas/1.37.0".to_owned(),
            }],
            ..Default::default()
        }],
        dictionary: Some(d.tables),
    }
}
