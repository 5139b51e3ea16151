//! A TOML document as a tree in which every key and value knows its line. It knows no key of ours.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

/// A value and the line that it stands on; line 0 is the command line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Decimal(f64),
    Bool(bool),
    /// Dates are known only so that an error can name them.
    Date(String),
    List(Vec<Node>),
    Table(Table),
}

/// The keys of one table. Their order is that of the alphabet: nothing depends on another.
pub(super) type Table = BTreeMap<String, Node>;

impl Value {
    /// The word for an error.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Decimal(_) => "a decimal number",
            Value::Bool(_) => "a boolean",
            Value::Date(_) => "a date",
            Value::List(_) => "a list",
            Value::Table(_) => "a table",
        }
    }

    /// As JSON; `None` when it holds what JSON cannot say (a date, an infinity).
    pub(super) fn json(&self) -> Option<serde_json::Value> {
        Some(match self {
            Value::Text(text) => text.clone().into(),
            Value::Integer(number) => (*number).into(),
            Value::Decimal(number) => {
                serde_json::Value::Number(serde_json::Number::from_f64(*number)?)
            }
            Value::Bool(bool) => (*bool).into(),
            Value::Date(_) => return None,
            Value::List(items) => {
                items.iter().map(|item| item.value.json()).collect::<Option<Vec<_>>>()?.into()
            }
            Value::Table(table) => {
                let mut object = serde_json::Map::new();
                for (key, node) in table {
                    object.insert(key.clone(), node.value.json()?);
                }
                serde_json::Value::Object(object)
            }
        })
    }
}

/// A syntax error: line and message.
#[derive(Debug, PartialEq)]
pub(super) struct Syntax {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Parses a document.
pub(super) fn parse(text: &str) -> Result<Table, Syntax> {
    let lines = Lines::new(text);
    let parsed = DeTable::parse(text).map_err(|error| Syntax {
        line: error.span().map_or(1, |span| lines.line(span.start)),
        message: error.message().replace('\n', "; "),
    })?;
    lines.table(parsed.get_ref())
}

/// Parses what stands after `--set key=`: a TOML value, or else a plain text.
pub(super) fn parse_value(text: &str) -> Node {
    let lines = Lines { starts: Vec::new() };
    let value = match DeValue::parse(text) {
        Ok(parsed) => lines.value(0, parsed.get_ref()).ok(),
        Err(_) => None,
    };
    Node { line: 0, value: value.unwrap_or_else(|| Value::Text(text.to_owned())) }
}

/// Sets the value of a dotted key, making tables on the way. An error names the part that is no table.
pub(super) fn set(table: &mut Table, key: &str, node: Node) -> Result<(), String> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), node);
            Ok(())
        }
        Some((head, rest)) => {
            let inner = table
                .entry(head.to_owned())
                .or_insert_with(|| Node { line: 0, value: Value::Table(Table::new()) });
            match &mut inner.value {
                Value::Table(inner) => set(inner, rest, node),
                other => Err(format!("{head} is {}, not a table", other.kind())),
            }
        }
    }
}

/// Changes every text of the tree.
pub(super) fn map_texts<E>(
    node: &mut Node,
    change: &mut impl FnMut(&str, usize) -> Result<String, E>,
) -> Result<(), E> {
    match &mut node.value {
        Value::Text(text) => *text = change(text, node.line)?,
        Value::List(items) => {
            for item in items {
                map_texts(item, change)?;
            }
        }
        Value::Table(table) => {
            for inner in table.values_mut() {
                map_texts(inner, change)?;
            }
        }
        Value::Integer(_) | Value::Decimal(_) | Value::Bool(_) | Value::Date(_) => {}
    }
    Ok(())
}

/// Offsets at which lines begin.
struct Lines {
    starts: Vec<usize>,
}

impl Lines {
    fn new(text: &str) -> Lines {
        let mut starts = vec![0];
        starts.extend(text.match_indices('\n').map(|(offset, _)| offset + 1));
        Lines { starts }
    }

    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Table, Syntax> {
        let mut nodes = Table::new();
        for (key, value) in table {
            let line = self.line(key.span().start);
            let value = self.value(line, value.get_ref())?;
            nodes.insert(key.get_ref().to_string(), Node { line, value });
        }
        Ok(nodes)
    }

    fn value(&self, line: usize, value: &DeValue<'_>) -> Result<Value, Syntax> {
        Ok(match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => {
                let parsed = i64::from_str_radix(number.as_str(), number.radix());
                let message = format!("{number} is too large for a number");
                Value::Integer(parsed.map_err(|_| Syntax { line, message })?)
            }
            DeValue::Float(number) => {
                let message = format!("{number} is no number");
                Value::Decimal(number.as_str().parse().map_err(|_| Syntax { line, message })?)
            }
            DeValue::Boolean(bool) => Value::Bool(*bool),
            DeValue::Datetime(date) => Value::Date(date.to_string()),
            DeValue::Array(items) => {
                let mut nodes = Vec::new();
                for item in items.iter() {
                    // `--set` has no lines.
                    let line = if line == 0 { 0 } else { self.line(item.span().start) };
                    nodes.push(Node { line, value: self.value(line, item.get_ref())? });
                }
                Value::List(nodes)
            }
            DeValue::Table(table) => Value::Table(self.table(table)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_knows_its_line() {
        let table = parse("a = 1\n\n[b]\nc = [\n 1,\n 2]\n[[d]]\ne = 'x'\n").expect("valid TOML");
        assert_eq!(table["a"].line, 1);
        let Value::Table(b) = &table["b"].value else { panic!("a table") };
        assert_eq!(b["c"].line, 4);
        let Value::List(items) = &b["c"].value else { panic!("a list") };
        assert_eq!(items[1], Node { line: 6, value: Value::Integer(2) });
        let Value::List(items) = &table["d"].value else { panic!("a list") };
        assert_eq!(items[0].line, 7);
    }

    #[test]
    fn a_syntax_error_names_its_line() {
        assert_eq!(parse("a = 1\nb = \n").expect_err("no value").line, 2);
        assert_eq!(parse("a = 1\na = 2\n").expect_err("twice").line, 2);
    }

    #[test]
    fn set_makes_tables_and_takes_plain_text() {
        let mut table = parse("[code]\nimage = 'x'").expect("valid TOML");
        set(&mut table, "code.git_commit", parse_value("0123abc")).expect("a table");
        set(&mut table, "model.parameters.top_k", parse_value("5")).expect("a table");
        let json = Value::Table(table.clone()).json().expect("all of it is JSON");
        assert_eq!(json["code"]["git_commit"], "0123abc");
        assert_eq!(json["model"]["parameters"]["top_k"], 5);
        assert!(set(&mut table, "code.image.x", parse_value("1")).is_err());
    }
}
