//! Takes keys out of a table one by one, with types and ranges; what is left over is an unknown key.
//! It knows no key of ours; it knows how an error about one reads.

use std::collections::BTreeMap;

use pinrail_proto::limits;
use pinrail_proto::reason::Reason;

use super::FileError;
use super::tree::{Node, Table, Value};

mod amount;

/// A table that is being read.
#[derive(Debug)]
pub(super) struct Reader<'f> {
    /// The file's name and the reason of its errors.
    pub(super) file: &'f str,
    pub(super) reason: &'static Reason,
    /// Dotted path of this table, empty at the top.
    path: String,
    table: Table,
    line: usize,
    /// Keys that were asked for, for suggestions.
    known: Vec<&'static str>,
}

impl<'f> Reader<'f> {
    pub(super) fn new(file: &'f str, reason: &'static Reason, table: Table) -> Reader<'f> {
        Reader { file, reason, path: String::new(), table, line: 1, known: Vec::new() }
    }

    fn inside(&self, key: &str, line: usize, table: Table) -> Reader<'f> {
        let (file, reason) = (self.file, self.reason);
        Reader { file, reason, path: self.key(key), table, line, known: Vec::new() }
    }

    /// Dotted path of a key of this table.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// An error about this table or one of its keys.
    pub(super) fn error(&self, line: usize, message: impl Into<String>) -> FileError {
        let place = if line == 0 { "--set".to_owned() } else { format!("{}:{line}", self.file) };
        FileError { reason: self.reason.name, place, message: message.into() }
    }

    /// Line of this table.
    pub(super) fn line(&self) -> usize {
        self.line
    }

    /// Line of a key of this table, or else of the table.
    pub(super) fn line_of(&self, key: &str) -> usize {
        self.table.get(key).map_or(self.line, |node| node.line)
    }

    /// Whether a key is there.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Takes a key as it is.
    pub(super) fn node(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.table.remove(key)
    }

    fn wrong(&self, key: &str, node: &Node, expected: &str) -> FileError {
        let message = format!("{}: is {}, expected {expected}", self.key(key), node.value.kind());
        self.error(node.line, message)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<(String, usize)>, FileError> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Text(text), line }) => Ok(Some((text, line))),
            Some(node) => Err(self.wrong(key, &node, "a string")),
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Result<(String, usize), FileError> {
        match self.text(key)? {
            Some((text, line)) if !text.trim().is_empty() => Ok((text, line)),
            Some((_, line)) => Err(self.error(line, format!("{}: is empty", self.key(key)))),
            None => Err(self.error(self.line, format!("{}: is missing", self.key(key)))),
        }
    }

    pub(super) fn bool(&mut self, key: &'static str) -> Result<Option<bool>, FileError> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Bool(bool), .. }) => Ok(Some(bool)),
            Some(node) => Err(self.wrong(key, &node, "true or false")),
        }
    }

    /// A list of texts, each with its line.
    pub(super) fn texts(
        &mut self,
        key: &'static str,
    ) -> Result<Option<Vec<(String, usize)>>, FileError> {
        self.node(key).map(|node| self.as_texts(key, node)).transpose()
    }

    /// A node that must be a list of texts.
    pub(super) fn as_texts(
        &self,
        key: &str,
        node: Node,
    ) -> Result<Vec<(String, usize)>, FileError> {
        let Value::List(items) = node.value else {
            return Err(self.wrong(key, &node, "a list of strings"));
        };
        let text = |node: Node| match node {
            Node { value: Value::Text(text), line } => Ok((text, line)),
            node => Err(self.wrong(key, &node, "a string")),
        };
        items.into_iter().map(text).collect()
    }

    /// A list of some words, none twice.
    pub(super) fn some_of(
        &mut self,
        key: &'static str,
        words: &[&str],
    ) -> Result<Option<Vec<String>>, FileError> {
        let Some(texts) = self.texts(key)? else { return Ok(None) };
        let mut chosen: Vec<String> = Vec::new();
        for (word, line) in texts {
            if !words.contains(&word.as_str()) {
                let rule = format!("{}: {word:?} is none of {}", self.key(key), words.join(", "));
                return Err(self.error(line, rule));
            }
            if chosen.contains(&word) {
                return Err(self.error(line, format!("{}: {word} is there twice", self.key(key))));
            }
            chosen.push(word);
        }
        Ok(Some(chosen))
    }

    /// One of some words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, FileError> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text);
        found.map(|(_, value)| Some(*value)).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let rule = format!("{}: {text:?} is none of {}", self.key(key), words.join(", "));
            self.error(line, rule)
        })
    }

    /// A table, as a reader of its own. Its caller ends it with [`Reader::finish`].
    pub(super) fn table(&mut self, key: &'static str) -> Result<Option<Reader<'f>>, FileError> {
        match self.node(key) {
            None => Ok(None),
            Some(node) => self.as_table(key, node).map(Some),
        }
    }

    /// A node that must be a table.
    pub(super) fn as_table(&self, key: &str, node: Node) -> Result<Reader<'f>, FileError> {
        let Node { value: Value::Table(table), line } = node else {
            return Err(self.wrong(key, &node, "a table"));
        };
        Ok(self.inside(key, line, table))
    }

    /// The tables of a table, by the user's names.
    pub(super) fn tables(
        &mut self,
        key: &'static str,
    ) -> Result<Vec<(String, Reader<'f>)>, FileError> {
        let Some(outer) = self.table(key)? else { return Ok(Vec::new()) };
        let mut inner = Vec::new();
        for (name, node) in outer.table.clone() {
            inner.push((name.clone(), outer.as_table(&name, node)?));
        }
        Ok(inner)
    }

    /// Takes all keys of a table whose names are the user's.
    pub(super) fn entries(&mut self) -> Table {
        std::mem::take(&mut self.table)
    }

    /// Reads a section and sees that nothing is left over in it; an absent one counts as empty.
    pub(super) fn section<T: Default>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&mut Reader<'f>) -> Result<T, FileError>,
    ) -> Result<T, FileError> {
        let Some(mut table) = self.table(key)? else { return Ok(T::default()) };
        let value = read(&mut table)?;
        table.finish()?;
        Ok(value)
    }

    /// A list of tables.
    pub(super) fn list(&mut self, key: &'static str) -> Result<Vec<Reader<'f>>, FileError> {
        let Some(node) = self.node(key) else { return Ok(Vec::new()) };
        let Value::List(items) = node.value else {
            return Err(self.wrong(key, &node, "a list of tables"));
        };
        let named = |(index, item)| self.as_table(&format!("{key}[{index}]"), item);
        items.into_iter().enumerate().map(named).collect()
    }

    /// Labels: at most 64 pairs of texts.
    pub(super) fn labels(
        &mut self,
        key: &'static str,
    ) -> Result<BTreeMap<String, String>, FileError> {
        let Some(table) = self.table(key)? else { return Ok(BTreeMap::new()) };
        let mut labels = BTreeMap::new();
        for (name, node) in &table.table {
            let Value::Text(text) = &node.value else {
                return Err(table.wrong(name, node, "a string"));
            };
            if name.len() > limits::LABEL_KEY_BYTES || text.len() > limits::LABEL_VALUE_BYTES {
                let (key, value) = (limits::LABEL_KEY_BYTES, limits::LABEL_VALUE_BYTES);
                let rule = format!("a label has at most {key} and {value} bytes");
                return Err(table.error(node.line, format!("{}: {rule}", table.key(name))));
            }
            labels.insert(name.clone(), text.clone());
        }
        if labels.len() > limits::LABELS {
            let rule = format!("{}: {} labels; at most 64", table.path, labels.len());
            return Err(table.error(table.line, rule));
        }
        Ok(labels)
    }

    /// Nothing may be left over.
    pub(super) fn finish(self) -> Result<(), FileError> {
        let Some((key, node)) = self.table.first_key_value() else { return Ok(()) };
        let near = self
            .known
            .iter()
            .map(|known| (strsim::damerau_levenshtein(known, key), known))
            .filter(|(distance, _)| *distance <= 3)
            .min()
            .map_or(String::new(), |(_, known)| format!("; did you mean {known}?"));
        Err(self.error(node.line, format!("unknown key {}{near}", self.key(key))))
    }
}
