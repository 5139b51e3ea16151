//! What an attempt used: models as the handler reports them, tools as they were called.

use pinrail_proto::v1;

/// Adds up the usage of one attempt.
#[derive(Debug, Default)]
pub(crate) struct UsageSum {
    all: v1::Usage,
    /// What the cluster was not told yet.
    untold: v1::Usage,
}

impl UsageSum {
    pub(crate) fn add_model(&mut self, usage: v1::ModelUsage) {
        let usage = v1::ModelUsage { calls: usage.calls.max(1), ..usage };
        add_model(&mut self.all, &usage);
        add_model(&mut self.untold, &usage);
    }

    pub(crate) fn add_tool(&mut self, usage: &v1::ToolUsage) {
        add_tool(&mut self.all, usage);
        add_tool(&mut self.untold, usage);
    }

    /// All of it, told or not.
    pub(crate) fn all(&self) -> &v1::Usage {
        &self.all
    }

    /// What is to be told now, and is told from here on.
    pub(crate) fn tell(&mut self) -> v1::Usage {
        std::mem::take(&mut self.untold)
    }

    /// What was to be told is not: the cluster refused it.
    pub(crate) fn take_back(&mut self, usage: &v1::Usage) {
        for model in &usage.models {
            add_model(&mut self.untold, model);
        }
        for tool in &usage.tools {
            add_tool(&mut self.untold, tool);
        }
    }
}

fn add_model(sum: &mut v1::Usage, usage: &v1::ModelUsage) {
    let same = |one: &&mut v1::ModelUsage| {
        one.model == usage.model && one.served_model == usage.served_model
    };
    if let Some(one) = sum.models.iter_mut().find(same) {
        one.input_tokens = one.input_tokens.saturating_add(usage.input_tokens);
        one.output_tokens = one.output_tokens.saturating_add(usage.output_tokens);
        one.cost_micros = one.cost_micros.saturating_add(usage.cost_micros);
        one.calls = one.calls.saturating_add(usage.calls);
    } else {
        sum.models.push(usage.clone());
    }
}

fn add_tool(sum: &mut v1::Usage, usage: &v1::ToolUsage) {
    let same = |one: &&mut v1::ToolUsage| {
        one.tool == usage.tool && one.schema_digest == usage.schema_digest
    };
    if let Some(one) = sum.tools.iter_mut().find(same) {
        one.calls = one.calls.saturating_add(usage.calls);
        one.schema_violations = one.schema_violations.saturating_add(usage.schema_violations);
        one.checked = one.checked.saturating_add(usage.checked);
        // The first one stays.
        if one.violation.is_empty() {
            one.violation_path.clone_from(&usage.violation_path);
            one.violation.clone_from(&usage.violation);
        }
    } else {
        sum.tools.push(usage.clone());
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
            sum.add_tool(&v1::ToolUsage {
                tool: "search".into(),
                calls: 1,
                schema_violations: tokens - 3,
                ..Default::default()
            });
        }
        sum.add_model(v1::ModelUsage { model: "judge".into(), calls: 2, ..Default::default() });
        let sum = sum.all();
        assert_eq!((sum.models[0].output_tokens, sum.models[0].calls), (7, 2));
        assert_eq!(sum.models[1].calls, 2);
        assert_eq!((sum.tools[0].calls, sum.tools[0].schema_violations), (2, 1));
    }

    #[test]
    fn what_was_told_is_not_told_again_unless_it_was_refused() {
        let mut sum = UsageSum::default();
        let one = |model: &str| v1::ModelUsage { model: model.into(), ..Default::default() };
        sum.add_model(one("first"));
        let told = sum.tell();
        assert_eq!(sum.tell(), v1::Usage::default());
        sum.add_model(one("second"));
        sum.take_back(&told);
        let mut again: Vec<_> =
            sum.tell().models.into_iter().map(|it| (it.model, it.calls)).collect();
        again.sort();
        assert_eq!(again, [("first".to_owned(), 1), ("second".to_owned(), 1)]);
        assert_eq!(sum.all().models.len(), 2, "and none counts twice");
    }
}
