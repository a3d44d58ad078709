//! Types, substitutions and template arguments.

use super::{Function, Id, Node, Parser};

const BUILTIN: &[(u8, &str)] = &[
    (b'a', "signed char"),
    (b'b', "bool"),
    (b'c', "char"),
    (b'd', "double"),
    (b'e', "long double"),
    (b'f', "float"),
    (b'g', "__float128"),
    (b'h', "unsigned char"),
    (b'i', "int"),
    (b'j', "unsigned int"),
    (b'l', "long"),
    (b'm', "unsigned long"),
    (b'n', "__int128"),
    (b'o', "unsigned __int128"),
    (b's', "short"),
    (b't', "unsigned short"),
    (b'v', "void"),
    (b'w', "wchar_t"),
    (b'x', "long long"),
    (b'y', "unsigned long long"),
    (b'z', "..."),
];
const BUILTIN_D: &[(u8, &str)] = &[
    (b'a', "auto"),
    (b'c', "decltype(auto)"),
    (b'd', "decimal64"),
    (b'e', "decimal128"),
    (b'f', "decimal32"),
    (b'h', "half"),
    (b'i', "char32_t"),
    (b'n', "decltype(nullptr)"),
    (b's', "char16_t"),
    (b'u', "char8_t"),
];
const STANDARD: &[(u8, &str)] = &[
    (b'a', "std::allocator"),
    (b'b', "std::basic_string"),
    (b's', "std::string"),
    (b'i', "std::istream"),
    (b'o', "std::ostream"),
    (b'd', "std::iostream"),
];

fn named(table: &'static [(u8, &'static str)], code: u8) -> Option<&'static str> {
    table.iter().find(|(c, _)| *c == code).map(|(_, name)| *name)
}

impl Parser<'_> {
    pub(super) fn type_name(&mut self) -> Option<Id> {
        self.deeper(Self::type_inner)
    }

    fn type_inner(&mut self) -> Option<Id> {
        let (first, second) = (self.peek(), self.peek_at(1));
        if let Some(name) = named(BUILTIN, first) {
            self.at += 1;
            return Some(self.node(Node::Text(name)));
        }
        match first {
            b'r' | b'V' | b'K' => self.qualified(),
            b'P' | b'R' | b'O' => {
                self.at += 1;
                let to = self.type_name()?;
                let mark = match first {
                    b'P' => "*",
                    b'R' => "&",
                    _ => "&&",
                };
                Some(self.remembered(Node::Pointer(to, mark)))
            }
            b'F' => {
                let function = self.function()?;
                Some(self.remembered(Node::Function(function)))
            }
            b'A' => self.array(),
            b'M' => {
                self.at += 1;
                let class = self.type_name()?;
                let member = self.type_name()?;
                Some(self.remembered(Node::MemberPointer(class, member)))
            }
            b'C' | b'G' => {
                self.at += 1;
                let of = self.type_name()?;
                let words = if first == b'C' { " _Complex" } else { " _Imaginary" };
                Some(self.remembered(Node::Suffixed(of, words)))
            }
            b'u' => {
                self.at += 1;
                let name = self.source_name()?;
                let name = if self.peek() == b'I' {
                    let arguments = self.template_arguments(false)?;
                    self.node(Node::Template(name, arguments))
                } else {
                    name
                };
                self.substitutions.push(name);
                Some(name)
            }
            b'U' if second.is_ascii_digit() => {
                self.at += 1;
                self.source_name()?;
                if self.peek() == b'I' {
                    self.template_arguments(false)?;
                }
                let of = self.type_name()?;
                self.substitutions.push(of);
                Some(of)
            }
            b'D' => self.type_d(second),
            b'T' if matches!(second, b's' | b'u' | b'e') => {
                self.at += 2;
                let name = self.name(None)?;
                self.substitutions.push(name);
                Some(name)
            }
            b'T' => {
                let parameter = self.template_parameter()?;
                self.substitutions.push(parameter);
                self.perhaps_arguments(parameter)
            }
            b'S' if second != b't' => {
                let known = self.substitution()?;
                self.perhaps_arguments(known)
            }
            _ => {
                let name = self.name(None)?;
                self.substitutions.push(name);
                Some(name)
            }
        }
    }

    /// A template template parameter or a template by substitution with its arguments.
    fn perhaps_arguments(&mut self, template: Id) -> Option<Id> {
        if self.peek() != b'I' || !self.takes_arguments {
            return Some(template);
        }
        let arguments = self.template_arguments(false)?;
        Some(self.remembered(Node::Template(template, arguments)))
    }

    fn qualified(&mut self) -> Option<Id> {
        let qualifiers = self.qualifiers();
        if self.peek() == b'F' {
            let function = Function { qualifiers, ..self.function()? };
            return Some(self.remembered(Node::Function(function)));
        }
        let of = self.type_name()?;
        Some(self.remembered(Node::Qualified(of, qualifiers)))
    }

    fn type_d(&mut self, second: u8) -> Option<Id> {
        if let Some(name) = named(BUILTIN_D, second) {
            self.at += 2;
            return Some(self.node(Node::Text(name)));
        }
        match second {
            b'p' => {
                self.at += 2;
                let pattern = self.type_name()?;
                Some(self.remembered(Node::Expansion(pattern)))
            }
            b't' | b'T' => {
                let id = self.decltype()?;
                self.substitutions.push(id);
                Some(id)
            }
            b'o' | b'O' | b'w' | b'x' => {
                self.at += 2;
                match second {
                    b'O' => {
                        self.expression()?;
                        self.expect("E")?;
                    }
                    b'w' => drop(self.until_end(Self::type_name)?),
                    _ => {}
                }
                let function = self.function()?;
                Some(self.remembered(Node::Function(function)))
            }
            b'F' => {
                self.at += 2;
                let bits = self.digits()?;
                let bits = self.node(Node::Text(bits));
                let brain = self.eat("b");
                (brain || self.eat("x") || self.eat("_")).then_some(())?;
                Some(self.node(Node::Prefixed(if brain { "std::bfloat" } else { "_Float" }, bits)))
            }
            b'B' | b'U' => {
                self.at += 2;
                let bits = self.digits()?;
                self.expect("_")?;
                let bits = self.node(Node::Text(bits));
                Some(self.node(Node::Wrapped(if second == b'B' { "_BitInt" } else { "unsigned _BitInt" }, bits)))
            }
            b'v' => {
                self.at += 2;
                let size = self.digits()?;
                self.expect("_")?;
                let of = self.type_name()?;
                let size = self.node(Node::Text(size));
                let size = self.node(Node::Wrapped(" __vector", size));
                Some(self.remembered(Node::Between(of, "", size)))
            }
            _ => None,
        }
    }

    pub(super) fn decltype(&mut self) -> Option<Id> {
        self.expect("D")?;
        (self.eat("t") || self.eat("T")).then_some(())?;
        let of = self.expression()?;
        self.expect("E")?;
        Some(self.node(Node::Wrapped("decltype ", of)))
    }

    fn function(&mut self) -> Option<Function> {
        self.expect("F")?;
        self.eat("Y");
        let result = Some(self.type_name()?);
        let mut function = Function { result, ..Default::default() };
        loop {
            match (self.peek(), self.peek_at(1)) {
                (b'E', _) => break,
                (b'v', _) if function.parameters.is_empty() => self.at += 1,
                (b'R' | b'O', b'E') => function.reference = self.reference(),
                _ => function.parameters.push(self.type_name()?),
            }
        }
        self.expect("E")?;
        Some(function)
    }

    fn array(&mut self) -> Option<Id> {
        self.expect("A")?;
        let dimension = match self.peek() {
            b'_' => None,
            b'0'..=b'9' => {
                let size = self.digits()?;
                Some(self.node(Node::Text(size)))
            }
            _ => Some(self.expression()?),
        };
        self.expect("_")?;
        let of = self.type_name()?;
        Some(self.remembered(Node::Array(of, dimension)))
    }

    pub(super) fn substitution(&mut self) -> Option<Id> {
        self.expect("S")?;
        if let Some(name) = named(STANDARD, self.peek()) {
            self.at += 1;
            let mut id = self.node(Node::Text(name));
            while self.eat("B") {
                let length: usize = self.digits()?.parse().ok()?;
                let tag = self.rest().get(..length)?;
                self.at += length;
                id = self.remembered(Node::Tagged(id, tag));
            }
            return Some(id);
        }
        let number = self.sequence(36)?;
        self.substitutions.get(usize::try_from(number).ok()?).copied()
    }

    pub(super) fn template_parameter(&mut self) -> Option<Id> {
        self.expect("T")?;
        if self.eat("L") {
            self.digits()?;
            self.expect("_")?;
        }
        let number = self.sequence(10)?;
        if self.in_lambda {
            return Some(self.node(Node::Auto(number + 1)));
        }
        if self.may_be_later {
            let id = self.node(Node::Later(number));
            self.later.push(id);
            return Some(id);
        }
        self.arguments.get(usize::try_from(number).ok()?).copied()
    }

    /// `I … E`. Those of the function's own name are what `T_` stands for after it.
    pub(super) fn template_arguments(&mut self, own: bool) -> Option<Id> {
        self.expect("I")?;
        if own {
            self.arguments.clear();
        }
        // What stands in the arguments is complete: nothing in it comes later.
        let later = std::mem::replace(&mut self.may_be_later, false);
        let takes = std::mem::replace(&mut self.takes_arguments, true);
        let arguments = self.until_end(|p| {
            let argument = p.template_argument()?;
            if own {
                p.arguments.push(argument);
            }
            Some(argument)
        });
        (self.may_be_later, self.takes_arguments) = (later, takes);
        let arguments = arguments?;
        Some(self.node(Node::Arguments(arguments)))
    }

    pub(super) fn template_argument(&mut self) -> Option<Id> {
        self.deeper(|p| match p.peek() {
            b'X' => {
                p.at += 1;
                let value = p.expression()?;
                p.expect("E")?;
                Some(value)
            }
            b'J' => {
                p.at += 1;
                let pack = p.until_end(Self::template_argument)?;
                Some(p.node(Node::Pack(pack)))
            }
            b'L' => p.literal(),
            _ => p.type_name(),
        })
    }
}
