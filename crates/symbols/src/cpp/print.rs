//! From the graph to text, within a budget: parts are shared, so a short name can
//! stand for an endless one.

use super::{DEEPEST, Function, Id, Node, Qualifiers};

/// Nodes that are visited, at most.
const MOST_STEPS: u32 = 30_000;

/// The text of a node, `None` beyond a limit.
pub(super) fn print(nodes: &[Node<'_>], root: Id, longest: usize) -> Option<String> {
    let mut printer = Printer { nodes, out: String::new(), longest, steps: 0, depth: 0, element: None, pack: None };
    printer.whole(root)?;
    Some(printer.out)
}

pub(super) struct Printer<'p, 'a> {
    nodes: &'p [Node<'a>],
    out: String,
    longest: usize,
    steps: u32,
    depth: u32,
    /// Which element of packs is printed, within an expansion.
    pub(super) element: Option<usize>,
    /// Length of the pack that was met there.
    pub(super) pack: Option<usize>,
}

impl<'p, 'a> Printer<'p, 'a> {
    pub(super) fn push(&mut self, text: &str) -> Option<()> {
        if self.out.len() + text.len() > self.longest {
            return None;
        }
        self.out.push_str(text);
        Some(())
    }

    pub(super) fn get(&self, id: Id) -> Option<&'p Node<'a>> {
        self.nodes.get(id as usize)
    }

    fn deeper(&mut self, step: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.steps += 1;
        if self.depth >= DEEPEST * 2 || self.steps > MOST_STEPS {
            return None;
        }
        self.depth += 1;
        let result = step(self);
        self.depth -= 1;
        result
    }

    /// Types of functions and arrays have a part left of a declared name and one right
    /// of it; everything else is all left.
    pub(super) fn whole(&mut self, id: Id) -> Option<()> {
        self.left(id)?;
        self.right(id)
    }

    fn left(&mut self, id: Id) -> Option<()> {
        self.deeper(|p| p.left_inner(id))
    }

    fn left_inner(&mut self, id: Id) -> Option<()> {
        match self.get(id)? {
            Node::Text(text) => self.push(text),
            Node::Nested(scope, name) => {
                self.whole(*scope)?;
                self.push("::")?;
                self.whole(*name)
            }
            Node::Template(name, arguments) => {
                self.whole(*name)?;
                // `operator< <int>`
                if self.out.ends_with('<') {
                    self.push(" ")?;
                }
                self.whole(*arguments)
            }
            Node::Arguments(items) => {
                self.push("<")?;
                self.list(items)?;
                self.push(if self.out.ends_with('>') { " >" } else { ">" })
            }
            Node::Pack(items) => match self.element {
                Some(element) => {
                    self.pack = Some(items.len());
                    items.get(element).map_or(Some(()), |item| self.within_element(|p| p.left(*item)))
                }
                None => self.list(items),
            },
            Node::Expansion(pattern) => self.expansion(*pattern),
            Node::Tagged(name, tag) => {
                self.whole(*name)?;
                self.push("[abi:")?;
                self.push(tag)?;
                self.push("]")
            }
            Node::Qualified(of, qualifiers) => {
                self.left(*of)?;
                // A template parameter may bring the same qualifier along.
                let inner = match self.get(*of)? {
                    Node::Qualified(_, inner) => *inner,
                    _ => Qualifiers::default(),
                };
                self.qualifiers(qualifiers.without(inner))
            }
            Node::Pointer(to, mark) => {
                // References to references collapse.
                let (to, mark, in_pack) = self.collapsed(*to, mark);
                let left = |p: &mut Self| p.left(to).and_then(|()| p.parenthesis(to));
                if in_pack {
                    self.within_element(left)?
                } else {
                    left(self)?
                }
                self.push(mark)
            }
            Node::MemberPointer(class, member) => {
                self.left(*member)?;
                self.parenthesis(*member)?;
                if !self.out.ends_with('(') {
                    self.push(" ")?;
                }
                self.whole(*class)?;
                self.push("::*")
            }
            Node::Array(of, _) => self.left(*of),
            Node::Function(function) => {
                if let Some(result) = function.result {
                    self.left(result)?;
                }
                self.push(" ")
            }
            Node::Encoding(name, function) => {
                self.whole(*name)?;
                self.signature(function)
            }
            Node::Constructor(scope) => self.base_name(*scope),
            Node::Destructor(scope) => {
                self.push("~")?;
                self.base_name(*scope)
            }
            Node::Conversion(to) => {
                self.push("operator ")?;
                self.whole(*to)
            }
            Node::Lambda(parameters, number) => {
                self.push("{lambda(")?;
                self.list(parameters)?;
                self.push(&format!(")#{number}}}"))
            }
            Node::Unnamed(number) => self.push(&format!("{{unnamed type#{number}}}")),
            Node::Auto(number) => self.push(&format!("auto:{number}")),
            Node::Later(_) => None,
            Node::Same(other) => self.left(*other),
            Node::Prefixed("{default arg", place) => {
                let Some(Node::Parameter(number)) = self.get(*place) else { return None };
                self.push(&format!("{{default arg#{number}}}"))
            }
            Node::Prefixed(words, of) => {
                self.push(words)?;
                self.whole(*of)
            }
            Node::Suffixed(of, words) => {
                self.whole(*of)?;
                self.push(words)
            }
            Node::Between(first, words, second) => {
                self.whole(*first)?;
                self.push(words)?;
                self.whole(*second)
            }
            // The address of a function: its name alone says which.
            Node::Wrapped("&", inner) if self.function_name(*inner).is_some() => {
                self.push("&")?;
                self.whole(self.function_name(*inner)?)
            }
            Node::Wrapped(words, inner) => {
                self.push(words)?;
                self.bracketed(*inner)
            }
            Node::List(of, items) => {
                of.map_or(Some(()), |of| self.whole(of))?;
                self.push("{")?;
                self.list(items)?;
                self.push("}")
            }
            Node::Call(callee, arguments) => {
                self.whole(*callee)?;
                self.push("(")?;
                self.list(arguments)?;
                self.push(")")
            }
            Node::Literal(of, negative, value) => {
                self.bracketed(*of)?;
                self.push(if *negative { "-" } else { "" })?;
                self.push(value)
            }
            Node::Integer(negative, value, ending) => {
                self.push(if *negative { "-" } else { "" })?;
                self.push(value)?;
                self.push(ending)
            }
            Node::Parameter(number) => self.push(&format!("{{parm#{number}}}")),
            Node::Binary("[]", array, index) => {
                self.bracketed(*array)?;
                self.push("[")?;
                self.whole(*index)?;
                self.push("]")
            }
            Node::Binary(operator, left, right) => {
                // A bare `>` would close template arguments.
                let guarded = operator.starts_with('>');
                self.push(if guarded { "(" } else { "" })?;
                self.bracketed(*left)?;
                self.push(operator)?;
                self.bracketed(*right)?;
                self.push(if guarded { ")" } else { "" })
            }
            Node::Conditional(condition, yes, no) => {
                self.bracketed(*condition)?;
                self.push("?")?;
                self.bracketed(*yes)?;
                self.push(" : ")?;
                self.bracketed(*no)
            }
        }
    }

    fn right(&mut self, id: Id) -> Option<()> {
        self.deeper(|p| match p.get(id)? {
            Node::Qualified(of, _) | Node::Same(of) => p.right(*of),
            Node::Pointer(to, mark) => {
                let (to, _, in_pack) = p.collapsed(*to, mark);
                let right = |p: &mut Self| p.close_parenthesis(to).and_then(|()| p.right(to));
                if in_pack { p.within_element(right) } else { right(p) }
            }
            Node::MemberPointer(_, member) => {
                p.close_parenthesis(*member)?;
                p.right(*member)
            }
            Node::Array(of, dimension) => {
                p.push(if p.out.ends_with(']') { "[" } else { " [" })?;
                dimension.map_or(Some(()), |dimension| p.whole(dimension))?;
                p.push("]")?;
                p.right(*of)
            }
            Node::Function(function) => {
                p.signature(function)?;
                function.result.map_or(Some(()), |result| p.right(result))
            }
            Node::Pack(items) => match p.element {
                Some(element) => items.get(element).map_or(Some(()), |item| p.within_element(|p| p.right(*item))),
                None => Some(()),
            },
            _ => Some(()),
        })
    }

    /// What stands in an element of a pack is not itself one of a pack.
    fn within_element(&mut self, print: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        let (element, pack) = (self.element.take(), self.pack);
        let result = print(self);
        (self.element, self.pack) = (element, pack);
        result
    }

    fn signature(&mut self, function: &Function) -> Option<()> {
        self.push("(")?;
        self.list(&function.parameters)?;
        self.push(")")?;
        self.qualifiers(function.qualifiers)?;
        self.push(if function.reference.is_empty() { "" } else { " " })?;
        self.push(function.reference)
    }

    fn qualifiers(&mut self, qualifiers: Qualifiers) -> Option<()> {
        self.push(if qualifiers.constant { " const" } else { "" })?;
        self.push(if qualifiers.volatile { " volatile" } else { "" })?;
        self.push(if qualifiers.restrict { " __restrict" } else { "" })
    }

    /// The name that a node is, or that the function has that it is.
    fn function_name(&self, id: Id) -> Option<Id> {
        match self.get(id)? {
            Node::Encoding(name, _) => Some(*name),
            Node::Text(_) | Node::Nested(..) | Node::Template(..) => Some(id),
            _ => None,
        }
    }

    fn bracketed(&mut self, id: Id) -> Option<()> {
        self.push("(")?;
        self.whole(id)?;
        self.push(")")
    }

    /// Items with commas between those that print anything: packs may be empty.
    fn list(&mut self, items: &[Id]) -> Option<()> {
        let mut first = true;
        for item in items {
            let before = self.out.len();
            if !first {
                self.push(", ")?;
            }
            let start = self.out.len();
            self.whole(*item)?;
            if self.out.len() == start {
                self.out.truncate(before);
            } else {
                first = false;
            }
        }
        Some(())
    }

    fn expansion(&mut self, pattern: Id) -> Option<()> {
        let outer = (self.element, self.pack);
        let start = self.out.len();
        (self.element, self.pack) = (Some(0), None);
        self.whole(pattern)?;
        match self.pack {
            Some(0) => self.out.truncate(start),
            Some(length) => {
                for element in 1..length {
                    self.push(", ")?;
                    self.element = Some(element);
                    self.whole(pattern)?;
                }
            }
            None => self.push("...")?,
        }
        (self.element, self.pack) = outer;
        Some(())
    }
}
