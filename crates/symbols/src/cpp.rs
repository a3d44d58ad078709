//! C++ names (Itanium ABI) taken apart in bounded time.
//!
//! Names come out of any file that runs, and a demangler that tries alternatives can
//! be kept busy for minutes by 500 bytes. This one never goes back: each step is
//! decided by the next characters, what it builds is a graph of at most a few nodes a
//! byte, and printing has a budget of steps, depth and bytes.

mod declarators;
mod expression;
mod names;
mod operators;
mod print;
mod types;

/// Place of a node in [`Parser::nodes`].
type Id = u32;

/// Deepest nesting, of parsing and of printing; real names need less than 60.
const DEEPEST: u32 = 160;

/// `None` for what is not a C++ name or is beyond a limit. `longest` bounds the result.
pub(crate) fn demangle(name: &str, longest: usize) -> Option<String> {
    let mangled = name.strip_prefix("_Z").or_else(|| name.strip_prefix("__Z"))?;
    let mut parser = Parser::new(mangled);
    let root = parser.encoding()?;
    let clones = clones(mangled.get(parser.at..)?)?;
    let mut text = print::print(&parser.nodes, root, longest)?;
    for clone in clones {
        text.push_str(" [clone ");
        text.push_str(clone);
        text.push(']');
    }
    Some(text)
}

/// `.isra.0.cold` is two clones, `.isra.0` and `.cold`.
fn clones(mut suffix: &str) -> Option<Vec<&str>> {
    let mut clones = Vec::new();
    while !suffix.is_empty() {
        let word = suffix.strip_prefix('.')?;
        let length = word.find('.').unwrap_or(word.len());
        let mut end = 1 + length;
        while let Some(number) = suffix.get(end..).and_then(|rest| rest.strip_prefix('.')) {
            let digits = number.bytes().take_while(u8::is_ascii_digit).count();
            if digits == 0 || !matches!(number.as_bytes().get(digits), None | Some(b'.')) {
                break;
            }
            end += 1 + digits;
        }
        clones.push(suffix.get(..end)?);
        suffix = suffix.get(end..)?;
    }
    Some(clones)
}

/// A part of a name. Parts are shared (substitutions), so they form a graph.
#[derive(Debug, Clone)]
enum Node<'a> {
    Text(&'a str),
    /// `a::b`
    Nested(Id, Id),
    /// `name<args>`
    Template(Id, Id),
    /// `<a, b>`
    Arguments(Vec<Id>),
    /// Template arguments that stand for one pack.
    Pack(Vec<Id>),
    /// `pattern...`, once for each element of the pack in it.
    Expansion(Id),
    /// `name[abi:tag]`
    Tagged(Id, &'a str),
    /// `type const`
    Qualified(Id, Qualifiers),
    /// `type*`, `type&`, `type&&`
    Pointer(Id, &'static str),
    /// class, member
    MemberPointer(Id, Id),
    /// element, dimension
    Array(Id, Option<Id>),
    Function(Function),
    /// A function with its name; the result of templates is not kept.
    Encoding(Id, Function),
    Constructor(Id),
    Destructor(Id),
    /// `operator type`
    Conversion(Id),
    /// parameters, number
    Lambda(Vec<Id>, u64),
    Unnamed(u64),
    /// `auto:1` of a generic lambda
    Auto(u64),
    /// A template parameter of a conversion operator, whose arguments come later.
    Later(u64),
    /// Another node in its place.
    Same(Id),
    /// Words before a name: `vtable for `
    Prefixed(&'static str, Id),
    /// Words after a type: ` complex`
    Suffixed(Id, &'a str),
    /// `first` `words` `second`
    Between(Id, &'static str, Id),
    /// `words(inner)`
    Wrapped(&'static str, Id),
    /// `{a, b}`, after a type where there is one
    List(Option<Id>, Vec<Id>),
    /// `callee(a, b)`
    Call(Id, Vec<Id>),
    /// `(type)value`; negative or not
    Literal(Id, bool, &'a str),
    /// `5ul`: value and ending; negative or not
    Integer(bool, &'a str, &'static str),
    /// `{parm#1}`
    Parameter(u64),
    /// `(a)+(b)`
    Binary(&'static str, Id, Id),
    /// `(a)?(b):(c)`
    Conditional(Id, Id, Id),
}

#[derive(Debug, Clone, Default)]
struct Function {
    result: Option<Id>,
    parameters: Vec<Id>,
    qualifiers: Qualifiers,
    /// Empty, `&` or `&&`.
    reference: &'static str,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Qualifiers {
    restrict: bool,
    volatile: bool,
    constant: bool,
}

impl Qualifiers {
    fn without(self, other: Self) -> Self {
        Self {
            restrict: self.restrict && !other.restrict,
            volatile: self.volatile && !other.volatile,
            constant: self.constant && !other.constant,
        }
    }
}

/// What the parser has to remember about the name of a function.
#[derive(Debug, Default)]
struct NameState {
    /// Constructors, destructors and conversions have no result.
    no_result: bool,
    ends_with_arguments: bool,
    qualifiers: Qualifiers,
    reference: &'static str,
}

#[derive(Debug)]
struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
    nodes: Vec<Node<'a>>,
    /// What `S_`, `S0_`, … stand for.
    substitutions: Vec<Id>,
    /// What `T_`, `T0_`, … stand for.
    arguments: Vec<Id>,
    /// Nodes that wait for the arguments of a conversion operator.
    later: Vec<Id>,
    may_be_later: bool,
    in_lambda: bool,
    /// Whether `I` after a type belongs to it.
    takes_arguments: bool,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
            nodes: Vec::new(),
            substitutions: Vec::new(),
            arguments: Vec::new(),
            later: Vec::new(),
            may_be_later: false,
            in_lambda: false,
            takes_arguments: true,
        }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> u8 {
        self.peek_at(0)
    }

    /// 0 at the end.
    fn peek_at(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn eat(&mut self, expected: &str) -> bool {
        let found = self.rest().starts_with(expected);
        self.at += if found { expected.len() } else { 0 };
        found
    }

    fn expect(&mut self, expected: &str) -> Option<()> {
        self.eat(expected).then_some(())
    }

    fn node(&mut self, node: Node<'a>) -> Id {
        self.nodes.push(node);
        (self.nodes.len() - 1) as Id
    }

    /// Adds a node that can be substituted later.
    fn remembered(&mut self, node: Node<'a>) -> Id {
        let id = self.node(node);
        self.substitutions.push(id);
        id
    }

    /// Runs a step one level deeper, unless that is too deep.
    fn deeper<T>(&mut self, step: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        if self.depth >= DEEPEST {
            return None;
        }
        self.depth += 1;
        let result = step(self);
        self.depth -= 1;
        result
    }

    /// Decimal digits, as text; `None` where there are none.
    fn digits(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let digits = rest.get(..rest.bytes().take_while(u8::is_ascii_digit).count())?;
        self.at += digits.len();
        (!digits.is_empty()).then_some(digits)
    }

    /// `_` is 0, `0_` is 1, …: how names are numbered, in the base given.
    fn sequence(&mut self, base: u32) -> Option<u64> {
        if self.eat("_") {
            return Some(0);
        }
        let rest = self.rest();
        let end = rest.find('_')?;
        let digits = rest.get(..end).filter(|d| !d.bytes().any(|b| b.is_ascii_lowercase() || b == b'+'))?;
        let number = u64::from_str_radix(digits, base).ok()?;
        self.at += end + 1;
        number.checked_add(1)
    }

    /// Items up to `E`, which is consumed.
    fn until_end(&mut self, mut item: impl FnMut(&mut Self) -> Option<Id>) -> Option<Vec<Id>> {
        let mut items = Vec::new();
        while !self.eat("E") {
            items.push(item(self)?);
        }
        Some(items)
    }
}
