//! Cuts what workers report to its limits: a long text is no reason to lose a result.

use pinrail_proto::limits;
use pinrail_proto::v1::{Failure, Usage};

/// A report whose names have their limit.
pub(super) fn usage(report: &Usage) -> Usage {
    let mut report = report.clone();
    for model in &mut report.models {
        truncate(&mut model.model, limits::ID_BYTES);
        truncate(&mut model.served_model, limits::ID_BYTES);
    }
    for tool in &mut report.tools {
        truncate(&mut tool.tool, limits::ID_BYTES);
        truncate(&mut tool.schema_digest, limits::ID_BYTES);
        truncate(&mut tool.side_effects, limits::NAME_BYTES);
        truncate(&mut tool.violation_path, limits::ID_BYTES);
        truncate(&mut tool.violation, limits::ID_BYTES);
    }
    report
}

/// A failure whose texts have their limit.
pub(crate) fn failure(reported: Option<&Failure>) -> Failure {
    let mut failure = reported.cloned().unwrap_or_default();
    truncate(&mut failure.message, limits::TEXT_BYTES);
    truncate(&mut failure.reason, limits::NAME_BYTES);
    failure
}

/// Cuts at a character.
pub(crate) fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let reported =
            Failure { message: format!("x{}", "ä".repeat(3_000)), ..Failure::default() };
        let message = failure(Some(&reported)).message;
        assert_eq!(message.len(), limits::TEXT_BYTES - 1);
        assert!(message.ends_with('ä'));
    }
}
