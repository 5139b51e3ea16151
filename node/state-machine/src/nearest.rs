//! The nearest name, for "did you mean".

/// The name with the smallest edit distance, if it is near enough to be meant.
///
/// `wanted` may be as long as a message: what is much longer than a name is far from it, and is not compared.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let length = wanted.chars().count();
    let near = length / 3 + 1;
    names
        .filter(|name| name.chars().count().abs_diff(length) <= near)
        .map(|name| (distance(wanted, name), name))
        .filter(|(distance, _)| *distance <= near)
        .min()
        .map(|(_, name)| name.to_owned())
}

/// Levenshtein's edit distance, by the two-row method.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (row, left) in a.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, right) in b.iter().enumerate() {
            let replace = above[column] + usize::from(left != *right);
            current.push(replace.min(above[column + 1] + 1).min(current[column] + 1));
        }
        above = current;
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        let names = ["support", "billing", "v41"];
        assert_eq!(nearest("suport", names.into_iter()).as_deref(), Some("support"));
        assert_eq!(nearest("v42", names.into_iter()).as_deref(), Some("v41"));
        assert_eq!(nearest("payments", names.into_iter()), None);
    }

    #[test]
    fn a_text_of_a_megabyte_is_compared_with_no_name() {
        // Comparing would take minutes.
        let (long, name) = ("x".repeat(1 << 20), "x".repeat(63));
        assert_eq!(nearest(&long, std::iter::repeat_n(name.as_str(), 1_000)), None);
    }
}
