//! One command's words: `verb word word key=value "key=two words" flag`.

use std::collections::BTreeMap;

#[derive(Debug)]
pub(super) struct Line {
    text: String,
    pub(super) verb: String,
    words: Vec<String>,
    options: BTreeMap<String, String>,
}

impl Line {
    pub(super) fn parse(text: &str) -> Self {
        let mut words = split(text);
        assert!(!words.is_empty(), "an empty command");
        let verb = words.remove(0);
        let (options, words): (Vec<_>, Vec<_>) = words.into_iter().partition(|w| w.contains('='));
        let pair = |word: String| {
            let (key, value) = word.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        let options = options.into_iter().map(pair).collect();
        Self { text: text.to_owned(), verb, words, options }
    }

    /// The next word; a story that leaves it out is wrong.
    pub(super) fn word(&mut self) -> String {
        assert!(!self.words.is_empty(), "a word is missing: {}", self.text);
        self.words.remove(0)
    }

    /// The next word or "".
    pub(super) fn word_or_none(&mut self) -> String {
        if self.words.is_empty() { String::new() } else { self.words.remove(0) }
    }

    /// Whether a word stands alone somewhere.
    pub(super) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    pub(super) fn option(&mut self, key: &str) -> Option<String> {
        self.options.remove(key)
    }

    pub(super) fn text(&mut self, key: &str) -> String {
        self.option(key).unwrap_or_default()
    }

    pub(super) fn number(&mut self, key: &str) -> Option<u64> {
        self.option(key).map(|value| value.parse().unwrap_or_else(|_| panic!("{key}={value}")))
    }

    /// Milliseconds of `key=1h30m`.
    pub(super) fn span(&mut self, key: &str) -> Option<u64> {
        self.option(key).map(|value| span(&value))
    }

    /// All options whose key begins with `prefix`, without it.
    pub(super) fn all(&mut self, prefix: &str) -> Vec<(String, String)> {
        let keys: Vec<String> =
            self.options.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.into_iter()
            .map(|key| {
                let value = self.options.remove(&key).unwrap_or_default();
                (key[prefix.len()..].to_owned(), value)
            })
            .collect()
    }

    pub(super) fn expect_used_up(&self) {
        let rest = self.words.is_empty() && self.options.is_empty();
        assert!(rest, "not understood in {:?}: {:?} {:?}", self.text, self.words, self.options);
    }
}

fn split(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    assert!(!quoted, "a quote is open: {text}");
    words.retain(|word| !word.is_empty());
    words
}

/// Milliseconds of `1h30m`, `10s`, `500ms`, `7d`.
pub(super) fn span(text: &str) -> u64 {
    let mut ms = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or_else(|| panic!("{text}"));
        let number: u64 = rest[..digits].parse().unwrap_or_else(|_| panic!("{text}"));
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        ms += number
            * match &rest[..end] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                other => panic!("no unit of time: {other}"),
            };
        rest = &rest[end..];
    }
    ms
}
