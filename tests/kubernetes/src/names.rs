//! The cluster's DNS: answers for the name of a service with the addresses of its pods, as for
//! a headless one, so that no proxy of services is needed.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kubectl::Kubectl;
use crate::rooms::DNS;

const SUFFIX: &str = ".svc.cluster.local";
const NO_SUCH_NAME: u8 = 3;
const ADDRESS: u16 = 1;

/// Answers until it is dropped.
#[derive(Debug)]
pub struct Names {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Names {
    /// Listens in this network.
    pub fn serve(kubectl: Arc<Kubectl>) -> Self {
        let socket = UdpSocket::bind((DNS, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut packet = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut packet) else { continue };
                if let Some(answer) = answer(&packet[..length], |name| addresses(&kubectl, name)) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The addresses behind `SERVICE.NAMESPACE.svc.cluster.local`; nothing where there is no such service.
fn addresses(kubectl: &Kubectl, name: &str) -> Option<Vec<Ipv4Addr>> {
    let (service, namespace) = name.strip_suffix(SUFFIX)?.split_once('.')?;
    let endpoints = kubectl.get(&["endpoints", service, "--namespace", namespace])?;
    let subsets = endpoints["subsets"].as_array().cloned().unwrap_or_default();
    let addresses = subsets.iter().flat_map(|s| s["addresses"].as_array().cloned().unwrap_or_default());
    Some(addresses.filter_map(|a| a["ip"].as_str()?.parse().ok()).collect())
}

/// The answer to a query with one question.
fn answer(query: &[u8], look_up: impl Fn(&str) -> Option<Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(query.get(at..at + length)?).ok()?.to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(12..at + 4)?;
    let found = look_up(&labels.join("."));
    let code = if found.is_some() { 0 } else { NO_SUCH_NAME };
    let mut addresses = found.unwrap_or_default();
    if kind != ADDRESS {
        addresses.clear();
    }
    let count = u16::try_from(addresses.len()).ok()?.to_be_bytes();
    let mut packet = query[..2].to_vec();
    packet.extend([0x85, 0x80 | code, 0, 1, count[0], count[1], 0, 0, 0, 0]);
    packet.extend(question);
    for address in addresses {
        // The question's name, an address of the internet, good for a second, four bytes.
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        packet.extend(address.octets());
    }
    Some(packet)
}
