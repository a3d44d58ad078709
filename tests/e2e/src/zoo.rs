//! A zoo of busy processes, so that both cores are full of every kind of code: a real Envoy,
//! nginx, PostgreSQL and Redis under load, CPython, JVMs, Node, OpenSSL's assembly, Go, Rust,
//! C and C++ with and without optimisation, deep recursions, and short lives.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::machine::{cache, free_port, need_program, output, repository, wait_for};
use crate::runner::Skip;
use crate::target::{built, envoy_configuration};
use crate::{Api, Target};

/// One kind of program.
#[derive(Debug)]
pub struct Animal {
    /// What it is.
    pub name: &'static str,
    /// Selects its samples.
    pub query: String,
    /// The program itself, and what keeps it busy.
    targets: Vec<Target>,
}

/// Its animals; they end with it.
#[derive(Debug)]
pub struct Zoo {
    /// Those that could be had here.
    pub animals: Vec<Animal>,
    /// Those that could not, and why.
    pub absent: Vec<(&'static str, Skip)>,
    folder: tempfile::TempDir,
}

type Opened = Result<Animal, Skip>;

impl Zoo {
    /// Opens a small one for a time, where all live long.
    pub fn open(seconds: u32) -> Self {
        let (mut zoo, text) = (Self::empty(), seconds.to_string());
        zoo.add_known(&[("C++ -O2", "truth_cpp", ""), ("Go", "truth_go", ""), ("Rust", "truth_rust", "")], &text);
        zoo.add_runtimes(&text);
        zoo.add("Envoy", zoo.envoy(&text));
        zoo
    }

    /// Opens one with every kind of program that lives long.
    pub fn open_whole(seconds: u32) -> Self {
        let (mut zoo, text) = (Self::empty(), seconds.to_string());
        // First those that have to be waited for.
        zoo.add("PostgreSQL", zoo.postgres(&text));
        zoo.add("Envoy", zoo.envoy(&text));
        zoo.add("nginx", zoo.nginx(&text));
        zoo.add("Redis", zoo.redis());
        zoo.add_runtimes(&text);
        let classes = cache().join("targets").to_string_lossy().into_owned();
        let asked = ["-Xcomp", "-XX:TieredStopAtLevel=1", "-XX:+PreserveFramePointer", "-cp", &classes, "Truth", &text];
        zoo.add(FRAME_POINTERS, run(FRAME_POINTERS, "java", &asked));
        zoo.add_known(
            &[
                ("C++ -O0", "truth_cpp_O0", ""),
                ("C++ -O2", "truth_cpp", ""),
                ("C++ -O3", "truth_cpp_O3", ""),
                ("C++ -O2 LTO", "truth_cpp_lto", ""),
                ("C++, 300 deep", "deep", "300"),
                ("C++, 1,000 deep", "deep", "1000"),
                ("C, static musl", "truth_musl", ""),
                ("Rust", "truth_rust", ""),
                ("Go", "truth_go", ""),
            ],
            &text,
        );
        let assembly =
            ["speed", "-seconds", "1", "aes-128-cbc", "sha256", "ghash", "rsa2048", "ecdsap256", "ecdhx25519"];
        zoo.add("OpenSSL", run("OpenSSL", "openssl", &assembly));
        zoo
    }

    /// The process ids of its programs and of what keeps them busy.
    pub fn pids(&self) -> Vec<u32> {
        self.animals.iter().flat_map(|animal| &animal.targets).map(Target::pid).collect()
    }

    fn empty() -> Self {
        Self { animals: Vec::new(), absent: Vec::new(), folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// Programs with known truth: their name, the program, and a third argument.
    fn add_known(&mut self, programs: &[(&'static str, &str, &str)], seconds: &str) {
        for (name, program, more) in programs {
            let mut arguments = vec![seconds, "0"];
            arguments.extend(Some(*more).filter(|more| !more.is_empty()));
            self.add(name, built(program).map(|path| Animal::one(name, Target::start(&path, &arguments))));
        }
    }

    fn add_runtimes(&mut self, seconds: &str) {
        let scripts = repository().join("tests/targets");
        let script = |name: &str| scripts.join(name).to_string_lossy().into_owned();
        let classes = cache().join("targets").to_string_lossy().into_owned();
        self.add("CPython", run("CPython", "/usr/bin/python3", &[&script("truth.py"), seconds]));
        self.add("Node", run("Node", "node", &[&script("truth.js"), seconds]));
        self.add(JVM, run(JVM, "java", &["-cp", &classes, "Truth", seconds]));
    }

    fn add(&mut self, name: &'static str, animal: Opened) {
        match animal {
            Ok(animal) => self.animals.push(animal),
            Err(reason) => self.absent.push((name, reason)),
        }
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("the temporary folder can be written");
        path
    }

    fn envoy(&self, seconds: &str) -> Opened {
        let binary = fetched("envoy")?;
        let port = free_port();
        let configuration = self.file("envoy.json", &envoy_configuration(port));
        let arguments = ["--concurrency", "1", "--disable-hot-restart", "-l", "critical", "-c"];
        let envoy = Target::spawn(Command::new(binary).args(arguments).arg(configuration));
        under_wrk("Envoy", envoy, port, seconds)
    }

    fn nginx(&self, seconds: &str) -> Opened {
        let binary = fetched("nginx/usr/sbin/nginx")?;
        let (port, folder) = (free_port(), self.folder.path().display());
        // One process, so that it ends with the test.
        let configuration = format!(
            "daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr; events {{}}\n\
             http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; gzip on;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ return 200 hello; }} }} }}\n"
        );
        let configuration = self.file("nginx.conf", &configuration);
        let nginx = Target::spawn(Command::new(binary).args(["-e", "stderr", "-c"]).arg(configuration));
        under_wrk("nginx", nginx, port, seconds)
    }

    fn redis(&self) -> Opened {
        // Debian has the server in its tools, under the name of one of them.
        let binary = fetched("redis-server")?;
        need_program("redis-benchmark")?;
        let port = free_port().to_string();
        let redis = Target::spawn(Command::new(binary).current_dir(self.folder.path()).args([
            "--port",
            &port,
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ]));
        let address = format!("127.0.0.1:{port}");
        wait_for("Redis", Duration::from_secs(60), || std::net::TcpStream::connect(&address).ok());
        let load = ["-p", &port, "-q", "-n", "100000000", "-c", "8", "-t", "set,get,lpush,zadd,mset"];
        let load = Target::spawn(Command::new("redis-benchmark").args(load));
        Ok(Animal::under_load("Redis", redis, load))
    }

    fn postgres(&self, seconds: &str) -> Opened {
        let missing = || Skip("needs PostgreSQL (scripts/setup.sh test)".into());
        let versions = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| missing())?;
        let newest = versions.flatten().map(|entry| entry.path().join("bin")).max().ok_or_else(missing)?;
        need_program("pgbench")?;
        // It refuses to be root.
        let postgres = |program: PathBuf| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        };
        let data = tempfile::tempdir_in("/tmp").expect("a temporary folder");
        output(Command::new("chown").arg("postgres:").arg(data.path()));
        // It removes itself with the folder: the server's files are there and nowhere else.
        let data = data.keep();
        let folder = data.display().to_string();
        output(postgres(newest.join("initdb")).args(["-A", "trust", "--no-sync", "-D", &folder]));
        let mut server = postgres(newest.join("postgres"));
        server.args(["-D", &folder, "-k", &folder, "-c", "listen_addresses=", "-c", "fsync=off"]);
        let server = Target::spawn(&mut server).ended_by("INT", data.clone());
        wait_for("PostgreSQL", Duration::from_secs(60), || {
            data.join("postmaster.pid").is_file().then_some(())?;
            Command::new("pgbench")
                .args(["-h", &folder, "-U", "postgres", "-i", "-q", "postgres"])
                .output()
                .ok()
                .filter(|done| done.status.success())
        });
        let load = ["-h", &folder, "-U", "postgres", "-S", "-c", "2", "-T", seconds, "postgres"];
        let mut animal = Animal::under_load("PostgreSQL", server, Target::spawn(Command::new("pgbench").args(load)));
        animal.query = "{process=\"postgres\"}".into();
        Ok(animal)
    }
}

/// A JVM as it is started by most.
pub const JVM: &str = "JVM";
/// A JVM that was asked for what a profiler without its own tables needs.
pub const FRAME_POINTERS: &str = "JVM, compiled, frame pointers";

impl Animal {
    fn one(name: &'static str, target: Target) -> Self {
        let query = format!("{{pid=\"{}\"}}", target.pid());
        Self { name, query, targets: vec![target] }
    }

    fn under_load(name: &'static str, target: Target, load: Target) -> Self {
        let mut animal = Self::one(name, target);
        animal.targets.insert(0, load);
        animal
    }

    /// The processes that are known by their id: the program's own is the last.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.targets.iter().map(Target::pid)
    }
}

/// A program that `scripts/setup.sh test` has put into the cache.
fn fetched(name: &str) -> Result<PathBuf, Skip> {
    let path = cache().join(name);
    if path.is_file() { Ok(path) } else { Err(Skip(format!("needs {name} (scripts/setup.sh test)"))) }
}

fn run(name: &'static str, program: &str, arguments: &[&str]) -> Opened {
    need_program(program)?;
    Ok(Animal::one(name, Target::spawn(Command::new(program).args(arguments))))
}

fn under_wrk(name: &'static str, server: Target, port: u16, seconds: &str) -> Opened {
    need_program("wrk")?;
    let site = Api::new(&format!("http://127.0.0.1:{port}"));
    wait_for(name, Duration::from_secs(60), || (site.try_status("/") == Some(200)).then_some(()));
    let wrk = Target::spawn(Command::new("wrk").args(["-t1", "-c16", &format!("-d{seconds}s"), site.url()]));
    Ok(Animal::under_load(name, server, wrk))
}
