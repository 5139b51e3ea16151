//! What an attempt used: models as the handler reports them, tools as they were called.

use pinrail_proto::v1;

/// Adds up the usage of one attempt.
#[derive(Debug, Default)]
pub(crate) struct UsageSum {
    sum: v1::Usage,
}

impl UsageSum {
    pub(crate) fn add_model(&mut self, usage: v1::ModelUsage) {
        let calls = usage.calls.max(1);
        let same = |one: &&mut v1::ModelUsage| {
            one.model == usage.model && one.served_model == usage.served_model
        };
        if let Some(one) = self.sum.models.iter_mut().find(same) {
            one.input_tokens = one.input_tokens.saturating_add(usage.input_tokens);
            one.output_tokens = one.output_tokens.saturating_add(usage.output_tokens);
            one.cost_micros = one.cost_micros.saturating_add(usage.cost_micros);
            one.calls = one.calls.saturating_add(calls);
        } else {
            self.sum.models.push(v1::ModelUsage { calls, ..usage });
        }
    }

    pub(crate) fn add_tool(&mut self, usage: v1::ToolUsage) {
        let same = |one: &&mut v1::ToolUsage| {
            one.tool == usage.tool && one.schema_digest == usage.schema_digest
        };
        if let Some(one) = self.sum.tools.iter_mut().find(same) {
            one.calls = one.calls.saturating_add(usage.calls);
            one.schema_violations = one.schema_violations.saturating_add(usage.schema_violations);
            one.checked = one.checked.saturating_add(usage.checked);
            // The first one stays.
            if one.violation.is_empty() {
                (one.violation_path, one.violation) = (usage.violation_path, usage.violation);
            }
        } else {
            self.sum.tools.push(usage);
        }
    }

    pub(crate) fn sum(&self) -> v1::Usage {
        self.sum.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_the_same_model_and_tool_adds_up() {
        let mut sum = UsageSum::default();
        for tokens in [3, 4] {
            sum.add_model(v1::ModelUsage {
                model: "default".into(),
                output_tokens: tokens,
                ..Default::default()
            });
            sum.add_tool(v1::ToolUsage {
                tool: "search".into(),
                calls: 1,
                schema_violations: tokens - 3,
                ..Default::default()
            });
        }
        sum.add_model(v1::ModelUsage { model: "judge".into(), calls: 2, ..Default::default() });
        let sum = sum.sum();
        assert_eq!((sum.models[0].output_tokens, sum.models[0].calls), (7, 2));
        assert_eq!(sum.models[1].calls, 2);
        assert_eq!((sum.tools[0].calls, sum.tools[0].schema_violations), (2, 1));
    }
}
