//! Numbers and advice as people read them.

use pinrail_proto::v1;

/// Thousandths: `0.916`.
pub(super) fn number(permille: u32) -> String {
    format!("{}.{:03}", permille / 1_000, permille % 1_000)
}

/// A share with three decimals; 0 of nothing.
pub(super) fn share(part: u32, whole: u32) -> String {
    format!("{:.3}", f64::from(part) / f64::from(whole.max(1)))
}

pub(super) fn short_category(it: &v1::CategoryCoverage) -> String {
    let name = if it.category.is_empty() { "no category" } else { &it.category };
    format!(
        "{name} has {} of production and {} of the set ({} examples)",
        number(it.runs_permille),
        number(it.examples_permille),
        it.examples
    )
}

/// The command that brings what is missing. The agent's name is for whoever shows it.
pub(super) fn submit(bundle: &str, set: &str) -> String {
    format!("pinrail eval submit AGENT {bundle} -f FILE --set {set}")
}
