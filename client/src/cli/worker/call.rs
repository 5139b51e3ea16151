//! `worker call`: one message of the exec protocol, for shells that have no JSON and no sockets.

use clap::Args;
use serde_json::{Map, Value};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::super::context::{Context, Done};
use super::super::problem::{self, Problem};
use super::super::view;
use crate::config;

#[derive(Debug, Clone, Args)]
pub struct Call {
    /// The message's type: checkpoint, checkpoint.get, memory.get, memory.put, tool.begin, usage …
    #[arg(value_name = "TYPE")]
    kind: String,
    /// A field of the message: NAME=TEXT, or NAME:=JSON
    #[arg(value_name = "FIELD")]
    fields: Vec<String>,
    /// Print this field of the answer: text as it is, everything else as JSON
    #[arg(long, value_name = "NAME")]
    field: Option<String>,
}

/// Asks the host of this step, and prints what it answers.
pub(super) async fn call(context: &Context, args: &Call) -> Done {
    let message = message(args)?;
    let Some(path) = config::variable("PINRAIL_SOCKET") else {
        return Err(Problem::usage(
            "PINRAIL_SOCKET is not set: only a program under `worker exec --per-step` can ask",
        ));
    };
    let asked = timeout(context.settings.config().timeout, ask(&path, &message)).await;
    let asked = asked.map_err(|_| Problem::timed_out("the worker host did not answer"))?;
    let answer = asked.map_err(|error| Problem::new("NOT_ASKED", 1, format!("{path}: {error}")))?;
    if let Some(error) = answer.get("error") {
        let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
        let reason = text("reason");
        return Err(Problem::new(&reason, problem::exit_code(&reason), text("message")));
    }
    view::write(shown(&answer, args.field.as_deref()).as_bytes())?;
    Ok(problem::OK)
}

fn message(args: &Call) -> Result<Value, Problem> {
    let mut message = Map::new();
    for field in &args.fields {
        let (name, value) = match field.split_once('=') {
            Some((name, text)) => match name.strip_suffix(':') {
                Some(name) => {
                    (name, serde_json::from_str(text).map_err(|error| wrong(field, &error))?)
                }
                None => (name, Value::from(text)),
            },
            None => return Err(wrong(field, &"a field is NAME=TEXT or NAME:=JSON")),
        };
        message.insert(name.to_owned(), value);
    }
    message.insert("id".to_owned(), 1.into());
    message.insert("type".to_owned(), args.kind.clone().into());
    Ok(Value::Object(message))
}

fn wrong(field: &str, why: &dyn std::fmt::Display) -> Problem {
    Problem::usage(format!("{field:?}: {why}"))
}

async fn ask(path: &str, message: &Value) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(path).await?;
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    // The step may be cancelled meanwhile, which is said on every connection; what has no `type` is the answer.
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await? {
        let answer: Value = serde_json::from_str(&line)?;
        if answer.get("type").is_none() {
            return Ok(answer);
        }
    }
    Err(std::io::ErrorKind::UnexpectedEof.into())
}

fn shown(answer: &Value, field: Option<&str>) -> String {
    let value = field.map_or(answer, |name| &answer[name]);
    match value {
        Value::String(text) => format!("{text}\n"),
        other => format!("{other}\n"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(fields: &[&str]) -> Call {
        let fields = fields.iter().map(ToString::to_string).collect();
        Call { kind: "memory.put".into(), fields, field: None }
    }

    #[test]
    fn fields_are_text_or_json() {
        let said = message(&call(&["key=a/b", "value:={\"n\":1}", "note=1=\"2\""])).expect("fine");
        let asked = json!({ "id": 1, "type": "memory.put", "key": "a/b", "value": { "n": 1 }, "note": "1=\"2\"" });
        assert_eq!(said, asked);
        for fields in [&["key"][..], &["value:=x"]] {
            assert_eq!(message(&call(fields)).expect_err("no field").exit, 2);
        }
    }

    #[test]
    fn a_field_of_text_is_shown_without_quotes() {
        let answer = json!({ "value": "a \"b\"", "revision": 7 });
        assert_eq!(shown(&answer, Some("value")), "a \"b\"\n");
        assert_eq!(shown(&answer, Some("revision")), "7\n");
        assert_eq!(shown(&answer, Some("nothing")), "null\n");
    }
}
