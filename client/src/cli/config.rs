//! `config`: the settings of this command line.

use clap::{Args, Subcommand};

use super::context::{Context, Done};
use super::table::Table;
use super::view::{Body, View};

/// Verbs of `config`.
#[derive(Debug, Clone, Subcommand)]
pub enum Config {
    /// The settings that are in force
    #[command(after_help = "Examples:\n  pinrail config show\n  pinrail config show --origin")]
    Show(Show),
}

#[derive(Debug, Clone, Args)]
pub struct Show {
    /// Where each value comes from
    #[arg(long)]
    origin: bool,
}

pub(super) fn run(context: &Context, verb: &Config) -> Done {
    match verb {
        Config::Show(args) => show(context, args),
    }
}

fn show(context: &Context, args: &Show) -> Done {
    let rows = context.settings.rows();
    let columns: &[&str] =
        if args.origin { &["KEY", "VALUE", "ORIGIN"] } else { &["KEY", "VALUE"] };
    let mut table = Table::new(columns, &[]);
    let mut json = serde_json::Map::new();
    for (key, value, origin) in &rows {
        let mut cells = vec![(*key).to_owned(), super::human::or_dash(value)];
        if args.origin {
            cells.push(origin.clone());
            json.insert((*key).to_owned(), serde_json::json!({ "value": value, "origin": origin }));
        } else {
            json.insert((*key).to_owned(), value.clone().into());
        }
        table.row(cells);
    }
    let names = rows.iter().map(|row| row.0.to_owned()).collect();
    context.show(&View::other(json.into(), None, names, Body::Table(table)))
}
