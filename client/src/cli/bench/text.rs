//! The figures as a table and as JSON.

use serde_json::{Value as Json, json};

use super::super::file::value::show_duration;
use super::super::table::Table;
use super::super::view::{Body, View};
use crate::bench::{Figures, Measurement, Plan, Workload};

const COLUMNS: [&str; 10] = [
    "WORKLOAD",
    "CLIENTS",
    "OPS/S",
    "P50 MS",
    "P99 MS",
    "P99.9 MS",
    "MAX MS",
    "ERRORS",
    "CLIENT US/OP",
    "SERVER US/OP",
];
const WIDE: [&str; 4] = ["RANGE", "RSS MIB", "WRITTEN B/OP", "WRITES/OP"];

/// Measurements of the same, in their order.
struct Row<'m> {
    workload: Workload,
    clients: usize,
    rounds: Vec<&'m Figures>,
}

impl Row<'_> {
    fn median(&self) -> Figures {
        let rounds: Vec<Figures> = self.rounds.iter().map(|it| (*it).clone()).collect();
        Figures::median(&rounds)
    }

    /// The fewest and the most operations in a second.
    fn range(&self) -> (f64, f64) {
        let rates = || self.rounds.iter().map(|it| it.per_second);
        (rates().fold(f64::INFINITY, f64::min), rates().fold(0.0, f64::max))
    }
}

pub(super) fn view(plan: &Plan, measurements: &[Measurement], is_stopped: bool) -> View {
    let rows = rows(measurements);
    let names = rows.iter().map(|row| format!("{}/{}", row.workload.name(), row.clients));
    let names = names.collect();
    let data = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "loop": if plan.rate.is_some() { "open" } else { "closed" },
        "rate": plan.rate,
        "warm_up": show_duration(plan.warm_up),
        "duration": show_duration(plan.duration),
        "repeats": plan.repeats,
        "interrupted": is_stopped,
        "measurements": rows.iter().map(object).collect::<Vec<Json>>(),
    });
    let mut table = Table::new(&COLUMNS, &WIDE);
    rows.iter().for_each(|row| table.row(cells(row)));
    View::other(data, Some("measurements"), names, Body::Table(table))
}

fn rows(measurements: &[Measurement]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for it in measurements {
        let same = |row: &&mut Row<'_>| row.workload == it.workload && row.clients == it.clients;
        match rows.iter_mut().find(same) {
            Some(row) => row.rounds.push(&it.figures),
            None => rows.push(Row {
                workload: it.workload,
                clients: it.clients,
                rounds: vec![&it.figures],
            }),
        }
    }
    rows
}

fn object(row: &Row<'_>) -> Json {
    let (least, most) = row.range();
    json!({
        "workload": row.workload.name(),
        "clients": row.clients,
        "median": row.median(),
        "per_second": { "min": least, "max": most },
        "rounds": row.rounds,
    })
}

fn cells(row: &Row<'_>) -> Vec<String> {
    let it = row.median();
    let (least, most) = row.range();
    let errors: u64 = it.errors.values().sum();
    let reasons: Vec<&str> = it.errors.keys().map(String::as_str).collect();
    let errors = match errors {
        0 => "0".to_owned(),
        _ => format!("{errors} {}", reasons.join(",")),
    };
    let mib = it.server_resident_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
    vec![
        row.workload.name().to_owned(),
        row.clients.to_string(),
        whole(Some(it.per_second)),
        millis(it.p50_us),
        millis(it.p99_us),
        millis(it.p999_us),
        millis(it.max_us),
        errors,
        whole(Some(it.client_cpu_us)),
        whole(it.server_cpu_us),
        format!("{least:.0}..{most:.0}"),
        whole(mib),
        whole(it.server_written_bytes),
        it.server_write_calls.map_or_else(|| "-".to_owned(), |calls| format!("{calls:.2}")),
    ]
}

fn whole(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.0}"))
}

fn millis(us: u64) -> String {
    format!("{}.{:02}", us / 1_000, us % 1_000 / 10)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::settings::Output;
    use super::*;

    fn measured(workload: Workload, round: usize, per_second: f64) -> Measurement {
        let figures = Figures { per_second, p99_us: 25_454, ..Figures::default() };
        Measurement { workload, clients: 64, round, figures }
    }

    #[test]
    fn rounds_of_the_same_are_one_row_with_their_median_and_range() {
        let plan = Plan {
            workloads: vec![Workload::Start, Workload::Put],
            clients: vec![64],
            rate: None,
            warm_up: Duration::ZERO,
            duration: Duration::from_secs(5),
            repeats: 3,
            server_pids: Vec::new(),
        };
        let mut all = Vec::new();
        for (round, per_second) in [(1, 10.0), (2, 40.0), (3, 20.0)] {
            all.push(measured(Workload::Start, round, per_second));
            all.push(measured(Workload::Put, round, per_second * 2.0));
        }
        let view = view(&plan, &all, false);
        let json = view.render(Output::Json).expect("it renders");
        let json: Json = serde_json::from_str(&json).expect("JSON");
        let start = &json["measurements"][0];
        assert_eq!(
            (&start["workload"], &start["median"]["per_second"]),
            (&json!("start"), &json!(20.0))
        );
        assert_eq!(start["per_second"], json!({"min": 10.0, "max": 40.0}));
        assert_eq!(start["rounds"].as_array().map(Vec::len), Some(3));
        assert!(start["median"].get("server_cpu_us").is_none(), "no server was named");
        assert_eq!((&json["loop"], &json["interrupted"]), (&json!("closed"), &json!(false)));
        let table = view.render(Output::Wide).expect("it renders");
        let put: Vec<&str> = table.lines().nth(2).expect("a row").split_whitespace().collect();
        assert_eq!(
            put,
            [
                "put", "64", "40", "0.00", "25.45", "0.00", "0.00", "0", "0", "-", "20..80", "-",
                "-", "-"
            ]
        );
        assert_eq!(view.render(Output::Name).expect("it renders"), "start/64\nput/64\n");
    }
}
