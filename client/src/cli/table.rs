//! Aligned columns for people. Knows no message.

/// A table; columns behind the first `narrow` ones are shown only by `-o wide`.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    head: Vec<&'static str>,
    narrow: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns, and further ones for `-o wide`.
    pub(super) fn new(columns: &[&'static str], wide: &[&'static str]) -> Table {
        let head = columns.iter().chain(wide).copied().collect();
        Table { head, narrow: columns.len(), rows: Vec::new() }
    }

    /// Adds a row; it has a cell for each column, the wide ones included.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.head.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Whether it has no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, each ending with a line feed.
    pub(super) fn render(&self, wide: bool) -> String {
        let columns = if wide { self.head.len() } else { self.narrow };
        let mut widths: Vec<usize> =
            self.head.iter().take(columns).map(|name| name.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|name| (*name).to_owned()).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(cell);
                let space = width - cell.chars().count() + 2;
                line.extend(std::iter::repeat_n(' ', space));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Lines of `key  value` for one object; an empty value is left out.
pub(super) fn pairs(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0) + 2;
    let mut text = String::new();
    for (key, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        let mut lines = value.lines();
        let first = lines.next().unwrap_or_default();
        text.push_str(&format!("{key:width$}{first}\n"));
        for line in lines {
            text.push_str(&format!("{:width$}{line}\n", ""));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_wide_ones_hidden() {
        let mut table = Table::new(&["RUN", "STATE"], &["WORKER"]);
        table.row(vec!["a".into(), "running".into(), "w1".into()]);
        table.row(vec!["längere".into(), "-".into(), "w2".into()]);
        assert_eq!(table.render(false), "RUN      STATE\na        running\nlängere  -\n");
        assert_eq!(
            table.render(true),
            "RUN      STATE    WORKER\na        running  w1\nlängere  -        w2\n"
        );
    }

    #[test]
    fn pairs_leave_out_what_is_empty() {
        let text =
            pairs(&[("run", "r".into()), ("failure", String::new()), ("input", "a\nb".into())]);
        assert_eq!(text, "run      r\ninput    a\n         b\n");
    }
}
