//! An endpoint for OTLP profiles that is somebody else's: it lets in who shows an `ApiKey`, and
//! remembers what came.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use opentelemetry_proto::tonic::collector::profiles::v1development::{
    ExportProfilesServiceRequest, ExportProfilesServiceResponse,
    profiles_service_server::{ProfilesService, ProfilesServiceServer},
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, any_value::Value};
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status};

/// Names the pod.
const POD: &str = "k8s.pod.name";

/// What came so far.
#[derive(Debug, Default)]
pub struct Came {
    /// The key that is wanted.
    pub key: String,
    /// Requests without it.
    pub refused: u64,
    /// What was shown instead of it.
    pub shown: BTreeSet<String>,
    /// Samples that were taken, by the pod that they or their resource name.
    pub samples: BTreeMap<String, u64>,
    /// Names of all attributes of resources and samples.
    pub attributes: BTreeSet<String>,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Endpoint {
    came: Arc<Mutex<Came>>,
    port: u16,
    _runtime: tokio::runtime::Runtime,
}

impl Endpoint {
    /// Listens on a free port of an address.
    pub fn serve(address: &str, key: &str) -> Self {
        Self::at(&format!("{address}:0"), key)
    }

    /// Listens on an address with its port.
    pub fn at(address: &str, key: &str) -> Self {
        let came = Arc::new(Mutex::new(Came { key: key.to_owned(), ..Came::default() }));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address: SocketAddr = address.parse().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind(address)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let service = ProfilesServiceServer::new(Service(Arc::clone(&came)))
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(64 << 20);
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { came, port, _runtime: runtime }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What came, and which key is wanted.
    pub fn came(&self) -> MutexGuard<'_, Came> {
        self.came.lock().unwrap()
    }
}

struct Service(Arc<Mutex<Came>>);

#[tonic::async_trait]
impl ProfilesService for Service {
    async fn export(
        &self,
        request: Request<ExportProfilesServiceRequest>,
    ) -> Result<Response<ExportProfilesServiceResponse>, Status> {
        let mut came = self.0.lock().unwrap();
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if shown != format!("ApiKey {}", came.key) {
            came.refused += 1;
            let shown = shown.to_owned();
            came.shown.insert(shown);
            return Err(Status::unauthenticated("unable to authenticate with this API key"));
        }
        came.take(&request.into_inner());
        Ok(Response::new(ExportProfilesServiceResponse::default()))
    }
}

impl Came {
    fn take(&mut self, request: &ExportProfilesServiceRequest) {
        let tables = request.dictionary.clone().unwrap_or_default();
        let text = |index: i32| tables.string_table.get(index as usize).cloned().unwrap_or_default();
        // Senders may write words out or name their places in the table: a collector does the latter with
        // what came the former way.
        let value = |value: &Option<AnyValue>| match value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(value)) => value.clone(),
            Some(Value::StringValueStrindex(index)) => text(*index),
            _ => String::new(),
        };
        for resource in &request.resource_profiles {
            let mut whose = String::new();
            for attribute in resource.resource.iter().flat_map(|r| &r.attributes) {
                let key = if attribute.key.is_empty() { text(attribute.key_strindex) } else { attribute.key.clone() };
                if key == POD {
                    whose = value(&attribute.value);
                }
                self.attributes.insert(key);
            }
            for sample in resource.scope_profiles.iter().flat_map(|s| &s.profiles).flat_map(|p| &p.samples) {
                let mut pod = whose.clone();
                for attribute in sample.attribute_indices.iter().filter_map(|i| tables.attribute_table.get(*i as usize))
                {
                    let key = text(attribute.key_strindex);
                    if key == POD {
                        pod = value(&attribute.value);
                    }
                    self.attributes.insert(key);
                }
                let samples = sample.timestamps_unix_nano.len().max(sample.values.len()) as u64;
                *self.samples.entry(pod).or_insert(0) += samples;
            }
        }
    }
}
