//! `run score`.

use clap::{Args, ValueEnum};
use pinrail_proto::v1;

use super::super::context::{Context, Done};
use super::super::flags::{RunId, WriteFlags};
use super::super::human;
use super::super::table::pairs;
use super::super::view::View;

/// Who says it.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    /// A program that grades answers
    Judge,
    /// A person; counts before a judge
    Human,
}

#[derive(Debug, Clone, Args)]
pub struct Score {
    #[command(flatten)]
    run: RunId,
    /// From 0 (worst) to 1 (best), or pass or fail
    #[arg(value_name = "SCORE", value_parser = permille)]
    score: u32,
    /// Who says it
    #[arg(long, value_enum, default_value = "human")]
    by: By,
    /// What they say about it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,
    #[command(flatten)]
    write: WriteFlags,
}

/// Thousandths of `0.93`, `1`, `pass`.
fn permille(text: &str) -> Result<u32, String> {
    let wrong = || "from 0 to 1 with at most three decimals, or pass or fail".to_owned();
    match text {
        "pass" | "1" => return Ok(1_000),
        "fail" | "0" => return Ok(0),
        _ => {}
    }
    let (whole, decimals) = text.split_once('.').ok_or_else(wrong)?;
    let plain = decimals.bytes().all(|b| b.is_ascii_digit()) && (1..=3).contains(&decimals.len());
    let decimals: u32 = format!("{decimals:0<3}").parse().map_err(|_| wrong())?;
    match (whole, decimals) {
        ("0" | "", decimals) if plain => Ok(decimals),
        ("1", 0) if plain => Ok(1_000),
        _ => Err(wrong()),
    }
}

pub(super) async fn score(context: &Context, args: &Score) -> Done {
    let (agent_id, run_id) = args.run.parts()?;
    let source = match args.by {
        By::Judge => v1::ScoreSource::Judge,
        By::Human => v1::ScoreSource::Human,
    };
    let request = v1::ScoreRunRequest {
        agent_id,
        run_id,
        score_permille: args.score,
        source: source.into(),
        comment: args.comment.clone(),
        options: context.write(&args.write)?,
        ..Default::default()
    };
    let answer = context.client.runs().score(request).await?;
    let text = pairs(&[
        ("run", answer.run_id.clone()),
        ("bundle", answer.bundle_id.clone()),
        ("score", human::permille(args.score.into())),
        ("already", if answer.already { "yes" } else { "" }.to_owned()),
        ("revision", answer.revision.to_string()),
    ]);
    context.show(&View::object(&answer, &answer.run_id, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_read_as_people_write_them() {
        let read = |text| permille(text).ok();
        assert_eq!([read("0.93"), read(".5"), read("1.0")], [Some(930), Some(500), Some(1_000)]);
        assert_eq!([read("pass"), read("fail"), read("0.007")], [Some(1_000), Some(0), Some(7)]);
        for wrong in ["", "1.1", "2", "-0.1", "0.1234", "0.x", "0.", "good"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
