//! Numbers of signals as people read them.

use pinrail_proto::v1::{SignalFigure, SignalKind};

use crate::event;

/// Thousandths as per cent: `5 %`, `4.1 %`.
pub(super) fn percent(permille: u64) -> String {
    match permille % 10 {
        0 => format!("{} %", permille / 10),
        tenth => format!("{}.{tenth} %", permille / 10),
    }
}

/// How much more, or less, than before, which is not 0: `+31 %`, `-4.2 %`, `0 %`.
pub(super) fn change(value: u64, before: u64) -> String {
    let before = before.max(1);
    let permille = |by: u64| (by.saturating_mul(1_000) + before / 2) / before;
    if value >= before {
        let more = permille(value - before);
        let sign = if more == 0 { "" } else { "+" };
        format!("{sign}{}", percent(more))
    } else {
        format!("-{}", percent(permille(before - value)))
    }
}

/// Thousandths as a number between 0 and 1: `0.93`.
pub(super) fn rate(permille: u64) -> String {
    let text = format!("{}.{:03}", permille / 1_000, permille % 1_000);
    let text = text.trim_end_matches('0');
    text.strip_suffix('.').unwrap_or(text).to_owned()
}

/// `p95 +31 % (limit +25 %, n 412)`: the figures that are over their limits, or all of them when none is.
pub(super) fn summary(figures: &[SignalFigure]) -> String {
    let any = figures.iter().any(|figure| figure.over);
    let told = figures.iter().filter(|figure| figure.over || !any).map(|figure| {
        let bounds = match figure.bounds.as_str() {
            "" => String::new(),
            bounds => format!(" ({bounds})"),
        };
        format!("{} {}{bounds}", figure.name, figure.value)
    });
    told.collect::<Vec<_>>().join(", ")
}

/// `p95_latency`.
pub(crate) fn word(signal: SignalKind) -> String {
    event::word(signal.as_str_name(), "SIGNAL_KIND_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([percent(0), percent(50), percent(41)], ["0 %", "5 %", "4.1 %"]);
        assert_eq!([change(1_310, 1_000), change(958, 1_000)], ["+31 %", "-4.2 %"]);
        assert_eq!([change(1_000, 1_000), change(7, 0)], ["0 %", "+600 %"]);
        assert_eq!([rate(930), rate(1_000), rate(0), rate(905)], ["0.93", "1", "0", "0.905"]);
    }
}
