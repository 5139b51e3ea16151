//! The figures of a measurement, and of several of the same: medians and ranges.

use std::collections::BTreeMap;

use serde::Serialize;

use super::meter::Cost;
use super::tally::Tally;

/// What one measurement came to. Latencies in microseconds; what is per operation is per successful one.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// How long it was measured.
    pub seconds: f64,
    /// Successful operations.
    pub operations: u64,
    /// Successful operations in a second.
    pub per_second: f64,
    /// Half of all operations took at most so long.
    pub p50_us: u64,
    /// 99 in 100.
    pub p99_us: u64,
    /// 999 in 1,000.
    pub p999_us: u64,
    /// The slowest one.
    pub max_us: u64,
    /// Failed operations, by reason.
    pub errors: BTreeMap<String, u64>,
    /// CPU time of the generator for one operation.
    pub client_cpu_us: f64,
    /// CPU time of all server processes for one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_cpu_us: Option<f64>,
    /// Memory of the largest server process at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_resident_bytes: Option<u64>,
    /// What all server processes sent to disks for one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_written_bytes: Option<f64>,
    /// Calls that write, of all server processes, for one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_write_calls: Option<f64>,
}

impl Figures {
    /// None when nothing was measured: it was stopped in the warm-up.
    pub(super) fn of(tally: &Tally, cost: &Cost) -> Option<Figures> {
        if cost.open.is_zero() {
            return None;
        }
        let seconds = cost.open.as_secs_f64();
        let done = tally.done();
        let each = |sum: f64| if done == 0 { 0.0 } else { sum / done as f64 };
        let at = |quantile| tally.latencies().value_at_quantile(quantile);
        Some(Figures {
            seconds,
            operations: done,
            per_second: done as f64 / seconds,
            p50_us: at(0.5),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: tally.latencies().max(),
            errors: tally.errors().clone(),
            client_cpu_us: each(cost.own_cpu.as_secs_f64() * 1e6),
            server_cpu_us: cost.servers.map(|servers| each(servers.cpu.as_secs_f64() * 1e6)),
            server_resident_bytes: cost.servers.map(|servers| servers.resident_bytes),
            server_written_bytes: amount(cost.servers.and_then(|it| it.written_bytes), each),
            server_write_calls: amount(cost.servers.and_then(|it| it.write_calls), each),
        })
    }

    /// The median of each figure by itself, the sum of errors. The default of none.
    #[must_use]
    pub fn median(all: &[Figures]) -> Figures {
        let number = |of: fn(&Figures) -> f64| median(all.iter().map(of).collect());
        let whole = |of: fn(&Figures) -> u64| {
            let mut values: Vec<u64> = all.iter().map(of).collect();
            values.sort_unstable();
            values.get(middle(values.len())).copied().unwrap_or_default()
        };
        let perhaps = |of: fn(&Figures) -> Option<f64>| {
            let values: Option<Vec<f64>> = all.iter().map(of).collect();
            values.filter(|values| !values.is_empty()).map(median)
        };
        let mut errors = BTreeMap::new();
        for (reason, count) in all.iter().flat_map(|it| &it.errors) {
            *errors.entry(reason.clone()).or_default() += count;
        }
        let resident = perhaps(|it| it.server_resident_bytes.map(|bytes| bytes as f64));
        Figures {
            seconds: number(|it| it.seconds),
            operations: whole(|it| it.operations),
            per_second: number(|it| it.per_second),
            p50_us: whole(|it| it.p50_us),
            p99_us: whole(|it| it.p99_us),
            p999_us: whole(|it| it.p999_us),
            max_us: whole(|it| it.max_us),
            errors,
            client_cpu_us: number(|it| it.client_cpu_us),
            server_cpu_us: perhaps(|it| it.server_cpu_us),
            server_resident_bytes: resident.map(|bytes| bytes as u64),
            server_written_bytes: perhaps(|it| it.server_written_bytes),
            server_write_calls: perhaps(|it| it.server_write_calls),
        }
    }
}

fn amount(sum: Option<u64>, each: impl Fn(f64) -> f64) -> Option<f64> {
    sum.map(|sum| each(sum as f64))
}

/// Of an even number the lower of the two in the middle: a value that was measured.
fn middle(count: usize) -> usize {
    count.saturating_sub(1) / 2
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(middle(values.len())).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time::Duration;

    use super::super::meter::Servers;
    use super::*;

    #[test]
    fn what_is_per_operation_is_per_successful_one() {
        let mut tally = Tally::default();
        for took_ms in 1..=100 {
            let outcome = if took_ms <= 80 { Ok(()) } else { Err("NO_LEADER".to_owned()) };
            tally.note(Duration::from_millis(took_ms), outcome);
        }
        let servers = Servers {
            cpu: Duration::from_millis(8),
            resident_bytes: 5,
            written_bytes: Some(800),
            write_calls: None,
        };
        let open = Duration::from_secs(2);
        let own_cpu = Duration::from_millis(4);
        let cost = Cost { open, own_cpu, servers: Some(servers) };
        let figures = Figures::of(&tally, &cost).expect("the window was open");
        assert_eq!((figures.operations, figures.per_second), (80, 40.0));
        assert_eq!(figures.errors.get("NO_LEADER"), Some(&20));
        assert_eq!((figures.client_cpu_us, figures.server_cpu_us), (50.0, Some(100.0)));
        assert_eq!((figures.server_written_bytes, figures.server_write_calls), (Some(10.0), None));
        // Those that failed are the slowest, and do not hide.
        assert!((99_000..=99_100).contains(&figures.p99_us), "{}", figures.p99_us);
        assert!((100_000..=100_100).contains(&figures.max_us), "{}", figures.max_us);
        assert_eq!(Figures::of(&tally, &Cost::default()), None);
    }

    #[test]
    fn medians_are_of_each_figure_by_itself_and_errors_add_up() {
        let one = |per_second, p50_us, errors: u64| Figures {
            per_second,
            p50_us,
            errors: [("NO_LEADER".to_owned(), errors)].into(),
            server_cpu_us: (errors < 3).then_some(per_second),
            ..Figures::default()
        };
        let median = Figures::median(&[one(30.0, 1, 0), one(10.0, 2, 1), one(20.0, 3, 2)]);
        assert_eq!((median.per_second, median.p50_us), (20.0, 2));
        assert_eq!((median.errors.get("NO_LEADER"), median.server_cpu_us), (Some(&3), Some(20.0)));
        // A figure that one of them lacks is none.
        assert_eq!(Figures::median(&[one(1.0, 1, 0), one(1.0, 1, 3)]).server_cpu_us, None);
        assert_eq!(Figures::median(&[]), Figures::default());
    }
}
