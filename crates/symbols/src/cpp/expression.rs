//! Expressions, which stand in template arguments, array bounds and `decltype`.

use super::{Id, Node, Parser};

impl<'a> Parser<'a> {
    pub(super) fn expression(&mut self) -> Option<Id> {
        self.deeper(Self::expression_inner)
    }

    fn expression_inner(&mut self) -> Option<Id> {
        self.eat("gs");
        match (self.peek(), self.peek_at(1)) {
            (b'L', _) => return self.literal(),
            (b'T', _) => return self.template_parameter(),
            (b'f', b'p' | b'L') => return self.parameter(),
            (b'0'..=b'9', _) => return self.unresolved_simple(),
            _ => {}
        }
        let code = self.rest().get(..2)?;
        let start = self.at;
        self.at += 2;
        let node = match code {
            "cl" => {
                let callee = self.expression()?;
                let arguments = self.until_end(Self::expression)?;
                Node::Call(callee, arguments)
            }
            "cv" => {
                let to = self.type_name()?;
                let values = if self.eat("_") { self.until_end(Self::expression)? } else { vec![self.expression()?] };
                Node::Call(self.node_wrapped("", to), values)
            }
            "tl" => {
                let of = self.type_name()?;
                let items = self.until_end(Self::expression)?;
                Node::List(Some(of), items)
            }
            "il" => {
                let items = self.until_end(Self::expression)?;
                Node::List(None, items)
            }
            "sZ" => Node::Wrapped(
                "sizeof...",
                if self.peek() == b'T' { self.template_parameter()? } else { self.parameter()? },
            ),
            "sP" => {
                let items = self.until_end(Self::template_argument)?;
                let pack = self.node(Node::Pack(items));
                Node::Wrapped("sizeof...", pack)
            }
            "st" => Node::Wrapped("sizeof ", self.type_name()?),
            "sz" => Node::Wrapped("sizeof ", self.expression()?),
            "at" => Node::Wrapped("alignof ", self.type_name()?),
            "az" => Node::Wrapped("alignof ", self.expression()?),
            "ti" => Node::Wrapped("typeid ", self.type_name()?),
            "te" => Node::Wrapped("typeid ", self.expression()?),
            "nx" => Node::Wrapped("noexcept ", self.expression()?),
            "tw" => Node::Wrapped("throw ", self.expression()?),
            "tr" => Node::Text("throw"),
            "sp" => Node::Expansion(self.expression()?),
            "sc" | "dc" | "cc" | "rc" => {
                let to = self.type_name()?;
                let value = self.expression()?;
                let words = match code {
                    "sc" => "static_cast",
                    "dc" => "dynamic_cast",
                    "cc" => "const_cast",
                    _ => "reinterpret_cast",
                };
                let arguments = self.node(Node::Arguments(vec![to]));
                let cast = self.node(Node::Prefixed(words, arguments));
                Node::Call(cast, vec![value])
            }
            "dt" | "pt" => {
                let object = self.expression()?;
                let member = self.unresolved_name()?;
                Node::Between(object, if code == "dt" { "." } else { "->" }, member)
            }
            "ix" => {
                let (array, index) = (self.expression()?, self.expression()?);
                Node::Binary("[]", array, index)
            }
            "qu" => {
                let (condition, yes) = (self.expression()?, self.expression()?);
                Node::Conditional(condition, yes, self.expression()?)
            }
            "sr" | "on" | "dn" => {
                self.at = start;
                return self.unresolved_name();
            }
            "fl" | "fr" => {
                let (_, text, _) = self.operator()?;
                let pack = self.expression()?;
                let dots = self.node(Node::Text("..."));
                if code == "fl" { Node::Binary(text, dots, pack) } else { Node::Binary(text, pack, dots) }
            }
            "pp" | "mm" if self.eat("_") => Node::Prefixed(if code == "pp" { "++" } else { "--" }, self.expression()?),
            _ => {
                self.at = start;
                match self.operator()? {
                    (_, text, 1) => Node::Wrapped(text, self.expression()?),
                    (_, text, 2) => {
                        let (left, right) = (self.expression()?, self.expression()?);
                        Node::Binary(text, left, right)
                    }
                    _ => return None,
                }
            }
        };
        Some(self.node(node))
    }

    fn node_wrapped(&mut self, words: &'static str, inner: Id) -> Id {
        self.node(Node::Wrapped(words, inner))
    }

    /// `fp_`, `fp0_`, `fL1p_`, and `fpT` for `this`.
    fn parameter(&mut self) -> Option<Id> {
        self.expect("f")?;
        if self.eat("L") {
            self.digits()?;
        }
        self.expect("p")?;
        if self.eat("T") {
            return Some(self.node(Node::Text("this")));
        }
        self.qualifiers();
        let number = self.sequence(10)?;
        Some(self.node(Node::Parameter(number + 1)))
    }

    /// `sr` type or names, then a name: `T::value`.
    fn unresolved_name(&mut self) -> Option<Id> {
        if !self.eat("sr") {
            return self.base_unresolved();
        }
        let mut scope = if self.eat("N") {
            let mut scope = self.unresolved_type()?;
            while !self.eat("E") {
                let next = self.unresolved_simple()?;
                scope = self.node(Node::Nested(scope, next));
            }
            scope
        } else if self.peek().is_ascii_digit() {
            let mut scope = self.unresolved_simple()?;
            while !self.eat("E") {
                let next = self.unresolved_simple()?;
                scope = self.node(Node::Nested(scope, next));
            }
            scope
        } else {
            self.unresolved_type()?
        };
        let name = self.base_unresolved()?;
        scope = self.node(Node::Nested(scope, name));
        Some(scope)
    }

    fn unresolved_type(&mut self) -> Option<Id> {
        self.type_name()
    }

    fn base_unresolved(&mut self) -> Option<Id> {
        if self.eat("on") {
            let name = self.operator_name()?;
            return self.arguments_of(name);
        }
        if self.eat("dn") {
            let of = if self.peek().is_ascii_digit() { self.unresolved_simple()? } else { self.type_name()? };
            return Some(self.node(Node::Prefixed("~", of)));
        }
        self.unresolved_simple()
    }

    fn unresolved_simple(&mut self) -> Option<Id> {
        let name = self.source_name()?;
        self.arguments_of(name)
    }

    fn arguments_of(&mut self, name: Id) -> Option<Id> {
        if self.peek() != b'I' {
            return Some(name);
        }
        let arguments = self.template_arguments(false)?;
        Some(self.node(Node::Template(name, arguments)))
    }

    /// `L type value E`, `L_Z encoding E`.
    pub(super) fn literal(&mut self) -> Option<Id> {
        self.expect("L")?;
        if self.eat("_Z") || self.eat("Z") {
            let function = self.encoding()?;
            self.expect("E")?;
            return Some(function);
        }
        let kind = self.peek();
        let ending = match kind {
            b'i' => Some(""),
            b'j' => Some("u"),
            b'l' => Some("l"),
            b'm' => Some("ul"),
            b'x' => Some("ll"),
            b'y' => Some("ull"),
            _ => None,
        };
        let of = self.type_name()?;
        let negative = self.eat("n");
        let rest: &'a str = self.rest();
        let value = rest.get(..rest.find('E')?)?;
        value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then_some(())?;
        self.at += value.len() + 1;
        Some(self.node(match (kind, ending, value) {
            (b'b', _, "0") => Node::Text("false"),
            (b'b', _, "1") => Node::Text("true"),
            (_, Some(ending), _) => Node::Integer(negative, value, ending),
            _ => Node::Literal(of, negative, value),
        }))
    }
}
