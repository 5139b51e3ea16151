//! The few elements of SVG that pictures here are made of. It must not know what they show.

use std::fmt::Write as _;

/// A picture that is being drawn, over a white ground. The origin is at the top left.
#[derive(Debug)]
pub(crate) struct Svg {
    text: String,
}

impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"11\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        Self { text }
    }

    /// Words that begin at `x`, above `y`.
    pub(crate) fn words(&mut self, x: f64, y: f64, colour: &str, words: &str) {
        self.anchored(x, y, colour, "start", words);
    }

    /// Words that end at `x`.
    pub(crate) fn words_before(&mut self, x: f64, y: f64, colour: &str, words: &str) {
        self.anchored(x, y, colour, "end", words);
    }

    /// Words in the middle of which `x` is.
    pub(crate) fn words_around(&mut self, x: f64, y: f64, colour: &str, words: &str) {
        self.anchored(x, y, colour, "middle", words);
    }

    fn anchored(&mut self, x: f64, y: f64, colour: &str, anchor: &str, words: &str) {
        let words = words.replace('&', "&amp;").replace('<', "&lt;");
        let _ = writeln!(
            self.text,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" text-anchor=\"{anchor}\">{words}</text>"
        );
    }

    /// A filled rectangle, by its top left corner.
    pub(crate) fn bar(&mut self, (x, y): (f64, f64), width: f64, height: f64, colour: &str) {
        let _ = writeln!(
            self.text,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
        );
    }

    /// A thin line for the eye to follow.
    pub(crate) fn rule(&mut self, from: (f64, f64), to: (f64, f64)) {
        let _ = writeln!(
            self.text,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    /// A line through points, each of them marked.
    pub(crate) fn curve(&mut self, points: &[(f64, f64)], colour: &str) {
        let places: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            self.text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            places.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(
                self.text,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
    }

    /// Anything else, as SVG has it.
    pub(crate) fn element(&mut self, element: &str) {
        self.text.push_str(element);
        self.text.push('\n');
    }

    pub(crate) fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}
