//! One answer in every format: the API message for programs, a table or lines for people. Data goes to stdout only here.

use std::io::{ErrorKind, Write as _};

use serde_json::Value as Json;

use super::json;
use super::problem::Problem;
use super::settings::Output;
use super::table::Table;
use prost::Name;

/// What people read.
#[derive(Debug)]
pub(super) enum Body {
    Table(Table),
    /// Lines, each ending with a line feed.
    Text(String),
}

/// An answer.
#[derive(Debug)]
pub(super) struct View {
    pub(super) json: Json,
    /// The field that holds the items of a list, or nothing for one object.
    items: Option<&'static str>,
    names: Vec<String>,
    pub(super) body: Body,
    /// Lines above a table, for people.
    heading: String,
}

impl View {
    /// One object with its id.
    pub(super) fn object<M: Name>(message: &M, name: &str, text: String) -> View {
        let names = vec![name.to_owned()];
        View {
            json: json::of(message),
            items: None,
            names,
            body: Body::Text(text),
            heading: String::new(),
        }
    }

    /// A page of a list with the ids of its items.
    pub(super) fn list<M: Name>(
        message: &M,
        items: &'static str,
        names: Vec<String>,
        table: Table,
    ) -> View {
        View {
            json: json::of(message),
            items: Some(items),
            names,
            body: Body::Table(table),
            heading: String::new(),
        }
    }

    /// Something that is no message of the API.
    pub(super) fn other(
        json: Json,
        items: Option<&'static str>,
        names: Vec<String>,
        body: Body,
    ) -> View {
        View { json, items, names, body, heading: String::new() }
    }

    /// The same with lines above the table.
    pub(super) fn headed(self, heading: String) -> View {
        View { heading, ..self }
    }

    /// The text that is printed.
    pub(super) fn render(&self, output: Output) -> Result<String, Problem> {
        Ok(match output {
            Output::Table | Output::Wide => match &self.body {
                // The lines above have said all there is.
                Body::Table(table) if table.is_empty() && !self.heading.is_empty() => {
                    format!("{}\n", self.heading.trim_end())
                }
                Body::Table(table) => self.heading.clone() + &table.render(output == Output::Wide),
                Body::Text(text) => text.clone(),
            },
            Output::Json => format!("{:#}\n", self.json),
            Output::Jsonl => self.lines(),
            Output::Yaml => serde_yaml_ng::to_string(&self.json)
                .map_err(|error| Problem::usage(format!("this answer is no YAML: {error}")))?,
            Output::Name => self.names.iter().map(|name| format!("{name}\n")).collect(),
        })
    }

    fn lines(&self) -> String {
        let items = self.items.and_then(|field| self.json.get(field)).and_then(Json::as_array);
        match items {
            Some(items) => items.iter().map(|item| format!("{item}\n")).collect(),
            None => format!("{}\n", self.json),
        }
    }

    /// Prints it. A reader that went away is no error.
    pub(super) fn print(&self, output: Output) -> Result<(), Problem> {
        write(self.render(output)?.as_bytes())
    }
}

/// Writes what a stream told: it has no end to close a list with, so one object is a line.
pub(super) fn write_told<M: Name>(
    output: Output,
    told: &M,
    sentence: impl FnOnce() -> String,
    name: &str,
) -> Result<(), Problem> {
    let line = match output {
        Output::Table | Output::Wide => sentence(),
        Output::Json | Output::Jsonl => json::of(told).to_string(),
        Output::Yaml => {
            let yaml = serde_yaml_ng::to_string(&json::of(told));
            format!("---\n{}", yaml.map_err(|error| Problem::usage(error.to_string()))?.trim_end())
        }
        Output::Name => name.to_owned(),
    };
    write(format!("{line}\n").as_bytes())
}

/// Writes to stdout.
pub(super) fn write(bytes: &[u8]) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Problem::new("STDOUT", 1, format!("stdout: {error}")))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use pinrail_proto::v1;

    use super::*;

    fn runs() -> View {
        let run = |id: &str| v1::Run { run_id: id.into(), ..Default::default() };
        let page = v1::ListRunsResponse { runs: vec![run("a"), run("b")], ..Default::default() };
        let mut table = Table::new(&["RUN"], &[]);
        table.row(vec!["a".into()]);
        table.row(vec!["b".into()]);
        View::list(&page, "runs", vec!["a".into(), "b".into()], table)
    }

    #[test]
    fn each_format_shows_the_same_page() {
        let show = |output| runs().render(output).expect("it renders");
        let json: Json = serde_json::from_str(&show(Output::Json)).expect("JSON");
        assert_eq!(json["runs"][1]["run_id"], "b");
        assert_eq!(json["next_page_token"], "");
        assert_eq!(show(Output::Jsonl).lines().count(), 2);
        let yaml: Json = serde_yaml_ng::from_str(&show(Output::Yaml)).expect("YAML");
        assert_eq!(yaml, json);
        assert_eq!(show(Output::Name), "a\nb\n");
        assert_eq!(show(Output::Table), "RUN\na\nb\n");
    }

    #[test]
    fn one_object_is_one_line_of_jsonl() {
        let run = v1::Run { run_id: "a".into(), ..Default::default() };
        let view = View::object(&run, "a", "run  a\n".into());
        assert_eq!(view.render(Output::Jsonl).expect("it renders").lines().count(), 1);
    }
}
