//! Durations, sizes and decimals as they are written in files and flags, and back.

use std::time::Duration;

const KIB: u64 = 1 << 10;

/// A duration such as `90s`, `1h 30m` or `7d`; a bare 0 needs its unit too.
///
/// # Errors
/// Says what a duration looks like.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    if text.trim_start().starts_with('-') {
        return Err(format!("{text:?} is negative; a duration is at least 0s"));
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is no duration ({error}); e.g. \"90s\", \"6h\", \"7d\""))
}

/// The same duration as people write it: `6h`, `1h30m`, `250ms`.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m")];
    let mut text = String::new();
    for (count, unit) in parts {
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
        }
    }
    let (rest, millis) = (seconds % 60, duration.subsec_millis());
    if rest > 0 || (text.is_empty() && millis == 0) {
        text.push_str(&format!("{rest}s"));
    }
    if millis > 0 {
        text.push_str(&format!("{millis}ms"));
    }
    text
}

/// A size such as `10GiB`, `512 MB` or a number of bytes.
///
/// # Errors
/// Says what a size looks like.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let wrong = || format!("{text:?} is no size; e.g. \"512MiB\", \"10GiB\"");
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => KIB,
        "MiB" => KIB.pow(2),
        "GiB" => KIB.pow(3),
        "TiB" => KIB.pow(4),
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(wrong)
}

/// The same size as people write it.
pub(crate) fn show_size(bytes: u64) -> String {
    let units = [(KIB.pow(4), "TiB"), (KIB.pow(3), "GiB"), (KIB.pow(2), "MiB"), (KIB, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes.is_multiple_of(*unit) => format!("{}{name}", bytes / unit),
        Some((unit, name)) => {
            let tenths = bytes / (unit / 10).max(1);
            format!("{}.{}{name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes}B"),
    }
}

/// A decimal in thousandths; `None` when it has more than three digits after the point, or is none.
#[expect(clippy::cast_possible_truncation, reason = "the bounds are checked before")]
pub(crate) fn permille(number: f64) -> Option<i64> {
    let scaled = number * 1_000.0;
    let rounded = scaled.round();
    let fits = rounded.abs() < 9.0e15 && (scaled - rounded).abs() < 1e-6;
    fits.then_some(rounded as i64)
}

/// Thousandths as a decimal: `2.0`, `0.25`.
pub(crate) fn show_permille(thousandths: i64) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_they_are_shown() {
        for text in ["0s", "30s", "6h", "30d", "1h30m", "250ms", "1s500ms", "7d"] {
            assert_eq!(show_duration(duration(text).expect(text)), text);
        }
        for wrong in ["", "5", "-5s", "five", "1 parsec"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("512 MB"), Ok(512_000_000));
        assert_eq!(size("17"), Ok(17));
        for wrong in ["", "GiB", "-1", "1XB", "99999999999TiB", "1.5GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!((show_size(10 << 30), show_size(1_536)), ("10GiB".into(), "1.5KiB".into()));
    }

    #[test]
    fn decimals_are_thousandths_exactly() {
        assert_eq!(permille(2.0), Some(2_000));
        assert_eq!(permille(0.2), Some(200));
        assert_eq!(permille(1.001), Some(1_001));
        assert_eq!(permille(0.0001), None);
        assert_eq!(permille(f64::INFINITY), None);
        assert_eq!((show_permille(2_000), show_permille(250)), ("2.0".into(), "0.25".into()));
    }
}
