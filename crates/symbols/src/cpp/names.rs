//! Encodings and names: the part of a mangled name that says which function it is.

use super::{Function, Id, NameState, Node, Parser, Qualifiers, operators::OPERATORS};

impl<'a> Parser<'a> {
    pub(super) fn encoding(&mut self) -> Option<Id> {
        self.deeper(|p| {
            let outer = std::mem::take(&mut p.arguments);
            let result = p.encoding_inner();
            p.arguments = outer;
            result
        })
    }

    fn encoding_inner(&mut self) -> Option<Id> {
        if matches!(self.peek(), b'G' | b'T') {
            return self.special_name();
        }
        let mut state = NameState::default();
        let waiting = self.later.len();
        let name = self.name(Some(&mut state))?;
        for id in self.later.split_off(waiting.min(self.later.len())) {
            let Some(Node::Later(number)) = self.nodes.get(id as usize) else { return None };
            let argument = *self.arguments.get(usize::try_from(*number).ok()?)?;
            *self.nodes.get_mut(id as usize)? = Node::Same(argument);
        }
        if matches!(self.peek(), 0 | b'E' | b'.') {
            return Some(name);
        }
        if state.ends_with_arguments && !state.no_result {
            self.type_name()?;
        }
        let mut function = Function { reference: state.reference, qualifiers: state.qualifiers, ..Default::default() };
        if !self.eat("v") {
            while !matches!(self.peek(), 0 | b'E' | b'.') {
                function.parameters.push(self.type_name()?);
            }
        }
        Some(self.node(Node::Encoding(name, function)))
    }

    fn special_name(&mut self) -> Option<Id> {
        const OF_TYPES: [(&str, &str); 4] =
            [("TV", "vtable for "), ("TT", "VTT for "), ("TI", "typeinfo for "), ("TS", "typeinfo name for ")];
        const OF_NAMES: [(&str, &str); 3] =
            [("TW", "TLS wrapper function for "), ("TH", "TLS init function for "), ("GV", "guard variable for ")];
        const OF_FUNCTIONS: [(&str, &str); 2] =
            [("GTt", "transaction clone for "), ("GTn", "non-transaction clone for ")];
        if let Some((code, words)) = OF_TYPES.into_iter().find(|(code, _)| self.rest().starts_with(code)) {
            self.at += code.len();
            let of = self.type_name()?;
            return Some(self.node(Node::Prefixed(words, of)));
        }
        if let Some((code, words)) = OF_NAMES.into_iter().find(|(code, _)| self.rest().starts_with(code)) {
            self.at += code.len();
            let of = self.name(None)?;
            return Some(self.node(Node::Prefixed(words, of)));
        }
        if let Some((code, words)) = OF_FUNCTIONS.into_iter().find(|(code, _)| self.rest().starts_with(code)) {
            self.at += code.len();
            let of = self.encoding()?;
            return Some(self.node(Node::Prefixed(words, of)));
        }
        if self.eat("TC") {
            let derived = self.type_name()?;
            self.digits()?;
            self.expect("_")?;
            let base = self.type_name()?;
            let both = self.node(Node::Between(base, "-in-", derived));
            return Some(self.node(Node::Prefixed("construction vtable for ", both)));
        }
        if self.eat("GR") {
            let of = self.name(None)?;
            if !self.rest().is_empty() {
                self.sequence(36)?;
            }
            return Some(self.node(Node::Prefixed("reference temporary for ", of)));
        }
        let words = if self.eat("Tc") {
            self.call_offset()?;
            self.call_offset()?;
            "covariant return thunk to "
        } else {
            self.expect("T")?;
            let words = if self.peek() == b'v' { "virtual thunk to " } else { "non-virtual thunk to " };
            self.call_offset()?;
            words
        };
        let of = self.encoding()?;
        Some(self.node(Node::Prefixed(words, of)))
    }

    /// `h12_` or `v12_n8_`
    fn call_offset(&mut self) -> Option<()> {
        let numbers = if self.eat("h") { 1 } else { self.expect("v").map(|()| 2)? };
        for _ in 0..numbers {
            self.eat("n");
            self.digits()?;
            self.expect("_")?;
        }
        Some(())
    }

    pub(super) fn name(&mut self, state: Option<&mut NameState>) -> Option<Id> {
        self.deeper(|p| match p.peek() {
            b'N' => p.nested_name(state),
            b'Z' => p.local_name(state),
            b'S' if p.peek_at(1) != b't' => {
                let name = p.substitution()?;
                (p.peek() == b'I').then_some(())?;
                p.with_arguments(name, state)
            }
            _ => {
                let name = p.unscoped_name(state.is_some())?;
                let (name, no_result) = name;
                match state {
                    Some(state) => {
                        state.no_result |= no_result;
                        if p.peek() != b'I' {
                            return Some(name);
                        }
                        p.substitutions.push(name);
                        p.with_arguments(name, Some(state))
                    }
                    None if p.peek() == b'I' => {
                        p.substitutions.push(name);
                        p.with_arguments(name, None)
                    }
                    None => Some(name),
                }
            }
        })
    }

    fn with_arguments(&mut self, name: Id, state: Option<&mut NameState>) -> Option<Id> {
        let arguments = self.template_arguments(state.is_some())?;
        if let Some(state) = state {
            state.ends_with_arguments = true;
        }
        Some(self.node(Node::Template(name, arguments)))
    }

    /// The name, and whether it is of a function without a result.
    fn unscoped_name(&mut self, of_function: bool) -> Option<(Id, bool)> {
        let std = self.eat("St").then(|| self.node(Node::Text("std")));
        self.unqualified_name(std, of_function)
    }

    fn nested_name(&mut self, mut state: Option<&mut NameState>) -> Option<Id> {
        self.expect("N")?;
        self.eat("H");
        let qualifiers = self.qualifiers();
        let reference = self.reference();
        if let Some(state) = &mut state {
            (state.qualifiers, state.reference) = (qualifiers, reference);
        }
        let mut so_far: Option<Id> = None;
        while !self.eat("E") {
            if let Some(state) = &mut state {
                state.ends_with_arguments = false;
            }
            let next = match (self.peek(), self.peek_at(1)) {
                (b'T', _) => self.template_parameter()?,
                (b'I', _) => self.with_arguments(so_far?, state.as_deref_mut())?,
                (b'D', b't' | b'T') => self.decltype()?,
                (b'S', b't') if so_far.is_none() => {
                    self.at += 2;
                    so_far = Some(self.node(Node::Text("std")));
                    continue;
                }
                (b'S', _) if so_far.is_none() => {
                    so_far = Some(self.substitution()?);
                    continue;
                }
                _ => {
                    let (name, no_result) = self.unqualified_name(so_far, state.is_some())?;
                    if let Some(state) = &mut state {
                        state.no_result = no_result;
                    }
                    name
                }
            };
            so_far = Some(next);
            self.substitutions.push(next);
            self.eat("M");
        }
        // The whole of it is remembered where it is a type, by whoever asked for one.
        self.substitutions.pop()?;
        so_far
    }

    fn local_name(&mut self, state: Option<&mut NameState>) -> Option<Id> {
        self.expect("Z")?;
        let function = self.encoding()?;
        self.expect("E")?;
        if self.eat("s") {
            self.discriminator();
            let literal = self.node(Node::Text("string literal"));
            return Some(self.node(Node::Nested(function, literal)));
        }
        if self.eat("d") {
            // In the default value of a parameter, counted from the last one.
            let number = self.sequence(10)?;
            let entity = self.name(state)?;
            let place = self.node(Node::Parameter(number + 1));
            let place = self.node(Node::Prefixed("{default arg", place));
            let inner = self.node(Node::Nested(place, entity));
            return Some(self.node(Node::Nested(function, inner)));
        }
        let entity = self.name(state)?;
        self.discriminator();
        Some(self.node(Node::Nested(function, entity)))
    }

    /// Which of several things of one name in a function: `_3` or `__12_`.
    fn discriminator(&mut self) {
        let start = self.at;
        let ok = if self.eat("__") {
            self.digits().is_some() && self.eat("_")
        } else {
            self.eat("_") && self.peek().is_ascii_digit() && {
                self.at += 1;
                true
            }
        };
        if !ok {
            self.at = start;
        }
    }

    /// A name in its scope, and whether it is of a function without a result.
    fn unqualified_name(&mut self, scope: Option<Id>, of_function: bool) -> Option<(Id, bool)> {
        self.eat("F");
        self.eat("L");
        let mut no_result = false;
        let mut name = match (self.peek(), self.peek_at(1)) {
            (b'0'..=b'9', _) => self.source_name()?,
            (b'U', _) => self.unnamed()?,
            (b'D', b'C') => {
                self.at += 2;
                let bound = self.until_end(|p| p.source_name())?;
                let list = self.node(Node::Arguments(bound));
                self.node(Node::Prefixed("structured binding ", list))
            }
            (b'C' | b'D', _) => {
                no_result = true;
                self.constructor(scope?)?
            }
            (b'c', b'v') => {
                no_result = true;
                self.conversion(of_function)?
            }
            _ => self.operator_name()?,
        };
        while self.eat("B") {
            let tag = self.source_text()?;
            name = self.node(Node::Tagged(name, tag));
        }
        let scoped = match scope {
            Some(scope) => self.node(Node::Nested(scope, name)),
            None => name,
        };
        Some((scoped, no_result))
    }

    fn source_text(&mut self) -> Option<&'a str> {
        let length: usize = self.digits()?.parse().ok()?;
        let text = self.rest().get(..length).filter(|text| !text.is_empty())?;
        self.at += length;
        Some(text)
    }

    pub(super) fn source_name(&mut self) -> Option<Id> {
        let text = self.source_text()?;
        let anonymous = text.strip_prefix("_GLOBAL_").is_some_and(|t| matches!(t.as_bytes(), [_, b'N', ..]));
        Some(self.node(Node::Text(if anonymous { "(anonymous namespace)" } else { text })))
    }

    fn unnamed(&mut self) -> Option<Id> {
        if self.eat("Ut") {
            let number = self.sequence(10)?;
            return Some(self.node(Node::Unnamed(number + 1)));
        }
        self.expect("Ul")?;
        let outer = std::mem::replace(&mut self.in_lambda, true);
        let parameters = if self.eat("vE") { Some(Vec::new()) } else { self.until_end(|p| p.type_name()) };
        self.in_lambda = outer;
        let number = self.sequence(10)?;
        Some(self.node(Node::Lambda(parameters?, number + 1)))
    }

    fn constructor(&mut self, scope: Id) -> Option<Id> {
        let destructor = !self.eat("C");
        if destructor {
            self.expect("D")?;
        } else if self.eat("I") {
            // Inherited: the type that it comes from follows.
            self.at += 1;
            self.type_name()?;
            return Some(self.node(Node::Constructor(scope)));
        }
        self.peek().is_ascii_digit().then_some(())?;
        self.at += 1;
        Some(self.node(if destructor { Node::Destructor(scope) } else { Node::Constructor(scope) }))
    }

    /// `cv` and a type, which may speak of template arguments that come after it.
    fn conversion(&mut self, of_function: bool) -> Option<Id> {
        self.expect("cv")?;
        let later = std::mem::replace(&mut self.may_be_later, of_function);
        let takes = std::mem::replace(&mut self.takes_arguments, false);
        let to = self.type_name();
        (self.may_be_later, self.takes_arguments) = (later, takes);
        let to = to?;
        Some(self.node(Node::Conversion(to)))
    }

    pub(super) fn operator_name(&mut self) -> Option<Id> {
        if self.eat("li") {
            let name = self.source_name()?;
            return Some(self.node(Node::Prefixed("operator\"\" ", name)));
        }
        if self.peek() == b'v' && self.peek_at(1).is_ascii_digit() {
            self.at += 2;
            let name = self.source_name()?;
            return Some(self.node(Node::Prefixed("operator ", name)));
        }
        let (_, text, _) = self.operator()?;
        let name = self.node(Node::Text(text.trim_end()));
        let spaced = text.starts_with(|c: char| c.is_ascii_alphabetic());
        Some(self.node(Node::Prefixed(if spaced { "operator " } else { "operator" }, name)))
    }

    pub(super) fn operator(&mut self) -> Option<(&'static str, &'static str, u8)> {
        let code = self.rest().get(..2)?;
        let found = OPERATORS.get(OPERATORS.binary_search_by_key(&code, |(code, ..)| *code).ok()?)?;
        self.at += 2;
        Some(*found)
    }

    pub(super) fn qualifiers(&mut self) -> Qualifiers {
        Qualifiers { restrict: self.eat("r"), volatile: self.eat("V"), constant: self.eat("K") }
    }

    pub(super) fn reference(&mut self) -> &'static str {
        if self.eat("O") {
            "&&"
        } else if self.eat("R") {
            "&"
        } else {
            ""
        }
    }
}
