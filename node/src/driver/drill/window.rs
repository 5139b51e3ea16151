//! When a drill falls due: a moment in the window of the policy, by the tz database of the binary.
//!
//! The database comes with the binary and not from the host, so that members of one version agree on it. Only a leader
//! asks; what it finds is proposed as a moment, so apply knows no zone. The moment and the chance come in from outside.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use pinrail_proto::policy::window::Window;

/// Days that are looked at: each window comes every week, and one that a change of the clocks swallows comes the next.
const LOOKED_AT: i32 = 16;

/// Whether the tz database has a zone of this name.
#[must_use]
pub(crate) fn knows(zone: &str) -> bool {
    TimeZone::get(zone).is_ok()
}

/// A moment in the window: in what is left of it when it is open at `now_ms`, else in the next one. `random` chooses, each
/// millisecond alike. `None`: the zone is unknown, or the calendar ends.
#[must_use]
pub(crate) fn next_in_window(window: &Window, now_ms: u64, random: u64) -> Option<u64> {
    let zone = TimeZone::get(&window.zone).ok()?;
    let now = Timestamp::from_millisecond(i64::try_from(now_ms).ok()?).ok()?;
    let today = zone.to_datetime(now).date();
    // One that began yesterday may be open still.
    (-1..LOOKED_AT).find_map(|day| {
        let date = today.checked_add(Span::new().days(day)).ok()?;
        let (start, end) = span_of(window, date, &zone)?;
        let start = start.max(now_ms);
        (start < end).then(|| start + random % (end - start))
    })
}

/// Begin and end in milliseconds of the window that begins on a day, if one does.
fn span_of(window: &Window, date: Date, zone: &TimeZone) -> Option<(u64, u64)> {
    let weekday = usize::try_from(date.weekday().to_monday_zero_offset()).ok()?;
    if !*window.days.get(weekday)? {
        return None;
    }
    let at = |minutes: u16| -> Option<u64> {
        // By the clock on the wall: where it jumps, the window is longer or shorter.
        let time = date.to_datetime(Time::midnight());
        let time = time.checked_add(Span::new().minutes(minutes)).ok()?;
        u64::try_from(zone.to_timestamp(time).ok()?.as_millisecond()).ok()
    };
    Some((at(window.from)?, at(window.from + window.minutes)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(text: &str) -> Window {
        Window::parse(text).expect(text)
    }

    fn ms(text: &str) -> u64 {
        let moment: Timestamp = text.parse().expect(text);
        u64::try_from(moment.as_millisecond()).expect(text)
    }

    /// The earliest and the latest moment that chance can choose.
    fn ends(text: &str, now: &str) -> (String, String) {
        let window = window(text);
        let first = next_in_window(&window, ms(now), 0).expect("it comes");
        // The length divides this number, so that one below it is the last moment.
        let length = (1..).find(|n| next_in_window(&window, ms(now), n * 60_000) == Some(first));
        let last = next_in_window(&window, ms(now), length.expect("it ends") * 60_000 - 1);
        let show = |ms: u64| {
            let ms = i64::try_from(ms).expect("now is far from the end of time");
            Timestamp::from_millisecond(ms).expect("it is a moment").to_string()
        };
        (show(first), show(last.expect("it comes") + 1))
    }

    fn pair(first: &str, last: &str) -> (String, String) {
        (first.to_owned(), last.to_owned())
    }

    #[test]
    fn the_next_window_is_the_next_day_that_it_names() {
        // 2026-11-28 is a Saturday; Berlin is an hour ahead of UTC in winter.
        let text = "Tue-Thu 13:00-16:00 Europe/Berlin";
        let tuesday = pair("2026-12-01T12:00:00Z", "2026-12-01T15:00:00Z");
        assert_eq!(ends(text, "2026-11-28T00:00:00Z"), tuesday);
        assert_eq!(ends(text, "2026-12-01T11:59:00Z"), tuesday);
        let wednesday = pair("2026-12-02T12:00:00Z", "2026-12-02T15:00:00Z");
        assert_eq!(ends(text, "2026-12-01T15:00:00Z"), wednesday);
        let next_week = pair("2026-12-08T12:00:00Z", "2026-12-08T15:00:00Z");
        assert_eq!(ends(text, "2026-12-03T15:00:00Z"), next_week);
    }

    #[test]
    fn in_an_open_window_the_rest_of_it_counts() {
        let rest = pair("2026-12-01T14:00:00Z", "2026-12-01T15:00:00Z");
        assert_eq!(ends("Tue 13:00-16:00 Europe/Berlin", "2026-12-01T14:00:00Z"), rest);
    }

    #[test]
    fn one_that_passes_midnight_belongs_to_the_day_of_its_begin() {
        let text = "Fri 22:00-02:00 UTC";
        let rest = pair("2026-11-28T01:00:00Z", "2026-11-28T02:00:00Z");
        assert_eq!(ends(text, "2026-11-28T01:00:00Z"), rest);
        let next = pair("2026-12-04T22:00:00Z", "2026-12-05T02:00:00Z");
        assert_eq!(ends(text, "2026-11-28T02:00:00Z"), next);
    }

    #[test]
    fn the_zone_decides_what_day_it_is() {
        // Monday noon in Auckland is Sunday evening in UTC.
        let noon = pair("2026-11-29T23:00:00Z", "2026-11-30T00:00:00Z");
        assert_eq!(ends("Mon 12:00-13:00 Pacific/Auckland", "2026-11-28T12:00:00Z"), noon);
    }

    #[test]
    fn windows_follow_the_clock_on_the_wall_through_its_changes() {
        let sunday = |text: &str| ends(text, "2026-03-28T12:00:00Z");
        // Clocks go from 02:00 to 03:00 on 29 March 2026: three hours of the wall are two.
        assert_eq!(
            sunday("Sun 01:00-04:00 Europe/Berlin"),
            pair("2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z")
        );
        // And from 03:00 to 02:00 on 25 October: they are four.
        assert_eq!(
            ends("Sun 01:00-04:00 Europe/Berlin", "2026-10-24T12:00:00Z"),
            pair("2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z")
        );
    }

    #[test]
    fn every_moment_lies_in_the_window() {
        let window = window("Mon-Fri 09:00-17:30 America/New_York");
        let now = ms("2026-11-28T12:00:00Z");
        for random in (0..u64::MAX).step_by(1 << 58) {
            let due = next_in_window(&window, now, random).expect("it comes");
            assert!(due >= ms("2026-11-30T14:00:00Z") && due < ms("2026-11-30T22:30:00Z"));
        }
    }

    #[test]
    fn unknown_zones_have_no_moment() {
        let window = window("Mon 09:00-10:00 Europe/Atlantis");
        assert!(!knows(&window.zone) && knows("Europe/Berlin") && knows("UTC"));
        assert_eq!(next_in_window(&window, 0, 0), None);
        let window = Window { zone: "UTC".to_owned(), ..window };
        assert_eq!(next_in_window(&window, u64::MAX, 0), None);
    }
}
