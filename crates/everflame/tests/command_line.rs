//! The command line as people and scripts hold on to it: exit codes, one line that says what
//! to do, and the signals that a server ends on. Through the real program.

mod common;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use common::everflame;
use rustix::process::{Pid, Signal, kill_process};

const COMMANDS: [&[&str]; 15] = [
    &["up"],
    &["agent"],
    &["server"],
    &["record"],
    &["top"],
    &["diff"],
    &["symbols"],
    &["symbols", "push"],
    &["symbols", "list"],
    &["token"],
    &["token", "create"],
    &["token", "list"],
    &["token", "rotate"],
    &["token", "revoke"],
    &["doctor"],
];

fn output(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

/// Wrong use: 2, nothing on standard output, one line on standard error.
fn wrong_use(command: &mut Command) -> String {
    let out = output(command);
    let said = String::from_utf8(out.stderr).expect("text");
    assert_eq!(out.status.code(), Some(2), "{command:?}: {said}");
    assert!(out.stdout.is_empty(), "{command:?}");
    assert_eq!(said.lines().count(), 1, "{command:?}: {said}");
    said
}

struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("everflame is ready: ").unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { child, url }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }

    /// Its exit code, once it has ended.
    fn code(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }

    fn answers(&self) -> bool {
        output(&mut everflame(&["symbols", "list", "--server", &self.url])).status.success()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn server(data: &Path) -> Command {
    everflame(&["server", "--listen", "127.0.0.1:0", "--data", data.to_str().expect("text")])
}

#[test]
fn help_and_version_everywhere() {
    for words in std::iter::once(&[][..]).chain(COMMANDS) {
        for (option, starts) in [("--version", "everflame"), ("--help", "")] {
            let out = output(everflame(words).arg(option));
            let said = String::from_utf8(out.stdout).expect("text");
            assert_eq!(out.status.code(), Some(0), "{words:?} {option}");
            assert!(
                said.starts_with(starts) && !said.is_empty() && out.stderr.is_empty(),
                "{words:?} {option}: {said}"
            );
            assert!(option == "--help" || said.trim_end().ends_with(env!("CARGO_PKG_VERSION")), "{said}");
        }
    }
}

#[test]
fn wrong_use_is_one_line_and_2() {
    wrong_use(&mut everflame(&[]));
    wrong_use(&mut everflame(&["symbols"]));
    wrong_use(&mut everflame(&["no-such-command"]));
    for address in ["ftp://x", "https://", "http://", "http://:1", "http://a b"] {
        wrong_use(&mut everflame(&["top", "--server", address]));
        wrong_use(&mut everflame(&["agent", "--endpoint", address]));
    }
}

#[test]
fn switches_are_set_in_the_environment_as_people_write_them() {
    for yes in ["1", "true", "yes", "on"] {
        let said = wrong_use(everflame(&["agent"]).env("EVERFLAME_NO_SERVICE_ENV", yes));
        assert!(said.contains("--endpoint is missing"), "{yes}: {said}");
    }
}

#[test]
fn a_filter_that_names_nothing_is_not_taken() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let agent = || everflame(&["agent"]);
    for (filter, expected) in [
        (r#"{namspace="x"}"#, "`namspace` is no attribute of processes"),
        (r#"{namespace="x"} {pod="y"}"#, "expected `,` or the end, found `{`"),
        (r#"{process=~"("}"#, "expected a regular expression"),
        ("{}", "leave it out"),
    ] {
        for option in ["--allow", "--deny"] {
            let said = wrong_use(agent().args([option, filter]));
            assert!(said.contains(expected) && said.contains(option), "{said}");
        }
        let said = wrong_use(agent().env("EVERFLAME_DENY", filter));
        assert!(said.contains(expected), "{said}");
        std::fs::write(file.path(), format!("allow = ['{{process=\"x\"}}', '{filter}']")).expect("written");
        let said = wrong_use(agent().arg("--config").arg(file.path()));
        assert!(said.contains(expected), "{said}");
    }
    let good = r#"{namespace=~"shop|bank"}, {"k8s.pod.label.tier"!="x", pid="7"}"#;
    for filter in [good, "", " ", r#"process="x""#] {
        let said = wrong_use(agent().env("EVERFLAME_ALLOW", filter).args(["--deny", filter, "--deny", good]));
        assert!(said.contains("--endpoint is missing"), "{filter}: {said}");
    }
}

#[test]
fn the_log_level_goes_by_its_older_name_too() {
    let said = wrong_use(everflame(&["agent"]).env("PROFILING_LOG_LEVEL", "no=such=level"));
    assert!(said.contains("--log"), "{said}");
    for level in ["WARNING", "debug", "Info", ""] {
        let said = wrong_use(everflame(&["agent"]).env("PROFILING_LOG_LEVEL", level));
        assert!(said.contains("--endpoint is missing"), "{level}: {said}");
    }
    let ours = [("PROFILING_LOG_LEVEL", "no=such=level"), ("EVERFLAME_LOG", "warn")];
    assert!(wrong_use(everflame(&["agent"]).envs(ours)).contains("--endpoint is missing"));
}

#[test]
fn a_process_that_ended_is_not_recorded_for_ever() {
    let mut ended = Command::new("true").spawn().expect("true");
    let pid = ended.id().to_string();
    let until = Instant::now() + Duration::from_secs(60);
    let zombie = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    while !zombie() {
        assert!(Instant::now() < until, "`true` does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    let said = wrong_use(&mut everflame(&["record", "--duration", "0.1", "--pid", &pid]));
    assert!(said.contains("there is no such process"), "{said}");
    ended.wait().expect("a child");
}

#[test]
fn what_the_server_finds_wrong_is_wrong_use() {
    let data = tempfile::tempdir().expect("a directory");
    let mut server = Server::start(&mut server(data.path()));
    let said = wrong_use(&mut everflame(&["top", "--server", &server.url, "--query", "{"]));
    assert!(said.contains("label name"), "{said}");
    wrong_use(&mut everflame(&["top", "--server", &server.url, "--from", "now", "--until", "now-1h"]));
    let diff = |more: &[&str]| output(everflame(&["diff", "--server", &server.url]).args(more));
    for wrong in [["--base-query", "{"], ["--base-from", "now+1h"], ["--group", "a,b,c,d,e,f,g,h,i"]] {
        let said = wrong_use(everflame(&["diff", "--server", &server.url]).args(wrong));
        assert!(said.contains(&wrong[0][2..].replace('-', "_")), "{said}");
    }
    let nothing = diff(&[]);
    assert!(nothing.status.success() && nothing.stdout.starts_with(b"no samples match"), "{nothing:?}");
    let range = ["--from", "100", "--until", "200", "--base-until", "90", "--output", "json"];
    let answer: serde_json::Value = serde_json::from_slice(&diff(&range).stdout).expect("JSON");
    assert_eq!((&answer["base"]["samples"], answer["base"]["until"].as_f64()), (&0.into(), Some(90.0)), "{answer}");
    let bare = server.url.trim_start_matches("http://").to_owned();
    assert!(output(&mut everflame(&["top", "--server", &bare])).status.success());
    server.signal(Signal::INT);
    assert_eq!(server.code(), Some(0));
    let gone = output(&mut everflame(&["top", "--server", &server.url]));
    assert_eq!(gone.status.code(), Some(1));
    assert_eq!(String::from_utf8(gone.stderr).expect("text").lines().count(), 1);
}

/// Ctrl-C reaches every process of a terminal, and service managers signal every process of a
/// service: the server that is a part of `up` must wait for the sampler's last samples.
#[test]
fn a_server_within_up_ends_when_up_says_so() {
    let data = tempfile::tempdir().expect("a directory");
    let room = data.path().join("server");
    std::fs::create_dir(&room).expect("a directory");
    let directory = std::fs::File::open(&room).expect("a directory");
    let mut command = server(data.path());
    command.stdin(directory).env("EVERFLAME_INTERNAL_DATA_ON_STDIN", data.path());
    let mut server = Server::start(command.env("EVERFLAME_INTERNAL_ENDS_WITH_PARENT", "1"));
    for signal in [Signal::INT, Signal::TERM, Signal::INT] {
        server.signal(signal);
        assert!(server.answers(), "{signal:?} is not for it");
    }
    server.signal(Signal::USR1);
    assert_eq!(server.code(), Some(0));
}

#[test]
fn an_agent_that_cannot_listen_leaves_nothing_behind() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let spool = dir.path().join("spool");
    let arguments = ["agent", "--endpoint", "http://127.0.0.1:9", "--listen", &address, "--spool"];
    let out = output(everflame(&arguments).arg(&spool));
    let said = String::from_utf8(out.stderr).expect("text");
    assert_eq!(out.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot listen on") && said.lines().count() == 1, "{said}");
    assert!(!spool.try_exists().expect("readable"), "an account that nobody closes was opened");
}
