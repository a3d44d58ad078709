//! What surrounds a name: how pointers and references to this and that are written,
//! and what constructors are called.

use super::{DEEPEST, Id, Node, print::Printer};

impl Printer<'_, '_> {
    /// The reference that a reference to a reference is, and whether it is to an element
    /// of a pack, whose length is noted.
    pub(super) fn collapsed(&mut self, mut to: Id, mut mark: &'static str) -> (Id, &'static str, bool) {
        let mut in_pack = false;
        for _ in 0..DEEPEST {
            match self.get(to) {
                Some(Node::Same(other)) => to = *other,
                Some(Node::Pack(items)) if !in_pack => {
                    let Some(element) = self.element else { break };
                    self.pack = Some(items.len());
                    let Some(item) = items.get(element) else { break };
                    to = *item;
                    in_pack = true;
                }
                Some(Node::Pointer(inner, under @ ("&" | "&&"))) if mark != "*" => {
                    to = *inner;
                    mark = if mark == "&&" { under } else { "&" };
                }
                _ => break,
            }
        }
        (to, mark, in_pack)
    }

    /// Pointers to functions and arrays are written around a parenthesis.
    pub(super) fn parenthesis(&mut self, to: Id) -> Option<()> {
        match self.shape(to) {
            Shape::Function => self.push("("),
            Shape::Array => self.push(" ("),
            Shape::Other => Some(()),
        }
    }

    pub(super) fn close_parenthesis(&mut self, to: Id) -> Option<()> {
        match self.shape(to) {
            Shape::Other => Some(()),
            _ => self.push(")"),
        }
    }

    fn shape(&self, mut id: Id) -> Shape {
        for _ in 0..DEEPEST {
            match self.get(id) {
                Some(Node::Function(_)) => return Shape::Function,
                Some(Node::Array(..)) => return Shape::Array,
                Some(Node::Qualified(of, _) | Node::Same(of)) => id = *of,
                Some(Node::Pack(items)) => match self.element.and_then(|element| items.get(element)) {
                    Some(item) => id = *item,
                    None => return Shape::Other,
                },
                _ => return Shape::Other,
            }
        }
        Shape::Other
    }

    /// The last part of a class's name without its arguments: what its constructors
    /// are called.
    pub(super) fn base_name(&mut self, mut id: Id) -> Option<()> {
        for _ in 0..DEEPEST {
            match self.get(id)? {
                Node::Nested(_, name) => id = *name,
                Node::Template(name, _) | Node::Tagged(name, _) | Node::Same(name) => id = *name,
                Node::Text("std::string") => return self.push("basic_string"),
                Node::Text("std::istream") => return self.push("basic_istream"),
                Node::Text("std::ostream") => return self.push("basic_ostream"),
                Node::Text("std::iostream") => return self.push("basic_iostream"),
                Node::Text(text) => return self.push(text.rsplit("::").next().unwrap_or(text)),
                _ => return self.whole(id),
            }
        }
        None
    }
}

enum Shape {
    Function,
    Array,
    Other,
}
