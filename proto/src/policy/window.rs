//! The grammar of `drill.window`: `Tue-Thu 13:00-16:00 Europe/Berlin`.
//!
//! Days are a list of days and ranges (`Mon,Wed-Fri`; a range may pass Sunday), times are of the day in the zone (up to
//! `24:00`; an end that is not behind its begin is one of the next day), the zone is a name of the tz database. Whether
//! that database knows it is not judged here.

/// Days from Monday on.
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY_MINUTES: u16 = 24 * 60;
/// Longest name of a zone.
const ZONE_BYTES: usize = 64;

/// Why a text is no window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    #[error("days, times and zone, e.g. Tue-Thu 13:00-16:00 Europe/Berlin")]
    Parts,
    #[error("days such as Mon,Wed-Fri")]
    Days,
    #[error("times such as 13:00-16:00 that differ")]
    Times,
    #[error("a zone of the tz database such as Europe/Berlin or UTC")]
    Zone,
}

/// Times of some days of the week in a zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Days on which it begins, from Monday on.
    pub days: [bool; 7],
    /// Minute of the day at which it begins, below 1,440.
    pub from: u16,
    /// Minutes that it lasts by the clock on the wall: 1 to 1,440.
    pub minutes: u16,
    /// Name in the tz database.
    pub zone: String,
}

impl Window {
    /// # Errors
    /// Says what the wrong part should look like.
    pub fn parse(text: &str) -> Result<Window, WindowError> {
        let parts: Vec<&str> = text.split_ascii_whitespace().collect();
        let [days, times, zone] = parts[..] else { return Err(WindowError::Parts) };
        let days = days_of(days).ok_or(WindowError::Days)?;
        let (from, minutes) = times_of(times).ok_or(WindowError::Times)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'+' | b'-');
        let named = zone.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
        if zone.len() > ZONE_BYTES || !named || !zone.bytes().all(plain) {
            return Err(WindowError::Zone);
        }
        Ok(Window { days, from, minutes, zone: zone.to_owned() })
    }
}

fn days_of(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|day| day.eq_ignore_ascii_case(name));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        days[at] = true;
        while at != last {
            at = (at + 1) % days.len();
            days[at] = true;
        }
    }
    Some(days)
}

/// Begin and length in minutes.
fn times_of(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute_of(from)?, minute_of(to)?);
    if from == to || from == DAY_MINUTES {
        return None;
    }
    let to = if to < from { to + DAY_MINUTES } else { to };
    Some((from, to - from))
}

/// `HH:MM`.
fn minute_of(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hours) || !digits(minutes) {
        return None;
    }
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= DAY_MINUTES).then_some(minute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_say_days_times_and_zone() {
        let window = Window::parse("Tue-Thu 13:00-16:30 Europe/Berlin").expect("valid");
        assert_eq!(window.days, [false, true, true, true, false, false, false]);
        assert_eq!((window.from, window.minutes), (780, 210));
        assert_eq!(window.zone, "Europe/Berlin");
        let listed = Window::parse("mon,sat-sun 00:00-24:00 UTC").expect("valid");
        assert_eq!(listed.days, [true, false, false, false, false, true, true]);
        assert_eq!((listed.from, listed.minutes), (0, 1_440));
    }

    #[test]
    fn ranges_pass_sunday_and_midnight() {
        let window = Window::parse("Sat-Mon 22:00-02:00 Etc/GMT+3").expect("valid");
        assert_eq!(window.days, [true, false, false, false, false, true, true]);
        assert_eq!((window.from, window.minutes), (1_320, 240));
    }

    #[test]
    fn what_is_no_window_says_which_part_is_wrong() {
        let cases = [
            ("", WindowError::Parts),
            ("Tue 13:00-16:00", WindowError::Parts),
            ("Tue - Thu 13:00-16:00 UTC", WindowError::Parts),
            ("Tues 13:00-16:00 UTC", WindowError::Days),
            ("Tue, 13:00-16:00 UTC", WindowError::Days),
            ("Tue 13-16 UTC", WindowError::Times),
            ("Tue 13:00-13:00 UTC", WindowError::Times),
            ("Tue 24:00-02:00 UTC", WindowError::Times),
            ("Tue 13:60-14:00 UTC", WindowError::Times),
            ("Tue +1:00-14:00 UTC", WindowError::Times),
            ("Tue 13:00-25:00 UTC", WindowError::Times),
            ("Tue 13:00-16:00 ../etc", WindowError::Zone),
            ("Tue 13:00-16:00 /etc/localtime", WindowError::Zone),
        ];
        for (text, error) in cases {
            assert_eq!(Window::parse(text), Err(error), "{text}");
        }
    }
}
