//! Availability over time as a picture: acknowledged writes and linearizable reads in each slot of time, and the faults behind
//! them.

use crate::history::{Entry, Evidence, Fault};
use crate::svg::Svg;

const SLOT_US: u64 = 100_000;
const WIDTH: f64 = 1_000.0;
/// Of one row of bars, and the room for its words.
const ROW: f64 = 120.0;
const WORDS: f64 = 22.0;

/// An SVG picture of a history; empty where nothing happened.
pub(super) fn availability(evidence: &Evidence) -> String {
    let returned = evidence.history.iter().map(|entry| entry.returned_us);
    let invoked = evidence.history.iter().map(|entry| entry.invoked_us);
    let (Some(from), Some(to)) = (invoked.min(), returned.max()) else { return String::new() };
    let scale = Scale { from, to: to.max(from + SLOT_US) };
    let writes = scale.slots(evidence, |entry| entry.call.is_write());
    let reads =
        scale.slots(evidence, |entry| entry.call.is_linearizable() && !entry.call.is_write());
    let height = 2.0 * (ROW + WORDS) + WORDS;
    let mut svg = Svg::new(WIDTH, height);
    for fault in &evidence.faults {
        scale.shade(&mut svg, fault, height - WORDS);
    }
    scale.bars(&mut svg, "acknowledged writes", &writes, 0.0, "#2a6f97");
    scale.bars(&mut svg, "linearizable reads", &reads, ROW + WORDS, "#588157");
    scale.axis(&mut svg, height);
    svg.end()
}

struct Scale {
    from: u64,
    to: u64,
}

impl Scale {
    #[expect(clippy::cast_precision_loss, reason = "places in a picture")]
    fn x(&self, at_us: u64) -> f64 {
        WIDTH * at_us.saturating_sub(self.from) as f64 / (self.to - self.from) as f64
    }

    /// Calls that succeeded in each slot.
    fn slots(&self, evidence: &Evidence, wanted: impl Fn(&Entry) -> bool) -> Vec<u32> {
        let count = usize::try_from((self.to - self.from) / SLOT_US + 1).unwrap_or(1);
        let mut slots = vec![0; count];
        for entry in evidence.history.iter().filter(|entry| entry.ok().is_some() && wanted(entry)) {
            let slot = usize::try_from((entry.returned_us - self.from) / SLOT_US).unwrap_or(0);
            slots[slot] += 1;
        }
        slots
    }

    fn bars(&self, svg: &mut Svg, what: &str, slots: &[u32], top: f64, colour: &str) {
        let most = slots.iter().copied().max().unwrap_or(0).max(1);
        let floor = top + WORDS + ROW;
        let words = format!("{what} in 100 ms, at most {most}");
        svg.words(4.0, top + WORDS - 6.0, colour, &words);
        for (slot, count) in (0_u64..).zip(slots) {
            let (left, right) =
                (self.x(self.from + slot * SLOT_US), self.x(self.from + (slot + 1) * SLOT_US));
            let tall = (ROW - 8.0) * f64::from(*count) / f64::from(most);
            svg.bar((left, floor - tall), (right - left) * 0.9, tall, colour);
        }
    }

    fn shade(&self, svg: &mut Svg, fault: &Fault, height: f64) {
        let (left, right) = (self.x(fault.injected_us), self.x(fault.healed_us));
        svg.element(&format!(
            "<rect x=\"{left:.1}\" y=\"0\" width=\"{:.1}\" height=\"{height}\" fill=\"#e07a5f\" fill-opacity=\"0.25\">\
             <title>{:?} {:?}</title></rect>\n<text x=\"{:.1}\" y=\"{}\" font-size=\"8\" fill=\"#9c3d22\" \
             transform=\"rotate(90 {:.1} {})\">{:?}</text>",
            (right - left).max(1.0),
            fault.kind,
            fault.nodes,
            left + 2.0,
            WORDS,
            left + 2.0,
            WORDS,
            fault.kind
        ));
    }

    fn axis(&self, svg: &mut Svg, height: f64) {
        let seconds = (self.to - self.from) / 1_000_000;
        let step = (seconds / 10).max(1);
        for second in (0..=seconds).step_by(usize::try_from(step).unwrap_or(1)) {
            let x = self.x(self.from + second * 1_000_000);
            svg.words(x, height - 6.0, "#555", &format!("{second} s"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answer, Call, FaultKind, Outcome};

    #[test]
    fn a_picture_has_a_bar_a_slot_and_a_shade_a_fault() {
        let entry = |returned_us| Entry {
            client: 1,
            node: 0,
            operation: 1,
            request_id: String::new(),
            invoked_us: returned_us - 10,
            returned_us,
            agent: "alpha".to_owned(),
            call: Call::CancelRun { run_id: "r".to_owned() },
            outcome: Outcome::Ok { revision: 1, answer: Answer::Deleted { deleted: true } },
        };
        let fault = Fault {
            kind: FaultKind::KillLeader,
            nodes: vec![1],
            injected_us: 200_000,
            effective_us: Some(200_000),
            healed_us: 300_000,
        };
        let history = vec![entry(100_000), entry(150_000), entry(1_050_000)];
        let evidence = Evidence { history, faults: vec![fault], ..Evidence::default() };
        let svg = availability(&evidence);
        assert_eq!(svg.matches("fill=\"#2a6f97\"/>").count(), 10, "{svg}");
        assert_eq!(svg.matches("KillLeader [1]").count(), 1, "{svg}");
        assert!(svg.contains("acknowledged writes in 100 ms, at most 2"), "{svg}");
        assert_eq!(availability(&Evidence::default()), "");
    }
}
