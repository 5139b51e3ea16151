//! Digests of eval sets and reports: what makes an example the same example in another version of its set.

use pinrail_proto::v1;
use prost::Message as _;

use crate::bundle::Fields;

/// Of everything that an example is, its id included.
pub(super) fn of_example(example: &v1::EvalExample) -> String {
    let input = example.input.clone().unwrap_or_default();
    Fields::new("eval example")
        .field(example.id.as_bytes())
        .field(example.category.as_bytes())
        .field(example.content_digest.as_bytes())
        .field(input.content_type.as_bytes())
        .field(&input.data)
        .field(&example.expect.clone().unwrap_or_default().encode_to_vec())
        .field(example.entry.as_bytes())
        .hex()
}

/// Of a set whose examples have theirs and are sorted.
pub(super) fn of_set(set: &v1::EvalSet) -> String {
    let mut fields = Fields::new("eval set").field(&set.memory_revision.to_be_bytes());
    for metric in &set.metrics {
        fields = fields.field(metric.name.as_bytes()).field(&metric.kind.to_be_bytes());
    }
    for example in &set.examples {
        fields = fields.field(example.digest.as_bytes());
    }
    fields.hex()
}

/// Of a report whose results are sorted: of what was measured, wherever the file lay.
pub(super) fn of_report(report: &v1::EvalReport) -> String {
    let mut fields = Fields::new("eval report")
        .field(report.bundle_id.as_bytes())
        .field(report.set.as_bytes())
        .field(report.format.as_bytes());
    for metric in &report.metrics {
        fields = fields.field(metric.name.as_bytes()).field(&metric.kind.to_be_bytes());
    }
    for result in &report.results {
        fields = fields.field(&result.encode_to_vec());
    }
    fields.hex()
}
