//! Bad surroundings: a full disk, a directory that cannot be used, damaged and
//! newer files. A clear error, and nothing else lost.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod common;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use common::{all, id, now, options, simple, total};
use everflame_profile::Str;
use everflame_store::{Embedded, Options, Store, StoreError};

/// A small file system of its own.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            eprintln!("SKIPPED: cannot mount a tmpfs (needs root)");
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// A batch of one sample whose text does not compress: about 20 KB.
fn bulky(number: u64) -> everflame_profile::Batch {
    let mut batch = simple(Some(id(number)), now(), 1);
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let noise = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(33 + (state % 90) as u8)
    });
    batch.profiles[0].samples[0].thread = Str::from(noise.take(24_000).collect::<String>());
    batch
}

#[test]
fn a_full_disk_refuses_batches_and_loses_nothing() {
    let Some(disk) = Tmpfs::mount("8m") else { return };
    let filler = disk.path().join("filler");
    fs::write(&filler, vec![1; 6 << 20]).unwrap();
    let dir = disk.path().join("data");
    let store = Embedded::open(options(&dir)).unwrap();
    let mut stored = Vec::new();
    let mut number = 0;
    let error = loop {
        match store.append(&bulky(number), None, now()) {
            Ok(_) => stored.push(number),
            Err(error) => break error,
        }
        number += 1;
    };
    assert!(matches!(&error, StoreError::DiskFull { path } if *path == dir.display().to_string()), "{error}");
    assert!(stored.len() > 20);
    assert_eq!(total(&store), stored.len() as u64);
    // Many at once: each is told, none is stored in part.
    std::thread::scope(|scope| {
        for number in 1000..1008 {
            let store = &store;
            scope.spawn(move || {
                assert!(matches!(store.append(&bulky(number), None, now()), Err(StoreError::DiskFull { .. })))
            });
        }
    });
    // A block does not fit either; what it would hold stays in the log.
    let error = store.flush().unwrap_err();
    assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
    assert_eq!(total(&store), stored.len() as u64);
    // Killed in this state, nothing is lost, and opening needs no room.
    drop(store);
    let store = Embedded::open(options(&dir)).unwrap();
    assert_eq!((total(&store), store.stats().torn_records), (stored.len() as u64, 0));
    // The same batch goes in once there is room.
    fs::remove_file(&filler).unwrap();
    assert_eq!(store.append(&bulky(number), None, now()).unwrap().stored, 1);
    assert_eq!(store.append(&bulky(0), None, now()).unwrap().duplicates, 1);
    store.flush().unwrap();
    assert_eq!(total(&store), stored.len() as u64 + 1);
    drop(store);
    let store = Embedded::open(options(&dir)).unwrap();
    assert_eq!(total(&store), stored.len() as u64 + 1);
}

/// What batches that never came to the log have left in memory neither grows without
/// end nor is missing from those that do.
#[test]
fn a_disk_that_stays_full_leaves_nothing_behind() {
    let Some(disk) = Tmpfs::mount("8m") else { return };
    let dir = disk.path().join("data");
    let open = || Embedded::open(Options { head_bytes: 300_000, ..options(&dir) }).unwrap();
    let store = open();
    let mut stored = 0;
    for first in [1_000, 2_000] {
        // The second time, the head has rows.
        let filler = disk.path().join("filler");
        let mut file = fs::File::create(&filler).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        drop(file);
        for number in first..first + 60 {
            let error = store.append(&bulky(number), None, now()).unwrap_err();
            assert!(matches!(error, StoreError::DiskFull { .. } | StoreError::Busy(_)), "{error}");
        }
        fs::remove_file(&filler).unwrap();
        for number in first + 50..first + 60 {
            let taken = (0..1_000).any(|_| match store.append(&bulky(number), None, now()) {
                Err(StoreError::Busy(_)) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                    false
                }
                other => other.unwrap().stored == 1,
            });
            assert!(taken, "there is room now");
            stored += 1;
        }
        assert_eq!(total(&store), stored);
    }
    drop(store);
    let store = open();
    assert_eq!((total(&store), store.stats().torn_records), (stored, 0));
}

#[test]
fn a_directory_that_cannot_be_written_is_said() {
    let Some(disk) = Tmpfs::mount("1m") else { return };
    let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(disk.path()).status().unwrap();
    assert!(remount.success());
    let error = Embedded::open(options(&disk.path().join("data"))).unwrap_err();
    assert!(error.to_string().contains("make it writable or choose another with --data"), "{error}");
    assert!(error.to_string().contains(&disk.path().display().to_string()), "{error}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    Embedded::open(options(&dir.path().join("file/data"))).unwrap_err();
}

#[test]
fn one_process_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(options(dir.path())).unwrap();
    let error = Embedded::open(options(dir.path())).unwrap_err();
    assert!(error.to_string().contains("another everflame uses the data directory"), "{error}");
    drop(store);
    Embedded::open(options(dir.path())).unwrap();
}

#[test]
fn newer_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(options(dir.path())).unwrap();
    store.append(&simple(None, now(), 1), None, now()).unwrap();
    store.flush().unwrap();
    drop(store);
    for (file, old, new) in [
        ("VERSION".to_owned(), "\"format\":2", "\"format\":3"),
        ("state.json".to_owned(), "\"version\":1", "\"version\":2"),
        (
            format!("blocks/{}/meta.json", block(dir.path()).file_name().unwrap().to_str().unwrap()),
            "\"version\": 1",
            "\"version\": 2",
        ),
    ] {
        let path = dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old));
        fs::write(&path, text.replace(old, new)).unwrap();
        let error = Embedded::open(options(dir.path())).unwrap_err();
        assert!(error.to_string().contains("newer everflame"), "{error}");
        fs::write(&path, text).unwrap();
    }
    fs::rename(dir.path().join("VERSION"), dir.path().join("V")).unwrap();
    let error = Embedded::open(options(dir.path())).unwrap_err();
    assert!(error.to_string().contains("no VERSION file"), "{error}");
}

fn block(dir: &Path) -> PathBuf {
    fs::read_dir(dir.join("blocks")).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn damaged_blocks_are_said_and_never_answered_from() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(options(dir.path())).unwrap();
    let mut batch = simple(Some(id(1)), now(), 500);
    batch.frames.push(common::frame(4));
    batch.stacks[0].0.push(2);
    store.append(&batch, None, now()).unwrap();
    store.flush().unwrap();
    drop(store);
    let files: Vec<String> =
        fs::read_dir(block(dir.path())).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    assert!(files.len() >= 10);
    for file in files {
        let path = block(dir.path()).join(&file);
        let whole = fs::read(&path).unwrap();
        let mut damages: Vec<Vec<u8>> = vec![Vec::new(), whole[..whole.len() / 2].to_vec()];
        for step in 0..8 {
            let mut bytes = whole.clone();
            bytes[step * (whole.len() - 1) / 7] ^= 0x10;
            damages.push(bytes);
        }
        for bytes in damages {
            fs::write(&path, &bytes).unwrap();
            let store = Embedded::open(options(dir.path())).unwrap();
            let aside = dir.path().join("damaged");
            if file == "meta.json" {
                // Either it cannot be read and is set aside, or the change did no harm.
                if aside.is_dir() {
                    assert_eq!((total(&store), store.stats().blocks), (0, 0));
                    drop(store);
                    let name = fs::read_dir(&aside).unwrap().next().unwrap().unwrap().file_name();
                    fs::rename(aside.join(&name), dir.path().join("blocks").join(&name)).unwrap();
                    fs::remove_dir(&aside).unwrap();
                }
                continue;
            }
            match store.stacks(&all(), &["thread.name".to_owned()]) {
                Ok(sums) => {
                    assert_eq!(file, "ids.bin");
                    assert_eq!(sums.sums.iter().map(|sum| sum.samples).sum::<u64>(), 500);
                }
                Err(error) => {
                    assert!(error.to_string().contains(&file), "{error}");
                    assert!(error.to_string().contains("move what is damaged"), "{error}");
                }
            }
            let _ = (store.labels(&all()), store.processes(&all()), store.series(&all(), None, 1000));
            // New samples are taken all the same.
            assert_eq!(store.append(&simple(None, now(), 1), None, now()).unwrap().stored, 1);
            drop(store);
            fs::remove_dir_all(dir.path().join("log")).unwrap();
            fs::create_dir(dir.path().join("log")).unwrap();
        }
        fs::write(&path, &whole).unwrap();
    }
    let store = Embedded::open(options(dir.path())).unwrap();
    assert_eq!(total(&store), 500);
}

/// Files of version 1 stay readable forever.
#[test]
fn version_1_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1");
    let dir = tempfile::tempdir().unwrap();
    let ever = |dir: &Path| Options {
        retention_age: std::time::Duration::MAX,
        head_age: std::time::Duration::MAX,
        ..options(dir)
    };
    copy(&fixture, dir.path());
    let store = Embedded::open(ever(dir.path())).unwrap();
    let stats = store.stats();
    // Rows of the old log become a block of their own, at some time.
    assert_eq!((stats.block_rows + stats.head_rows, stats.torn_records), (8, 0));
    let sums = store.stacks(&all(), &["service.name".to_owned(), "thread.name".to_owned()]).unwrap();
    let mut reference = common::Reference::default();
    for batch in fixture_batches() {
        reference.append(&batch);
    }
    let group = ["service.name".to_owned(), "thread.name".to_owned()];
    assert_eq!(common::written_out(&sums), reference.stacks(&all(), &group));
    assert_eq!(store.labels(&all()).unwrap().1, reference.labels(&all()));
    let accounting = store.accounting().unwrap();
    assert_eq!((accounting[0].stored, accounting[0].report.sequence), (8, 2));
    for batch in fixture_batches() {
        assert_eq!(store.append(&batch, None, FIXTURE_TIME).unwrap().stored, 0, "ids are known");
    }
    // It goes on in the newest version, which older programs leave alone.
    let version = fs::read_to_string(dir.path().join("VERSION")).unwrap();
    assert!(version.contains("\"format\":2") && version.contains("b6d8772065eaa4aa"), "{version}");
    assert_eq!(store.append(&simple(Some(id(3)), FIXTURE_TIME, 4), None, FIXTURE_TIME).unwrap().stored, 4);
    drop(store);
    let store = Embedded::open(ever(dir.path())).unwrap();
    assert_eq!((total(&store), store.stats().torn_records), (12, 0));
}

const FIXTURE_TIME: i64 = 1_790_000_000_000_000_000;

fn fixture_batches() -> [everflame_profile::Batch; 2] {
    let (mut first, mut second) = (simple(Some(id(1)), FIXTURE_TIME, 5), simple(Some(id(2)), FIXTURE_TIME, 3));
    for batch in [&mut first, &mut second] {
        batch.frames.extend([common::frame(4), common::frame(5)]);
        batch.stacks[0].0.extend([2, 3]);
    }
    second.profiles[0].samples[0].labels = common::labels(&[("span", "a")]);
    second.profiles[0].samples[0].completeness = everflame_profile::Completeness::NoUnwindInfo;
    second.profiles[0].samples[0].points[0].value = 7;
    [first, second]
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
