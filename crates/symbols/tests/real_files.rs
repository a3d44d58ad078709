//! Real executables, with `nm` as the oracle: every function symbol is found under its
//! own address, and no symbol reaches into a function that it is not.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod common;

use std::path::Path;

use common::{compile, first_existing, nm, stripped};
use everflame_symbols::{Index, IndexLimits, build_index, demangle, inspect};

fn index_of(file: &Path) -> Index<Vec<u8>> {
    let elf = std::fs::read(file).unwrap();
    let bytes = build_index(&elf, file.to_str().unwrap(), &IndexLimits::default()).unwrap();
    let index = Index::parse(bytes).unwrap();
    let facts = inspect(&elf).unwrap();
    assert_eq!((index.content_id(), index.build_id()), (facts.content_id, &*facts.build_id));
    assert_eq!(index.name(), file.file_name().unwrap().to_str().unwrap());
    index
}

/// Compares with `nm` and gives the number of symbols' addresses.
fn agrees_with_nm(file: &Path) -> usize {
    let index = index_of(file);
    let symbols = nm(file);
    let mut cut = 0;
    for (&address, aliases) in &symbols {
        let function = index.lookup(address).unwrap_or_else(|| panic!("{address:#x} {aliases:?} is not found"));
        assert_eq!(function.start, address, "{aliases:?}");
        let name = function.name.unwrap_or_else(|| panic!("{address:#x} {aliases:?} has no name"));
        let alias = aliases.iter().find(|symbol| symbol.name == name.replace('·', "."));
        let alias = alias.unwrap_or_else(|| panic!("{address:#x} is called {name}, not one of {aliases:?}"));
        let exported = |symbol: &common::NmSymbol| symbol.kind != 't';
        assert!(exported(alias) || !aliases.iter().any(exported), "{name} of {aliases:?} is local");

        // The last byte still belongs to it, or to a symbol that starts inside it, or
        // the unwind data cuts another function off.
        let size = aliases.iter().map(|symbol| symbol.size).max().unwrap();
        let Some(last) = size.checked_sub(1).map(|size| address + size) else { continue };
        match index.lookup(last) {
            Some(found) if found.name == Some(name) => {}
            Some(found) if found.name.is_some() => {
                let inner =
                    symbols.range(address..=last).any(|(_, all)| all.iter().any(|s| Some(&*s.name) == found.name));
                assert!(inner, "{last:#x}, the end of {name}, is called {found:?}");
            }
            _ => cut += 1,
        }
    }
    eprintln!("{}: {} symbols agree, {cut} cut short by unwind data", file.display(), symbols.len());
    assert!(cut * 100 <= symbols.len(), "{cut} of {} symbols are cut short", symbols.len());
    symbols.len()
}

#[test]
fn libc() {
    let libc = first_existing("libc", &["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]).unwrap();
    assert!(agrees_with_nm(&libc) > 2_000);
    let index = index_of(&libc);
    let names: Vec<_> = index.iter().filter_map(|f| f.name).collect();
    for name in ["malloc", "memcpy", "clone", "read", "pthread_create"] {
        assert!(names.contains(&name), "no {name}");
    }
    assert!(index.functions() > index.named(), "unwind data knows functions that have no symbol");
    assert!(names.iter().all(|name| !name.trim_end_matches("@plt").contains('@')), "no versions in names");
}

#[test]
fn python() {
    if let Some(python) = first_existing("CPython", &["/usr/bin/python3.11", "/usr/bin/python3"]) {
        assert!(agrees_with_nm(&python) > 1_000);
    }
}

#[test]
fn node() {
    if let Some(node) = first_existing("Node", &["/usr/bin/node"]) {
        assert!(agrees_with_nm(&node) > 50_000);
    }
}

#[test]
fn rust() {
    let this = std::env::current_exe().unwrap();
    assert!(agrees_with_nm(&this) > 1_000);
    let index = index_of(&this);
    let names: Vec<_> = index.iter().filter_map(|f| f.name).map(demangle).collect();
    assert!(names.iter().any(|name| name == "real_files::agrees_with_nm"), "own function by its path");
    assert!(names.iter().any(|name| name == "std::rt::lang_start_internal"));
    assert!(!names.iter().any(|name| name.starts_with("_ZN") || name.starts_with("_R")), "all of them demangled");
}

#[test]
fn cpp() {
    let source = r#"
        #include <algorithm>
        #include <cstdio>
        #include <map>
        #include <string>
        #include <vector>
        namespace shop {
        template <typename T, int N> struct Cart {
            std::vector<T> items;
            __attribute__((noinline)) T total(const std::map<std::string, T>& prices) const {
                T sum = N;
                for (auto& item : items) sum += prices.begin()->second * item;
                return sum;
            }
        };
        __attribute__((noinline)) bool operator<(const Cart<int, 3>& a, const Cart<int, 3>& b) { return a.items < b.items; }
        __attribute__((noinline, cold)) void refuse(int code) { std::printf("%d\n", code); throw code; }
        }
        static __attribute__((noinline)) int local_helper(int x) { return std::printf("%d\n", x); }
        int main(int argc, char** argv) {
            shop::Cart<int, 3> a, b;
            for (int i = 0; i < argc; i++) { a.items.push_back(i); b.items.push_back(local_helper(i)); }
            std::sort(a.items.begin(), a.items.end(), [](int x, int y) { return x > y; });
            if (argc > 9) shop::refuse(argc);
            return (int)(shop::operator<(a, b)) + a.total({{argv[0], 1}});
        }
    "#;
    let directory = tempfile::tempdir().unwrap();
    let program = compile(directory.path(), "shop.cc", source, &["g++", "-O1", "-fomit-frame-pointer"]);
    assert!(agrees_with_nm(&program) > 20);
    let index = index_of(&program);
    let names: Vec<_> = index.iter().filter_map(|f| f.name).map(demangle).collect();
    let wanted = [
        "shop::Cart<int, 3>::total(std::map<std::__cxx11::basic_string<char, std::char_traits<char>, \
         std::allocator<char> >, int, std::less<std::__cxx11::basic_string<char, std::char_traits<char>, \
         std::allocator<char> > >, std::allocator<std::pair<std::__cxx11::basic_string<char, \
         std::char_traits<char>, std::allocator<char> > const, int> > > const&) const",
        "shop::operator<(shop::Cart<int, 3> const&, shop::Cart<int, 3> const&)",
        "shop::refuse(int)",
        "local_helper(int)",
        "main",
        "_start",
    ];
    for name in wanted {
        assert!(names.iter().any(|n| n == name), "no {name} in {names:#?}");
    }

    // The stubs as `objdump` labels them.
    let sections = [".plt", ".plt.sec", ".plt.got"].map(|section| format!("--section={section}"));
    let text = common::run(std::process::Command::new("objdump").arg("-d").args(sections).arg(&program));
    let mut stubs = 0;
    for line in text.lines().filter(|line| line.ends_with("@plt>:")) {
        let (address, label) = line.split_once(' ').unwrap();
        let address = u64::from_str_radix(address, 16).unwrap();
        let found = index.lookup(address).unwrap();
        assert_eq!((found.start, found.name), (address, Some(label.trim_matches(['<', '>', ':']))));
        stubs += 1;
    }
    assert!(stubs >= 5, "{stubs} stubs");

    // Without symbols the same functions are there, without names, and one by one.
    let stripped = index_of(&stripped(&program));
    let main = index.iter().find(|f| f.name == Some("main")).unwrap();
    let nameless = stripped.lookup(main.start + 1).unwrap();
    assert_eq!((nameless.start, nameless.name), (main.start, None));
    assert!(stripped.functions() >= 10, "{} functions", stripped.functions());
    assert_ne!(stripped.content_id(), index.content_id());
    assert_eq!(stripped.build_id(), index.build_id());
}

#[test]
fn go() {
    let source = r#"
        package main
        import ("fmt"; "os"; "sort")
        type Cart struct { items []int }
        //go:noinline
        func (c *Cart) Total() int { t := 0; for _, i := range c.items { t += i }; return t }
        //go:noinline
        func Map[K comparable, V any](in []K, f func(K) V) []V {
            out := []V{}
            for _, k := range in { out = append(out, f(k)) }
            return out
        }
        func main() {
            c := &Cart{items: []int{len(os.Args), 2}}
            sort.Ints(c.items)
            fmt.Println(c.Total(), Map(c.items, func(i int) string { return fmt.Sprint(i) }))
        }
    "#;
    let directory = tempfile::tempdir().unwrap();
    let build =
        |name: &str, options: &[&str]| compile(directory.path(), name, source, &[&["go", "build"], options].concat());
    let program = build("shop.go", &[]);
    assert!(agrees_with_nm(&program) > 1_000);
    let index = index_of(&program);
    let pie = index_of(&build("pie.go", &["-buildmode=pie"]));
    let stripped = index_of(&build("small.go", &["-ldflags=-s -w"]));
    for index in [&index, &pie, &stripped] {
        let names: Vec<_> = index.iter().filter_map(|f| f.name).map(demangle).collect();
        for name in
            ["main.main", "main.(*Cart).Total", "main.Map[...]", "main.main.func1", "runtime.goexit", "sort.Ints"]
        {
            assert!(names.iter().any(|n| n == name), "no {name}");
        }
    }
    // What survives stripping is as good as the symbols.
    let differing = index.iter().filter(|f| f.name != stripped.lookup(f.start).and_then(|g| g.name)).count();
    assert!(differing * 200 < index.functions() as usize, "{differing} of {} names differ", index.functions());
}

#[test]
fn envoy() {
    let paths = ["../../tests/.cache/envoy"];
    let Some(envoy) = first_existing("the stripped Envoy", &paths) else { return };
    let elf = std::fs::read(&envoy).unwrap();
    let bytes = build_index(&elf, "envoy", &IndexLimits::default()).unwrap();
    assert!(bytes.len() < 2 << 20, "{} bytes", bytes.len());
    let index = Index::parse(bytes).unwrap();
    assert!(index.functions() > 200_000, "{} functions", index.functions());
    let facts = inspect(&elf).unwrap();
    let start = index.lookup(facts.entry).unwrap();
    assert_eq!(start.start, facts.entry);
}

#[test]
fn code_without_names_is_called_after_where_it_starts() {
    use everflame_profile::{Frame, FrameKind, Mapping};
    let libc = first_existing("libc", &["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/libc.so.6"]).unwrap();
    let index = index_of(&libc);
    let function = index.iter().find(|f| f.name.is_none() && f.end - f.start > 2).unwrap();
    let mapping = Mapping { name: "libc.so.6".into(), build_id: "".into(), content_id: None };
    let kind = FrameKind(FrameKind::NATIVE.into());
    let (address, lines) = (function.end - 1, Vec::new());
    let frame = Frame { kind, mapping: Some(mapping.into()), address, lines };
    let names = everflame_symbols::name_frame(&frame, Some(&index));
    assert_eq!(names.len(), 1);
    assert_eq!(names[0].function, format!("libc.so.6+{:#x}", function.start));
}

/// musl's assembly has symbols that do not say their size. Behind one of them, `memset`, lies the
/// function that begins threads, whose own name is not in a stripped library.
#[test]
fn a_symbol_without_a_size_ends_where_the_next_function_begins() {
    let files = ["/lib/ld-musl-x86_64.so.1", "/usr/lib/x86_64-linux-musl/libc.so"];
    let Some(musl) = first_existing("musl", &files) else { return };
    let elf = std::fs::read(&musl).unwrap();
    // xor ebp, ebp; pop rdi; call r9; mov edi, eax: where a thread comes to itself.
    let child = [0x31, 0xed, 0x5f, 0x41, 0xff, 0xd1, 0x89, 0xc7];
    let at = elf.windows(child.len()).position(|window| window == child).unwrap() as u64;
    let code = inspect(&elf).unwrap().segments.into_iter().find(|s| s.executable).unwrap();
    let address = at - code.offset + code.vaddr;
    let index = index_of(&musl);
    let found = index.lookup(address).expect("it is a function");
    assert!(matches!(found.name, None | Some("clone" | "__clone")), "it is called {found:?}");
    // mov eax, 56: its first instruction after the arguments are in place.
    assert!((found.start..address).contains(&(address - 0x10)) && address - found.start < 64, "{found:x?}");
    for name in ["memset", "memcpy", "memmove", "malloc", "qsort", "printf"] {
        let symbol = nm(&musl).into_iter().find(|(_, all)| all.iter().any(|s| s.name == name)).unwrap();
        assert_eq!(index.lookup(symbol.0).unwrap().name, Some(name));
    }
}
