//! The image as a node runs it: one program in an otherwise empty root that is read-only, as
//! the user and with the rights that deploy/kubernetes says, by names that only the pod's
//! resolv.conf leads to, and with certificates that only the image has.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use everflame_tests::container::{Bundle, Container, Network};
use everflame_tests::everflame::binary;
use everflame_tests::image::Image;
use everflame_tests::machine::{finish, free_port, need_program, need_root, output, signal, wait_for};
use everflame_tests::{Api, Outcome};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use super::containers;

/// Whom deploy/kubernetes/server.yaml runs the server as, and the image whatever says nothing else.
const USER: u32 = 65532;
/// Bytes at most of what a node fetches and of what it keeps; docs/images.md says what it is.
const FETCHED: u64 = 16_000_000;
const KEPT: u64 = 40_000_000;
const AUTHORITIES: &str = "etc/ssl/certs/ca-certificates.crt";
const PATIENCE: Duration = Duration::from_secs(30);

/// The program and the authorities' certificates, and of a size that is stated.
pub fn what_is_in_it() -> Outcome {
    let image = Image::of_this_program()?;
    let mut files = image.files();
    files.sort();
    assert_eq!(files, [AUTHORITIES, "everflame"]);
    let config = &image.config["config"];
    assert_eq!(config["Entrypoint"][0], "/everflame");
    assert_eq!(config["User"], format!("{USER}:{USER}"));
    for said in [&config["Labels"], &image.manifest["annotations"]] {
        assert_eq!(said["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(said["org.opencontainers.image.licenses"], "Apache-2.0");
    }
    let root = tempfile::tempdir().unwrap();
    image.unpack(root.path());
    let program = fs::read(root.path().join("everflame")).unwrap();
    assert!(program == fs::read(binary()).unwrap(), "the program is the one that was built");
    let certificates = fs::read_to_string(root.path().join(AUTHORITIES)).unwrap();
    assert!(certificates.matches("BEGIN CERTIFICATE").count() > 50, "the authorities of the web");
    let (fetched, kept) = (image.compressed_bytes(), (program.len() + certificates.len()) as u64);
    println!("the image: {kept} bytes, {fetched} to fetch");
    assert!(fetched < FETCHED && kept < KEPT, "{fetched} of {FETCHED}, {kept} of {KEPT}");
    Ok(())
}

/// Every crate that is linked in, as cargo says, the C libraries, and which program it is.
pub fn what_it_is_made_of() -> Outcome {
    let image = Image::of_this_program()?;
    let materials = image.materials();
    let sum = output(Command::new("sha256sum").arg(binary()));
    let hashes = &materials["metadata"]["component"]["hashes"];
    assert_eq!(hashes[0]["content"].as_str(), sum.split_whitespace().next());
    let components = materials["components"].as_array().unwrap();
    let has = |start: &str| components.iter().any(|one| one["purl"].as_str().unwrap().starts_with(start));
    for purl in ["pkg:deb/debian/glibc@", "pkg:deb/debian/elfutils@", "pkg:cargo/rustls@", "pkg:cargo/libbpf-sys@"] {
        assert!(has(purl), "{purl} is missing");
    }
    assert!(!has("pkg:cargo/proptest@") && !has("pkg:cargo/serde_derive@"), "what builds and tests is not in it");
    for one in components.iter().filter(|one| one["purl"].as_str().unwrap().starts_with("pkg:cargo/")) {
        assert!(one["licenses"][0]["expression"].is_string() && one["hashes"][0]["content"].is_string(), "{one}");
    }
    Ok(())
}

/// The agent under the manifest's user, capabilities and seccomp profile profiles the host.
pub fn agent_with_six_capabilities() -> Outcome {
    let image = Image::of_this_program()?;
    let spool = tempfile::tempdir().unwrap();
    let mounts = [("/spool", spool.path()), ("/sys/fs/bpf", Path::new("/sys/fs/bpf"))];
    let container = Container { image: Some(&image), mounts: &mounts, network: Network::Host, ..Container::default() };
    containers::profiles_the_host(container).map(drop)
}

/// The server as nobody in particular, with no right and nothing to write to but its data.
pub fn server_without_rights() -> Outcome {
    need_root()?;
    need_program("runc")?;
    let image = Image::of_this_program()?;
    let data = tempfile::tempdir().unwrap();
    chown(data.path(), Some(USER), Some(USER)).unwrap();
    let mounts = [("/data", data.path())];
    let container = Container { network: Network::Host, mounts: &mounts, ..server(&image) };
    let port = free_port();
    let mut running =
        Running::start(container.bundle(&["server", "--listen", &format!("127.0.0.1:{port}"), "--data", "/data"]));
    let api = Api::new(&format!("http://127.0.0.1:{port}"));
    wait_for("the server's /readyz", PATIENCE, || (api.try_status("/readyz") == Some(200)).then_some(()));
    assert_eq!(api.get("/", &[]).0, 200, "the page");
    let log = running.stop();
    assert!(!log.contains(" WARN ") && !log.contains(" ERROR "), "{log}");
    Ok(())
}

/// Names are what /etc/resolv.conf leads to, and certificates are what the image, or a file, vouches for.
pub fn names_and_certificates() -> Outcome {
    need_root()?;
    for tool in ["runc", "ip", "dnsmasq"] {
        need_program(tool)?;
    }
    let image = Image::of_this_program()?;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let [resolv, nsswitch, authority, data] = ["resolv.conf", "nsswitch.conf", "ca.pem", "data"].map(at);
    let room = Room::with_names(&at("names.log"));
    // As a kubelet writes it.
    fs::write(&resolv, "search fleet.example example\nnameserver 127.0.0.1\noptions ndots:5\n").unwrap();
    // As a distribution may write it: with a module, which a static program must not load. This
    // one ends whoever does.
    fs::write(&nsswitch, "hosts: files trap resolve [!UNAVAIL=return] dns\n").unwrap();
    let trap = at("trap.so");
    let source = "__attribute__((constructor)) void trap(void) { __asm__(\"syscall\" ::\"a\"(231), \"D\"(99)); }";
    fs::write(at("trap.c"), source).unwrap();
    output(Command::new("gcc").args(["-shared", "-nostdlib", "-fPIC", "-o"]).arg(&trap).arg(at("trap.c")));
    let names = ["profiles.fleet.example".to_owned(), "profiles".to_owned()];
    fs::write(&authority, identity(folder.path(), &names)).unwrap();
    fs::create_dir(&data).unwrap();
    for path in [&data, &at("cert.pem"), &at("key.pem")] {
        chown(path, Some(USER), Some(USER)).unwrap();
    }

    let (certificate, key) = (at("cert.pem"), at("key.pem"));
    let mounts = [("/data", data.as_path()), ("/tls/cert.pem", &certificate), ("/tls/key.pem", &key)];
    let container = Container { network: Network::Named(&room.name), mounts: &mounts, ..server(&image) };
    let options = ["--tls-cert-file", "/tls/cert.pem", "--tls-key-file", "/tls/key.pem"];
    let listen = ["server", "--listen", "127.0.0.1:4040", "--data", "/data", "--allowed-hosts", &names.join(",")];
    let mut server = Running::start(container.bundle(&[&listen[..], &options].concat()));
    server.wait_until_ready();

    let own = [("/etc/resolv.conf", resolv.as_path())];
    let with_file = [own[0], ("/ca.pem", authority.as_path())];
    let bundled = [own[0], ("/etc/ssl/certs/ca-certificates.crt", authority.as_path())];
    let with_modules = [
        with_file[0],
        with_file[1],
        ("/etc/nsswitch.conf", nsswitch.as_path()),
        ("/lib/x86_64-linux-gnu/libnss_trap.so.2", trap.as_path()),
    ];
    let ask = |mounts: &[(&str, &Path)], host: &str, more: &[&str]| {
        let container = Container { capabilities: &[], host_processes: false, user: USER, mounts, ..container };
        let url = format!("https://{host}:4040");
        let bundle = container.bundle(&[&["top", "--server", url.as_str()], more].concat());
        let ended = finish(&mut bundle.command());
        (ended.status.success(), String::from_utf8_lossy(&ended.stderr).into_owned())
    };
    for name in &names {
        let (done, said) = ask(&with_file, name, &["--ca-file", "/ca.pem"]);
        assert!(done, "{name}: {said}");
        let (done, said) = ask(&with_modules, name, &["--ca-file", "/ca.pem"]);
        assert!(done, "{name}, with nsswitch.conf: {said}");
    }
    let (done, said) = ask(&bundled, &names[0], &[]);
    assert!(done, "authorities in the image's place: {said}");
    let (done, said) = ask(&own, &names[0], &[]);
    assert!(!done && said.contains("nobody whom this machine trusts"), "{said}");
    let (done, said) = ask(&with_file, "nowhere.fleet.example", &["--ca-file", "/ca.pem"]);
    assert!(!done && said.contains("nowhere.fleet.example"), "{said}");
    let asked = fs::read_to_string(at("names.log")).unwrap();
    assert!(asked.contains("profiles.fleet.example") && asked.contains("nowhere.fleet.example"), "{asked}");

    // The agent finds its server in the same way.
    let container =
        Container { image: Some(&image), network: container.network, mounts: &with_modules, ..Container::default() };
    let agent = [
        "agent",
        "--endpoint",
        "https://profiles:4040",
        "--ca-file",
        "/ca.pem",
        "--spool",
        "/spool",
        "--duration",
        "4",
    ];
    let ended = finish(&mut container.bundle(&agent).command());
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    let json = ["--ca-file", "/ca.pem", "--output", "json"];
    let container = Container { capabilities: &[], ..container };
    let told =
        output(&mut container.bundle(&[&["top", "--server", "https://profiles:4040"], &json[..]].concat()).command());
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["samples"].as_u64() > Some(0) || told["count"].as_u64() > Some(0), "{told}");
    server.stop();
    Ok(())
}

/// What the manifest gives the server.
fn server(image: &Image) -> Container<'_> {
    Container { image: Some(image), user: USER, capabilities: &[], host_processes: false, ..Container::default() }
}

/// A container that runs.
struct Running {
    child: Child,
    folder: tempfile::TempDir,
    // Removes the container when it is dropped.
    _bundle: Bundle,
}

impl Running {
    fn start(bundle: Bundle) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| File::create(folder.path().join(name)).unwrap();
        let mut command = bundle.command();
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("log"));
        Self { child: command.spawn().unwrap(), folder, _bundle: bundle }
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap()
    }

    fn wait_until_ready(&mut self) {
        wait_for("the line of readiness", PATIENCE, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{ended:?}: {}", self.read("log"));
            self.read("out").contains("everflame is ready").then_some(())
        });
    }

    /// Ends it as a runtime does, and says what it logged.
    fn stop(&mut self) -> String {
        signal(self.child.id(), "TERM");
        let status = wait_for("the end of the container", PATIENCE, || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}: {}", self.read("log"));
        self.read("log")
    }
}

/// A network of nobody else, with a server of names at 127.0.0.1 that knows one.
struct Room {
    name: String,
    resolver: Child,
}

impl Room {
    fn with_names(log: &Path) -> Self {
        let name = format!("everflame-{}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]));
        output(Command::new("ip").args(["-n", &name, "link", "set", "lo", "up"]));
        let resolver = Command::new("ip")
            .args(["netns", "exec", &name, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="])
            .args(["--user=root", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1", "--log-queries"])
            .args(["--local=/example/", "--address=/profiles.fleet.example/127.0.0.1"])
            .arg(format!("--log-facility={}", log.display()))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { name, resolver }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = self.resolver.kill();
        let _ = self.resolver.wait();
        finish(Command::new("ip").args(["netns", "delete", &self.name]));
    }
}

/// Puts a certificate for these names, and its key, into a folder, and says who vouches for it.
fn identity(folder: &Path, names: &[String]) -> String {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    authority.pem()
}
