//! A curve as a picture: operations in a second above, latencies below, both over what grows.

use pinrail_client::bench::Figures;

use super::curve::{Curve, Point};
use crate::svg::Svg;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 520.0;
/// Room for words beside and between the two panels.
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const UPPER: (f64, f64) = (50.0, 240.0);
const LOWER: (f64, f64) = (285.0, 475.0);
/// Lines across the upper panel.
const LINES: u32 = 4;
/// Latencies are shown from a hundredth of a millisecond on.
const SHORTEST_MS: f64 = 0.01;

const GREY: &str = "#555";
const RATE: &str = "#2a6f97";
const P50: &str = "#588157";
const P99: &str = "#e07a5f";

/// An SVG picture of medians; empty without points.
pub(super) fn plot(curve: &Curve, points: &[Point]) -> String {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return String::new() };
    let medians: Vec<(u64, Figures)> =
        points.iter().map(|point| (point.x, Figures::median(&point.rounds))).collect();
    let across = Logarithmic::new((first.x as f64, last.x as f64), (LEFT, WIDTH - RIGHT));
    let mut svg = Svg::new(WIDTH, HEIGHT);
    svg.words(LEFT, 20.0, "black", curve.title);
    for point in points {
        let x = across.place(point.x as f64);
        svg.rule((x, UPPER.0), (x, UPPER.1));
        svg.rule((x, LOWER.0), (x, LOWER.1));
        svg.words_around(x, LOWER.1 + 16.0, GREY, &short(point.x));
    }
    svg.words_around((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 8.0, GREY, curve.along.label());
    rates(&mut svg, &across, &medians);
    latencies(&mut svg, &across, &medians);
    svg.end()
}

/// From 0 on, so that heights compare.
fn rates(svg: &mut Svg, across: &Logarithmic, medians: &[(u64, Figures)]) {
    let (top, floor) = UPPER;
    let most = medians.iter().map(|(_, it)| it.per_second).fold(1.0, f64::max);
    let height = |rate: f64| floor - (floor - top) * rate / most;
    for line in 0..=LINES {
        let rate = most * f64::from(line) / f64::from(LINES);
        svg.rule((LEFT, height(rate)), (WIDTH - RIGHT, height(rate)));
        svg.words_before(LEFT - 6.0, height(rate) + 4.0, GREY, &format!("{rate:.0}"));
    }
    svg.words(LEFT, top - 8.0, RATE, "operations in a second");
    let places: Vec<_> =
        medians.iter().map(|(x, it)| (across.place(*x as f64), height(it.per_second))).collect();
    svg.curve(&places, RATE);
}

fn latencies(svg: &mut Svg, across: &Logarithmic, medians: &[(u64, Figures)]) {
    let (top, floor) = LOWER;
    let millis = |us: u64| (us as f64 / 1e3).max(SHORTEST_MS);
    let all = || medians.iter().flat_map(|(_, it)| [millis(it.p50_us), millis(it.p99_us)]);
    let lowest = all().fold(f64::INFINITY, f64::min).log10().floor();
    let highest = all().fold(0.0, f64::max).log10().ceil().max(lowest + 1.0);
    let up = Logarithmic::new((10_f64.powf(lowest), 10_f64.powf(highest)), (floor, top));
    let decades = std::iter::successors(Some(lowest), |it| Some(it + 1.0));
    for value in decades.take_while(|it| *it <= highest).map(|decade| 10_f64.powf(decade)) {
        svg.rule((LEFT, up.place(value)), (WIDTH - RIGHT, up.place(value)));
        svg.words_before(LEFT - 6.0, up.place(value) + 4.0, GREY, &value.to_string());
    }
    svg.words(LEFT, top - 8.0, P50, "p50 ms");
    svg.words(LEFT + 50.0, top - 8.0, P99, "p99 ms");
    let mut curve = |of: fn(&Figures) -> u64, colour| {
        let places: Vec<_> = medians
            .iter()
            .map(|(x, it)| (across.place(*x as f64), up.place(millis(of(it)))))
            .collect();
        svg.curve(&places, colour);
    };
    curve(|it| it.p50_us, P50);
    curve(|it| it.p99_us, P99);
}

/// Where a value is between two places, by its logarithm.
struct Logarithmic {
    values: (f64, f64),
    places: (f64, f64),
}

impl Logarithmic {
    fn new(values: (f64, f64), places: (f64, f64)) -> Self {
        Self { values, places }
    }

    fn place(&self, value: f64) -> f64 {
        let ((low, high), (from, to)) = (self.values, self.places);
        let share = if high > low { (value / low).ln() / (high / low).ln() } else { 0.5 };
        from + (to - from) * share
    }
}

/// `64`, `4Ki`, `100k`, `1M`.
fn short(count: u64) -> String {
    match count {
        1_000_000.. if count.is_multiple_of(100_000) => format!("{}M", count as f64 / 1e6),
        1_000.. if count.is_multiple_of(100) => format!("{}k", count as f64 / 1e3),
        1_024.. if count.is_multiple_of(1_024) => format!("{}Ki", count / 1_024),
        _ => count.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::curve::CURVES;
    use super::*;

    fn point(x: u64, per_second: f64, p50_us: u64, p99_us: u64) -> Point {
        Point { x, rounds: vec![Figures { per_second, p50_us, p99_us, ..Figures::default() }] }
    }

    #[test]
    fn a_picture_has_three_curves_with_a_mark_a_point() {
        let points = [point(1, 900.0, 1_000, 2_000), point(1_000, 9_000.0, 60_000, 200_000)];
        let svg = plot(&CURVES[0], &points);
        assert_eq!((svg.matches("<polyline").count(), svg.matches("<circle").count()), (3, 6));
        for words in ["start a run", "operations in a second", ">9000<", ">1k<", ">1000<"] {
            assert!(svg.contains(words), "{words}: {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        assert_eq!(plot(&CURVES[0], &[]), "");
    }

    #[test]
    fn one_point_and_no_figures_are_a_picture_too() {
        let svg = plot(&CURVES[0], &[point(64, 0.0, 0, 0)]);
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn large_numbers_are_short() {
        let all = [1, 64, 256, 1_000, 1_024, 65_536, 100_000, 1_000_000, 1_500_000];
        let words = ["1", "64", "256", "1k", "1Ki", "64Ki", "100k", "1M", "1.5M"];
        assert_eq!(all.map(short), words);
    }
}
