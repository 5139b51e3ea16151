//! Takes keys out of a table one by one, with types and ranges; what is left over is an unknown key.
//! It knows no key of ours; it knows how an error about one reads.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use pinrail_proto::limits;
use pinrail_proto::reason::Reason;

use super::tree::{Node, Table, Value};
use super::{FileError, value};

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

    /// Takes a key as it is.
    pub(super) fn node(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Takes a key whose name is the user's.
    pub(super) fn named(&mut self, key: &str) -> Option<Node> {
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

    pub(super) fn bool(&mut self, key: &'static str) -> Result<Option<bool>, FileError> {
        match self.node(key) {
            None => Ok(None),
            Some(Node { value: Value::Bool(bool), .. }) => Ok(Some(bool)),
            Some(node) => Err(self.wrong(key, &node, "true or false")),
        }
    }

    /// An integer within a range.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, FileError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        let Value::Integer(number) = node.value else {
            return Err(self.wrong(key, &node, "an integer"));
        };
        let fits = u64::try_from(number).ok().filter(|number| range.contains(number));
        fits.map(Some).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            let rule = format!("{}: {number} is out of range: {low} to {high}", self.key(key));
            self.error(node.line, rule)
        })
    }

    /// A decimal within a range, in thousandths.
    pub(super) fn permille(
        &mut self,
        key: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<u32>, FileError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        #[expect(clippy::cast_precision_loss, reason = "the range ends far below 2^53")]
        let number = match node.value {
            Value::Integer(number) => number as f64,
            Value::Decimal(number) => number,
            Value::Text(_) | Value::Bool(_) | Value::Date(_) | Value::List(_) | Value::Table(_) => {
                return Err(self.wrong(key, &node, "a number"));
            }
        };
        let thousandths = value::permille(number).filter(|number| range.contains(number));
        thousandths.and_then(|number| u32::try_from(number).ok()).map(Some).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            let rule = format!(
                "{}: {number} is out of range: {} to {}, at most three digits after the point",
                self.key(key),
                value::show_permille(*low),
                value::show_permille(*high)
            );
            self.error(node.line, rule)
        })
    }

    /// A duration within a range.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Result<Option<prost_types::Duration>, FileError> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let parsed = value::duration(&text)
            .map_err(|rule| self.error(line, format!("{}: {rule}", self.key(key))))?;
        if !range.contains(&parsed) {
            let rule = format!(
                "{}: {text} is out of range: {} to {}",
                self.key(key),
                value::show_duration(*range.start()),
                value::show_duration(*range.end())
            );
            return Err(self.error(line, rule));
        }
        let millis = u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(pinrail_proto::time::duration(millis)))
    }

    /// A size in bytes, within a range.
    pub(super) fn size(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, FileError> {
        if matches!(self.table.get(key), Some(Node { value: Value::Integer(_), .. })) {
            return self.number(key, range);
        }
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let parsed = value::size(&text)
            .map_err(|rule| self.error(line, format!("{}: {rule}", self.key(key))))?;
        if !range.contains(&parsed) {
            let (low, high) = (value::show_size(*range.start()), value::show_size(*range.end()));
            let rule = format!("{}: {text} is out of range: {low} to {high}", self.key(key));
            return Err(self.error(line, rule));
        }
        Ok(Some(parsed))
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
