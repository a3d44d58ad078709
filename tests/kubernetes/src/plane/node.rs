//! The node: containerd and the kubelet, both with everything in the cluster's folder.

use serde_json::json;

use super::{NODE_NAME, Plane, options};
use crate::images::{Image, PAUSE};
use crate::rooms::{DNS, NODE};

impl Plane {
    /// Starts both and waits until the node is ready.
    pub(super) fn node(&mut self) {
        self.networks();
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let socket = self.containerd.display().to_string();
        // A machine of tests may lack the right to lower the score of a process.
        let containerd = format!(
            "version = 2
root = '{root}'
state = '{state}'
[grpc]
address = '{socket}'
[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = '{PAUSE}'
restrict_oom_score_adj = true
[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.grpc.v1.cri'.cni]
bin_dir = '{plugins}'
conf_dir = '{networks}'
",
            root = at("containerd"),
            state = at("containerd-state"),
            plugins = self.binaries.join("cni").display(),
            networks = at("networks"),
        );
        let config = at("containerd.toml");
        std::fs::write(&config, containerd).unwrap();
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs", "failSwapOn": false, "makeIPTablesUtilChains": false,
            "clusterDNS": [DNS], "clusterDomain": "cluster.local", "resolvConf": "",
            "volumePluginDir": at("plugins"), "healthzBindAddress": "127.0.0.1",
            // A Secret that changes reaches its files with the next look at its pod: by default a minute.
            "syncFrequency": "5s",
            "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99,
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
        });
        let kubelet_config = at("kubelet.json");
        std::fs::write(&kubelet_config, kubelet.to_string()).unwrap();
        let [root, certificates, credentials] = ["kubelet", "kubelet-certificates", "kubeconfig"].map(at);
        let endpoint = format!("unix://{socket}");

        self.run("containerd", &[format!("--config={config}")]);
        self.until("containerd", "containerd", || {
            self.ctr().arg("version").output().is_ok_and(|output| output.status.success()).then_some(())
        });
        self.import(&Image::tools(&self.binaries));
        self.run(
            "kubelet",
            &options(&[
                ("config", &kubelet_config),
                ("kubeconfig", &credentials),
                ("container-runtime", "remote"),
                ("container-runtime-endpoint", &endpoint),
                ("hostname-override", NODE_NAME),
                ("node-ip", NODE),
                ("root-dir", &root),
                ("cert-dir", &certificates),
            ]),
        );
        let kubectl = self.kubectl.clone();
        self.until("kubelet", "a ready node", || {
            let node = kubectl.get(&["node", NODE_NAME])?;
            let conditions = node["status"]["conditions"].as_array()?;
            conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True").then_some(())
        });
    }

    /// Pods hang on a pair of links each; the node routes between them.
    fn networks(&self) {
        let folder = self.folder.path().join("networks");
        std::fs::create_dir(&folder).unwrap();
        let ranges = json!([[{"subnet": "10.98.0.0/24"}]]);
        let addresses = json!({
            "type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": self.folder.path().join("addresses"),
        });
        let list = json!({
            "cniVersion": "0.4.0", "name": "test",
            "plugins": [{"type": "ptp", "ipMasq": false, "ipam": addresses}],
        });
        std::fs::write(folder.join("10-test.conflist"), list.to_string()).unwrap();
    }
}
