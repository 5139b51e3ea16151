//! `shadow`: live runs and their mirrors, side by side.

use clap::{Args, Subcommand, ValueEnum};
use parking_lot::Mutex;
use pinrail_proto::v1;

use super::context::{Context, Done};
use super::flags::{ListFlags, ReadFlags};
use super::human;
use super::json;
use super::table::{Table, pairs};
use super::view::View;

/// Characters of one of the two columns.
const COLUMN: usize = 58;

/// Verbs of `shadow`.
#[derive(Debug, Clone, Subcommand)]
pub enum Shadow {
    /// Pairs of a release, and how they compare
    #[command(
        after_help = "Examples:\n  pinrail shadow pairs support --state diverged\n  pinrail shadow pairs support --release r7 -o json"
    )]
    Pairs(Pairs),
    /// One pair side by side: what both were given, came to, and called
    #[command(after_help = "Example:\n  pinrail shadow show support 7c0ffee1-01JD2Z")]
    Show(Show),
}

#[derive(Debug, Clone, Args)]
pub struct Pairs {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Only pairs that stand like this
    #[arg(long, value_name = "STATE")]
    state: Option<State>,
    /// Id of a release, `r7`; default: the active one, else the newest
    #[arg(long = "release", value_name = "ID", default_value = "", hide_default_value = true)]
    release: String,
    #[command(flatten)]
    list: ListFlags,
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Name of the agent
    #[arg(value_name = "AGENT")]
    agent: String,
    /// The live run, or its mirror
    #[arg(value_name = "RUN")]
    run: String,
    /// Id of a release, `r7`; default: the active one, else the newest
    #[arg(long = "release", value_name = "ID", default_value = "", hide_default_value = true)]
    release: String,
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    /// A run of it, or its judge, is not over
    Open,
    Same,
    Diverged,
    /// It says nothing about the candidate
    NotComparable,
}

impl From<State> for v1::PairState {
    fn from(state: State) -> Self {
        match state {
            State::Open => Self::Open,
            State::Same => Self::Same,
            State::Diverged => Self::Diverged,
            State::NotComparable => Self::NotComparable,
        }
    }
}

pub(super) async fn run(context: &Context, verb: &Shadow) -> Done {
    match verb {
        Shadow::Pairs(args) => list(context, args).await,
        Shadow::Show(args) => show(context, args).await,
    }
}

async fn list(context: &Context, args: &Pairs) -> Done {
    let agent_id = context.agent(&args.agent)?;
    let agent_id = agent_id.as_str();
    context
        .watch(args.list.watch, || async move {
            // Release and comparison are in every page.
            let head = &Mutex::new(v1::ListShadowPairsResponse::default());
            let (pairs, next_page_token, revision) = context
                .pages(&args.list, |page_size, page_token| async move {
                    let request = v1::ListShadowPairsRequest {
                        agent_id: agent_id.to_owned(),
                        release_id: args.release.clone(),
                        state: args.state.map_or(0, |state| v1::PairState::from(state).into()),
                        page_size,
                        page_token,
                        read: context.read(),
                        ..Default::default()
                    };
                    let mut page = context.client.shadows().pairs(request).await?;
                    let pairs = std::mem::take(&mut page.pairs);
                    let (token, revision) = (page.next_page_token.clone(), page.revision);
                    *head.lock() = page;
                    Ok((pairs, token, revision))
                })
                .await?;
            let names = pairs.iter().map(|pair| pair.shadow_run_id.clone()).collect();
            let table = table(&pairs);
            let head = head.lock().clone();
            let page = v1::ListShadowPairsResponse { pairs, next_page_token, revision, ..head };
            Ok(View::list(&page, "pairs", names, table))
        })
        .await
}

fn table(pairs: &[v1::ShadowPair]) -> Table {
    let columns = ["LIVE RUN", "PAIR", "LIVE", "SHADOW", "WHY"];
    let mut table = Table::new(&columns, &["MIRROR", "LIVE COST", "SHADOW COST", "JUDGE"]);
    for pair in pairs {
        table.row(vec![
            pair.live_run_id.clone(),
            human::pair_state(pair.state()),
            human::api_span(pair.live_took.as_ref()),
            human::api_span(pair.shadow_took.as_ref()),
            human::or_dash(&human::cut(&pair.why, 60)),
            pair.shadow_run_id.clone(),
            human::micros(pair.live_cost_micros),
            human::micros(pair.shadow_cost_micros),
            human::or_dash(&pair.judge_run_id),
        ]);
    }
    table
}

async fn show(context: &Context, args: &Show) -> Done {
    let agent_id = context.agent(&args.agent)?;
    pinrail_proto::id::check_token("run id", &args.run)?;
    context
        .watch(args.read.watch, || async {
            let request = v1::GetShadowPairRequest {
                agent_id: agent_id.clone(),
                run_id: args.run.clone(),
                release_id: args.release.clone(),
                read: context.read(),
                ..Default::default()
            };
            let answer = context.client.shadows().pair(request).await?;
            let name = answer.pair.clone().unwrap_or_default().shadow_run_id;
            Ok(View::object(&answer, &name, text(&answer)))
        })
        .await
}

fn text(answer: &v1::GetShadowPairResponse) -> String {
    let pair = answer.pair.clone().unwrap_or_default();
    let mut text = pairs(&[
        ("release", answer.release_id.clone()),
        ("pair", human::pair_state(pair.state())),
        ("why", pair.why.clone()),
        ("compared by", human::compare(answer.compare())),
        ("judge", pair.judge_run_id.clone()),
        ("input", human::payload(answer.input.as_ref(), 2 * COLUMN)),
    ]);
    let (live, shadow) = (side(answer.live.as_ref()), side(answer.shadow.as_ref()));
    let took = |took: Option<&prost_types::Duration>| human::api_span(took);
    let rows = [
        (live.run_id.clone(), shadow.run_id.clone()),
        (format!("live on {}", live.bundle_id), format!("shadow on {}", shadow.bundle_id)),
        (human::run_state(live.state()), human::run_state(shadow.state())),
        (took(pair.live_took.as_ref()), took(pair.shadow_took.as_ref())),
        (human::micros(pair.live_cost_micros), human::micros(pair.shadow_cost_micros)),
        (live.tools.join(", "), shadow.tools.join(", ")),
        (failure(&live), failure(&shadow)),
    ];
    text.push('\n');
    for (left, right) in rows.iter().filter(|(left, right)| !(left.is_empty() && right.is_empty()))
    {
        text.push_str(&beside(left, right, false));
    }
    text.push('\n');
    text.push_str(&beside(&pretty(live.output.as_ref()), &pretty(shadow.output.as_ref()), true));
    text
}

fn side(side: Option<&v1::PairSide>) -> v1::PairSide {
    side.cloned().unwrap_or_default()
}

fn failure(side: &v1::PairSide) -> String {
    let failure = side.failure.clone().unwrap_or_default();
    format!("{} {}", failure.reason, failure.message).trim().to_owned()
}

fn pretty(payload: Option<&v1::Payload>) -> String {
    match payload.map(json::payload) {
        None => "(no output)".to_owned(),
        Some(serde_json::Value::String(text)) => text,
        Some(value) => serde_json::to_string_pretty(&value).unwrap_or_default(),
    }
}

/// Two texts in two columns; between them a mark where lines differ, if that is asked for.
fn beside(left: &str, right: &str, mark: bool) -> String {
    let lines = |text: &str| -> Vec<String> { text.lines().flat_map(wrapped).collect() };
    let (left, right) = (lines(left), lines(right));
    let mut text = String::new();
    for at in 0..left.len().max(right.len()) {
        let line = |side: &[String]| side.get(at).cloned().unwrap_or_default();
        let (one, other) = (line(&left), line(&right));
        let between = if mark && one != other { '|' } else { ' ' };
        let row = format!("{one:<COLUMN$} {between} {other}");
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// A line in pieces that fit a column.
fn wrapped(line: &str) -> Vec<String> {
    let chars: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if chars.is_empty() {
        return vec![String::new()];
    }
    chars.chunks(COLUMN).map(|piece| piece.iter().collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_are_marked() {
        let text = beside("{\n  \"a\": 1\n}", "{\n  \"a\": 2\n}\nmore", true);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("   {"), "{text}");
        assert!(lines[1].contains("\"a\": 1") && lines[1].contains(" |   \"a\": 2"), "{text}");
        assert!(lines[3].trim_start().starts_with("| more"), "{text}");
    }

    #[test]
    fn long_lines_are_wrapped() {
        let long = "x".repeat(COLUMN + 3);
        let text = beside(&long, "y", false);
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().next().unwrap_or_default().ends_with(" y"));
    }
}
