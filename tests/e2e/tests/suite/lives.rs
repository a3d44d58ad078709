//! Processes of a few milliseconds: their CPU time is shown, under the right name, in whole
//! stacks. The truth is what the kernel says that they used.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use everflame_tests::machine::{need_program, need_root};
use everflame_tests::target::built;
use everflame_tests::{Api, Everflame, Outcome, Skip, Target};

/// A late sample waits up to five seconds, and a batch is sent each five.
const QUIET: Duration = Duration::from_secs(8);
/// Of all samples of short lives, whole ones.
const WHOLE: f64 = 0.98;

/// One kind of short lives, and what came of it.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    milliseconds: u32,
    /// Of two starters side by side, each.
    count: u32,
    how: &'static str,
}

/// Sums over kinds.
#[derive(Debug, Default)]
struct Sums {
    samples: u64,
    whole: u64,
    shown: f64,
    truth: f64,
}

pub fn at_97_hertz() -> Outcome {
    need_root()?;
    let up = Everflame::up(97);
    let folder = tempfile::tempdir().unwrap();
    let kind = |name, milliseconds, count, how| run(folder.path(), Kind { name, milliseconds, count, how });
    let seen = [kind("life-5", 5, 900, "seen")?, kind("life-20", 20, 250, "seen")?, kind("life-50", 50, 100, "seen")?];
    let fresh = kind("life-new", 5, 400, "fresh")?;
    let removed = kind("life-gone", 50, 40, "removed")?;
    settle(up.api());
    Sums::of(up.api(), &seen).judge();
    Sums::of(up.api(), &[fresh]).judge();
    // Whose file is gone before anybody looks has a name and its time; its stacks say what they lack.
    Sums::of(up.api(), &[removed]).judge_time();
    Ok(())
}

pub fn at_20_hertz() -> Outcome {
    need_root()?;
    let up = Everflame::up(20);
    let folder = tempfile::tempdir().unwrap();
    let kind = |name, milliseconds, count| run(folder.path(), Kind { name, milliseconds, count, how: "seen" });
    let seen = [kind("life-5", 5, 1600)?, kind("life-20", 20, 400)?, kind("life-50", 50, 160)?];
    settle(up.api());
    Sums::of(up.api(), &seen).judge();
    Ok(())
}

/// New programs in another root: the agent finds the files of those that are gone through
/// their parent, which lives.
pub fn in_another_root() -> Outcome {
    need_root()?;
    need_program("unshare")?;
    let program = built("lives_musl")?;
    let up = Everflame::up(97);
    // Not below what the agent sees at the same path.
    let script = format!(
        "mount -t tmpfs none /mnt && mkdir /mnt/proc && mount -t proc none /mnt/proc && cp {} /mnt/lives && \
         exec chroot /mnt /lives /life-jail 400 10 fresh",
        program.display()
    );
    Target::spawn(Command::new("unshare").args(["--mount", "sh", "-c", &script])).truth();
    settle(up.api());
    Sums::of(up.api(), &[Lived { name: "life-jail", seconds: 0.0 }]).judge_stacks();
    Ok(())
}

/// What the kernel says that a kind used.
#[derive(Debug, Clone, Copy)]
struct Lived {
    name: &'static str,
    seconds: f64,
}

/// Two starters side by side, so that both CPUs are busy.
fn run(folder: &Path, kind: Kind) -> Result<Lived, Skip> {
    let program = built("lives")?;
    let Kind { name, milliseconds, count, how } = kind;
    let path = folder.join(name);
    let arguments = [path.to_str().unwrap(), &count.to_string(), &milliseconds.to_string(), how];
    let starters: Vec<Target> = (0..2).map(|_| Target::start(&program, &arguments)).collect();
    let mut seconds = 0.0;
    for starter in starters {
        let truth = starter.truth();
        assert_eq!(truth["failed"], 0, "{truth}");
        seconds += truth["seconds"].as_f64().unwrap();
    }
    Ok(Lived { name, seconds })
}

/// Waits until no more samples of short lives come.
fn settle(api: &Api) {
    api.settle("{process=~\"life-.*\"}", QUIET);
}

impl Sums {
    fn of(api: &Api, kinds: &[Lived]) -> Self {
        let mut sums = Self::default();
        for Lived { name, seconds } in kinds {
            let graph = api.graph(&format!("{{process=\"{name}\"}}"));
            let whole = graph.count(|path| !path.marked());
            println!(
                "{name}: {} samples, {:.2} % whole, {:.3} s shown of {seconds:.3} s, {:?}",
                graph.samples,
                whole as f64 * 100.0 / graph.samples.max(1) as f64,
                graph.value,
                graph.incomplete
            );
            assert_eq!(whole, graph.complete, "every stack that is not whole says so");
            sums.samples += graph.samples;
            sums.whole += whole;
            sums.shown += graph.value;
            sums.truth += seconds;
        }
        sums
    }

    fn judge(&self) {
        self.judge_stacks();
        self.judge_time();
    }

    /// A share of n samples varies by chance: it fails where it is surely below, by three deviations.
    fn judge_stacks(&self) {
        assert!(self.samples > 200, "{self:?} is too little to tell");
        let n = self.samples as f64;
        let noise = 3.0 * (WHOLE * (1.0 - WHOLE) / n).sqrt();
        assert!(self.whole as f64 >= (WHOLE - noise) * n, "too few whole stacks: {self:?}");
    }

    /// A tick hits a life or not, so that n of them vary by less than the root of n. Of the
    /// truth, the time between fork and exec belongs to the starter's program and is shown there.
    fn judge_time(&self) {
        let noise = 3.0 / (self.samples.max(1) as f64).sqrt();
        assert!(self.shown >= (WHOLE - noise) * self.truth, "too little of the CPU time is shown: {self:?}");
        assert!(self.shown <= (1.02 + noise) * self.truth, "more CPU time is shown than was used: {self:?}");
    }
}
