//! The symbol directory within its bounds, over restarts, and beside broken files.

use std::{
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering},
};

use everflame_profile::{ContentId, Mapping};
use everflame_server::symbols::{Limits, Put, Source, Symbols};

/// Indexes of different content: this program with other bytes in its symbol table.
fn indexes(count: usize) -> Vec<(String, Vec<u8>)> {
    let program = std::fs::read(std::env::current_exe().expect("this program")).expect("its bytes");
    let needle = b"everflame_server";
    let at = program.windows(needle.len()).rposition(|w| w == needle).expect("a symbol of ours");
    (0..count)
        .map(|n| {
            let mut changed = program.clone();
            changed[at..at + 4].copy_from_slice(format!("e{n:03}").as_bytes());
            let index = everflame_symbols::build_index(&changed, &format!("program-{n}"), &Default::default());
            let index = index.expect("an index");
            let id = everflame_symbols::Index::parse(index.as_slice()).expect("an index").content_id();
            (id.to_string(), index)
        })
        .collect()
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).expect("the directory").count()
}

#[test]
fn the_longest_unused_go_when_it_is_full() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = Limits { stored_files: 3, ..Limits::default() };
    let symbols = Symbols::open(directory.path(), limits).expect("a directory");
    let made = indexes(5);
    for (id, index) in &made {
        assert_eq!(symbols.put(id, index, true).expect("stored"), Put::Created);
        assert!(symbols.get(id).is_some(), "the newest one stays");
    }
    assert_eq!((symbols.stored().1, files(directory.path())), (3, 3));
    assert_eq!(symbols.counters.evicted.load(Ordering::Relaxed), 2);
    assert!(symbols.get(&made[0].0).is_none());
    assert_eq!(symbols.list().len(), 3);

    let bytes = made[0].1.len() as u64 * 2;
    let limits = Limits { stored_bytes: bytes, ..Limits::default() };
    let symbols = Symbols::open(directory.path(), limits).expect("a directory");
    assert_eq!(symbols.put(&made[0].0, &made[0].1, true).expect("stored"), Put::Created);
    assert!(symbols.stored().0 <= bytes);
}

/// The index of a small program, and that of the same program stripped: other content, the
/// same build id.
fn whole_and_stripped(directory: &Path) -> [Vec<u8>; 2] {
    let (whole, stripped) = (directory.join("whole"), directory.join("stripped"));
    let run = |program: &str, arguments: &[&std::ffi::OsStr]| {
        let status = Command::new(program).args(arguments).current_dir(directory).status();
        assert!(status.expect("the tool is there").success(), "{program}");
    };
    let source = "int named_function(int x) { return x + 1; } int main(void) { return named_function(-1); }";
    std::fs::write(directory.join("a.c"), source).expect("written");
    run("cc", &["-O1", "-fno-inline", "-Wl,--build-id", "-o", "whole", "a.c"].map(AsRef::as_ref));
    run("objcopy", &["--strip-all", "whole", "stripped"].map(AsRef::as_ref));
    [whole, stripped].map(|path| {
        let bytes = std::fs::read(path).expect("read");
        everflame_symbols::build_index(&bytes, "program", &Default::default()).expect("an index")
    })
}

#[test]
fn an_operators_debug_file_names_what_runs_stripped() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, stripped] = whole_and_stripped(directory.path());
    let parsed = |bytes: &[u8]| {
        let index = everflame_symbols::Index::parse(bytes).expect("an index");
        (index.content_id(), index.build_id().to_owned())
    };
    let ((whole_id, build_id), (stripped_id, stripped_build_id)) = (parsed(&whole), parsed(&stripped));
    assert!(whole_id != stripped_id && build_id == stripped_build_id && !build_id.is_empty());

    let stored = directory.path().join("symbols");
    let symbols = Symbols::open(&stored, Limits::default()).expect("a directory");
    let address = {
        let index = everflame_symbols::Index::parse(whole.as_slice()).expect("an index");
        let found = (0..1 << 20).find(|at| index.lookup(*at).is_some_and(|f| f.name == Some("named_function")));
        found.expect("it is in the index")
    };
    let runs =
        Arc::new(Mapping { name: "program".into(), build_id: build_id.as_str().into(), content_id: Some(stripped_id) });
    let name = |symbols: &Symbols| {
        let mut out = Vec::new();
        symbols.resolver().resolve(&runs, address, &mut out);
        out.first().map(|symbol| symbol.name.to_string())
    };
    assert_eq!(symbols.put(&stripped_id.to_string(), &stripped, true).expect("the agent's"), Put::Created);
    assert_ne!(name(&symbols).as_deref(), Some("named_function"));
    assert_eq!(symbols.put(&build_id, &whole, true).expect("the operator's"), Put::Created);
    assert_eq!(name(&symbols).as_deref(), Some("named_function"));
    assert_eq!(symbols.put(&build_id, &stripped, true).expect("worse"), Put::Stands, "a better one stands");
    assert_eq!(name(&symbols).as_deref(), Some("named_function"));
    let again = Symbols::open(&stored, Limits::default()).expect("the directory");
    assert_eq!(name(&again).as_deref(), Some("named_function"));
}

#[test]
fn few_are_mapped_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let limits = Limits { mapped_files: 2, ..Limits::default() };
    let symbols = Symbols::open(directory.path(), limits).expect("a directory");
    let made = indexes(4);
    for (id, index) in &made {
        symbols.put(id, index, true).expect("stored");
    }
    assert_eq!(symbols.list().len(), 4);
    assert_eq!(symbols.mapped().1, 2);
    assert!(symbols.counters.unmapped.load(Ordering::Relaxed) >= 2);
    assert!(made.iter().all(|(id, _)| symbols.get(id).is_some()), "they are mapped again when asked for");
}

#[test]
fn broken_files_are_left_aside() {
    let directory = tempfile::tempdir().expect("a directory");
    let made = indexes(2);
    {
        let symbols = Symbols::open(directory.path(), Limits::default()).expect("a directory");
        for (id, index) in &made {
            symbols.put(id, index, true).expect("stored");
        }
    }
    let path = directory.path().join(format!("{}.agent.idx", made[0].0));
    let mut bytes = std::fs::read(&path).expect("the file");
    bytes.truncate(bytes.len() / 2);
    std::fs::write(&path, bytes).expect("a cut file");
    std::fs::write(directory.path().join("unfinished"), b"half").expect("a file");
    std::fs::write(directory.path().join("readme.txt"), b"not ours").expect("a file");
    let foreign = directory.path().join(format!("{}.agent.idx", ContentId(7)));
    std::fs::write(&foreign, &made[1].1).expect("a file under another's name");

    let symbols = Symbols::open(directory.path(), Limits::default()).expect("a directory");
    assert!(symbols.get(&made[0].0).is_none());
    assert!(symbols.get(&ContentId(7).to_string()).is_none(), "a name does not make the content");
    assert_eq!(symbols.get(&made[1].0).expect("the good one").source, Source::Agent);
    assert_eq!(symbols.counters.unreadable.load(Ordering::Relaxed), 2);
    assert_eq!(symbols.put(&made[0].0, &made[0].1, true).expect("stored"), Put::Created);
    assert!(symbols.get(&made[0].0).is_some(), "a good upload repairs it");
}
