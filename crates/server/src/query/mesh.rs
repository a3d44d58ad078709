//! `GET /api/v1/mesh`: what the proxies of a service mesh cost, by namespace and service, beside
//! what the services themselves use.
//!
//! A proxy counts for the service that its pod runs: the one that most of the CPU time of the
//! pod's other containers is of. Where a pod runs nothing else (gateways, waypoints), it is the
//! proxy's own service.

use std::collections::BTreeMap;

use axum::http::Uri;
use everflame_profile::Str;
use everflame_store::{Selection, StackSums, Store};
use serde_json::{Value, json};

use super::{covered, json::seconds, params::Params};
use crate::web::error::ApiError;

/// Names of containers that are proxies, unless said.
pub const PROXIES: &str = "istio-proxy,linkerd-proxy";
/// Rows in an answer unless said.
pub const DEFAULT_ROWS: usize = 100;
/// Most names of containers.
pub const MAX_PROXIES: usize = 16;
/// What tells pods, services and containers apart, in this order.
const GROUP: [&str; 5] = ["k8s.namespace.name", "k8s.pod.name", "host.name", "service.name", "k8s.container.name"];

/// What is asked for.
#[derive(Debug)]
pub struct Request {
    selection: Selection,
    proxies: Vec<String>,
    limit: usize,
}

/// CPU time and the samples that it is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Cost {
    samples: u64,
    nanos: i64,
}

impl Cost {
    fn add(&mut self, other: Self) {
        self.samples += other.samples;
        self.nanos += other.nanos;
    }
}

/// A pod, or the pods of a service.
#[derive(Debug, Default)]
struct Pod {
    proxy: Cost,
    workload: Cost,
    /// Of its other containers, and of its proxies, by service.
    services: BTreeMap<Str, Cost>,
    proxy_services: BTreeMap<Str, Cost>,
}

#[derive(Debug, Default)]
struct Row {
    pods: u64,
    proxy: Cost,
    workload: Cost,
}

impl Request {
    /// Reads the parameters.
    pub fn new(uri: &Uri) -> Result<Self, ApiError> {
        let params = Params::new(uri)?;
        let selection = params.selection()?;
        if selection.sample_type != "cpu" {
            return Err(ApiError::bad_request("what a mesh costs is told in CPU time: leave type out"));
        }
        let proxies = params.get("containers").unwrap_or(PROXIES).split(',').map(str::trim);
        let proxies: Vec<String> = proxies.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        // What Kubernetes takes as a container's name.
        let plain = |name: &String| name.len() <= 63 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if proxies.is_empty() || proxies.len() > MAX_PROXIES || !proxies.iter().all(plain) {
            return Err(ApiError::bad_request(format!(
                "containers: give names of proxies' containers, {MAX_PROXIES} at most, with commas in between"
            )));
        }
        Ok(Self { selection, proxies, limit: params.number("limit", DEFAULT_ROWS)? })
    }

    /// Answers from the store. Blocks.
    pub fn answer(&self, store: &dyn Store) -> Result<Vec<u8>, ApiError> {
        let sums = store.stacks(&self.selection, &GROUP.map(str::to_owned))?;
        let mut rows: Vec<_> = (self.rows(&sums).into_iter()).filter(|(_, row)| row.proxy.samples > 0).collect();
        rows.sort_by(|a, b| b.1.proxy.nanos.cmp(&a.1.proxy.nanos).then_with(|| a.0.cmp(&b.0)));
        let (mut proxy, mut workload) = (Cost::default(), Cost::default());
        for (_, row) in &rows {
            proxy.add(row.proxy);
            workload.add(row.workload);
        }
        let shown = if self.limit == 0 { rows.len() } else { self.limit };
        let written: Vec<Value> = (rows.iter().take(shown))
            .map(|((namespace, service), row)| {
                json!({
                    "namespace": namespace.as_ref(),
                    "service": service.as_ref(),
                    "pods": row.pods,
                    "proxy_samples": row.proxy.samples,
                    "proxy_seconds": seconds(row.proxy.nanos),
                    "workload_samples": row.workload.samples,
                    "workload_seconds": seconds(row.workload.nanos),
                })
            })
            .collect();
        let mut answer = covered(&sums.covered);
        answer.insert("containers".into(), self.proxies.clone().into());
        answer.insert("proxy_seconds".into(), seconds(proxy.nanos).into());
        answer.insert("workload_seconds".into(), seconds(workload.nanos).into());
        answer.insert("count".into(), rows.len().into());
        answer.insert("rows".into(), written.into());
        Ok(Value::Object(answer).to_string().into_bytes())
    }

    /// By namespace and service, of all that is in pods.
    fn rows(&self, sums: &StackSums) -> BTreeMap<(Str, Str), Row> {
        let mut pods: BTreeMap<[Str; 3], Pod> = BTreeMap::new();
        for sum in &sums.sums {
            let Some([namespace, pod, node, service, container]) =
                sums.groups.get(sum.group as usize).and_then(|group| <&[Str; 5]>::try_from(group.as_slice()).ok())
            else {
                continue;
            };
            if pod.is_empty() {
                continue;
            }
            let cost = Cost { samples: sum.samples, nanos: sum.value };
            let pod = pods.entry([namespace, pod, node].map(Str::clone)).or_default();
            let (all, services) = match self.proxies.iter().any(|proxy| **proxy == **container) {
                true => (&mut pod.proxy, &mut pod.proxy_services),
                false => (&mut pod.workload, &mut pod.services),
            };
            all.add(cost);
            services.entry(Str::clone(service)).or_default().add(cost);
        }
        let mut rows: BTreeMap<(Str, Str), Row> = BTreeMap::new();
        for ([namespace, ..], pod) in pods {
            let own = if pod.services.is_empty() { &pod.proxy_services } else { &pod.services };
            let main = own.iter().max_by(|a, b| (a.1.nanos, b.0).cmp(&(b.1.nanos, a.0)));
            let main = main.map(|(service, _)| Str::clone(service)).unwrap_or_default();
            for (service, cost) in pod.services {
                rows.entry((Str::clone(&namespace), service)).or_default().workload.add(cost);
            }
            let row = rows.entry((namespace, main)).or_default();
            row.proxy.add(pod.proxy);
            row.pods += u64::from(pod.proxy.samples > 0);
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use everflame_profile::Completeness;
    use everflame_store::StackSum;

    use super::*;

    fn request(query: &str) -> Result<Request, ApiError> {
        Request::new(&format!("/api/v1/mesh?{query}").parse().expect("a URI"))
    }

    fn rows(all: &[([&str; 5], u64)]) -> Vec<(String, String, u64, u64, u64)> {
        let mut sums = StackSums::default();
        for (group, samples) in all {
            let completeness = Completeness::Complete;
            let (group_number, value) = (sums.groups.len() as u32, *samples as i64);
            sums.groups.push(group.iter().map(|value| Str::from(*value)).collect());
            sums.sums.push(StackSum { group: group_number, node: u32::MAX, completeness, samples: *samples, value });
        }
        let rows = request("").expect("a request").rows(&sums);
        rows.into_iter()
            .map(|((n, s), r)| (n.to_string(), s.to_string(), r.pods, r.proxy.samples, r.workload.samples))
            .collect()
    }

    #[test]
    fn a_proxy_counts_for_what_its_pod_runs() {
        let all = rows(&[
            (["shop", "cart-1", "n1", "cart", "app"], 60),
            // Its environment names the program, nothing names the sidecar but the pod.
            (["shop", "cart-1", "n1", "cart-pod", "istio-proxy"], 30),
            (["shop", "cart-1", "n1", "logs", "shipper"], 5),
            (["shop", "cart-2", "n2", "cart", "app"], 40),
            (["shop", "cart-2", "n2", "cart-pod", "istio-proxy"], 10),
            (["istio-system", "gateway-1", "n1", "gateway", "istio-proxy"], 7),
            (["bank", "ledger-1", "n1", "ledger", "app"], 9),
            (["", "", "n1", "sshd", ""], 100),
        ]);
        let row = |n: &str, s: &str, pods, proxy, workload| (n.to_owned(), s.to_owned(), pods, proxy, workload);
        assert_eq!(
            all,
            [
                row("bank", "ledger", 0, 0, 9),
                row("istio-system", "gateway", 1, 7, 0),
                row("shop", "cart", 2, 40, 100),
                row("shop", "logs", 0, 0, 5),
            ]
        );
    }

    #[test]
    fn parameters() {
        assert_eq!(request("").expect("defaults").proxies, ["istio-proxy", "linkerd-proxy"]);
        assert_eq!(request("containers=envoy,%20proxy").expect("names").proxies, ["envoy", "proxy"]);
        for bad in ["containers=,", "containers=a.b", "type=wall", &format!("containers={}", "a,".repeat(17))] {
            assert!(request(&bad.replace(' ', "%20")).is_err(), "{bad}");
        }
    }
}
