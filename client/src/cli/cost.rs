//! `cost`: what runs used and cost, by bundle, run, step, model or kind.

use clap::{Args, ValueEnum};
use pinrail_proto::{limits, v1};

use super::bundle::named;
use super::context::{Context, Done};
use super::flags::ListFlags;
use super::human;
use super::problem::Problem;
use super::table::Table;
use super::view::View;

#[derive(Debug, Clone, Args)]
pub struct Cost {
    /// Name of the agent; default: all agents of the namespace
    #[arg(value_name = "AGENT")]
    agent: Option<String>,
    /// What is summed up; runs are the newest, the others the dearest first
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = By::Bundle)]
    by: By,
    /// Only of this bundle
    #[arg(long, value_name = "BUNDLE")]
    bundle: Option<String>,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    Bundle,
    Run,
    Step,
    Model,
    Kind,
}

impl By {
    fn api(self) -> v1::CostBy {
        match self {
            By::Bundle => v1::CostBy::Bundle,
            By::Run => v1::CostBy::Run,
            By::Step => v1::CostBy::Step,
            By::Model => v1::CostBy::Model,
            By::Kind => v1::CostBy::Kind,
        }
    }

    fn head(self) -> &'static str {
        match self {
            By::Bundle => "BUNDLE",
            By::Run => "RUN",
            By::Step => "STEP",
            By::Model => "MODEL",
            By::Kind => "KIND",
        }
    }

    fn cell(self, cost: &v1::Cost) -> String {
        match self {
            By::Bundle => cost.bundle_id.clone(),
            By::Run => cost.run_id.clone(),
            By::Step => human::or_dash(&cost.step),
            By::Model if cost.served_model.is_empty() => human::or_dash(&cost.model),
            By::Model => format!("{} ({})", human::or_dash(&cost.model), cost.served_model),
            By::Kind => human::run_kind(cost.kind()),
        }
    }
}

pub(super) async fn cost(context: &Context, args: &Cost) -> Done {
    let agent = args.agent.as_deref().map(|agent| context.agent(agent)).transpose()?;
    let bundle_id = args.bundle.as_deref().map(named).transpose()?.unwrap_or_default();
    if agent.is_none() && !args.list.page_token.is_empty() {
        return Err(Problem::usage("--page-token goes on in one agent's list: name the agent"));
    }
    let (agent, bundle_id) = (agent.as_deref(), bundle_id.as_str());
    context
        .watch(args.list.watch, || async move {
            let answer = match agent {
                Some(agent) => of_agent(context, agent, bundle_id, args).await?,
                None => of_all(context, bundle_id, args).await?,
            };
            Ok(view(&answer, args.by))
        })
        .await
}

async fn of_agent(
    context: &Context,
    agent: &str,
    bundle_id: &str,
    args: &Cost,
) -> Result<v1::GetCostsResponse, Problem> {
    let request = v1::GetCostsRequest {
        agent_id: agent.to_owned(),
        by: args.by.api().into(),
        bundle_id: bundle_id.to_owned(),
        page_size: args.list.limit.min(limits::PAGE),
        page_token: args.list.page_token.clone(),
        read: context.read(),
        ..Default::default()
    };
    Ok(context.client.runs().costs(request).await?)
}

/// Agent after agent, summed up; the dearest headings of all of them.
async fn of_all(
    context: &Context,
    bundle_id: &str,
    args: &Cost,
) -> Result<v1::GetCostsResponse, Problem> {
    let mut sum = v1::GetCostsResponse::default();
    let mut total = v1::Cost::default();
    let mut page_token = String::new();
    loop {
        let request = v1::ListAgentsRequest {
            page_size: limits::PAGE,
            page_token,
            read: context.read(),
            ..Default::default()
        };
        let page = context.client.agents().list(request).await?;
        for agent in &page.agents {
            let costs = of_agent(context, &agent.agent_id, bundle_id, args).await?;
            let one = costs.total.unwrap_or_default();
            total.input_tokens = total.input_tokens.saturating_add(one.input_tokens);
            total.output_tokens = total.output_tokens.saturating_add(one.output_tokens);
            total.cost_micros = total.cost_micros.saturating_add(one.cost_micros);
            total.calls = total.calls.saturating_add(one.calls);
            sum.costs.extend(costs.costs);
            sum.omitted += costs.omitted;
            sum.currency = costs.currency;
            sum.revision = costs.revision;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    sum.costs.sort_by_key(|cost| std::cmp::Reverse(cost.cost_micros));
    let most = args.list.limit as usize;
    sum.omitted += sum.costs.len().saturating_sub(most) as u64;
    sum.costs.truncate(most);
    sum.total = Some(total);
    Ok(sum)
}

fn view(answer: &v1::GetCostsResponse, by: By) -> View {
    let mut table =
        Table::new(&["AGENT", by.head(), "COST", "INPUT", "OUTPUT"], &["CALLS", "BUNDLE", "KIND"]);
    let mut row = |name: String, cost: &v1::Cost| {
        table.row(vec![
            human::or_dash(&cost.agent_id),
            name,
            format!("{} {}", human::micros(cost.cost_micros), answer.currency),
            cost.input_tokens.to_string(),
            cost.output_tokens.to_string(),
            cost.calls.to_string(),
            human::or_dash(&cost.bundle_id),
            match cost.kind() {
                v1::RunKind::Unspecified => "-".to_owned(),
                kind => human::run_kind(kind),
            },
        ]);
    };
    for cost in &answer.costs {
        row(by.cell(cost), cost);
    }
    if answer.omitted > 0 {
        row(format!("({} more)", answer.omitted), &v1::Cost::default());
    }
    row("total".to_owned(), &answer.total.clone().unwrap_or_default());
    let names = answer.costs.iter().map(|cost| by.cell(cost)).collect();
    View::list(answer, "costs", names, table)
}

#[cfg(test)]
mod tests {
    use super::super::settings::Output;
    use super::*;

    #[test]
    fn costs_name_their_currency_and_what_did_not_fit() {
        let dear = v1::Cost {
            agent_id: "support".into(),
            model: "default".into(),
            served_model: "large-2".into(),
            cost_micros: 1_250_000,
            input_tokens: 900,
            ..Default::default()
        };
        let answer = v1::GetCostsResponse {
            total: Some(v1::Cost { cost_micros: 2_000_001, ..dear.clone() }),
            costs: vec![dear],
            omitted: 3,
            currency: "EUR".into(),
            ..Default::default()
        };
        let text = view(&answer, By::Model).render(Output::Table).expect("it shows");
        for part in ["default (large-2)", "1.250000 EUR", "2.000001 EUR", "(3 more)", "900"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
