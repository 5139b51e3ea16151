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
pub(crate) fn show_permille(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

/// A share such as `5%` or `0.25%`, in basis points.
///
/// # Errors
/// Says what a share looks like.
pub(crate) fn basis_points(text: &str) -> Result<u64, String> {
    let share = text.trim().strip_suffix('%').and_then(|number| fixed(number.trim_end(), 2));
    share.ok_or_else(|| {
        format!("{text:?} is no share; e.g. \"5%\", \"0.25%\", at most two digits after the point")
    })
}

/// The same share as people write it.
pub(crate) fn show_basis_points(share: u64) -> String {
    let text = format!("{}.{:02}", share / 100, share % 100);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// An amount of money such as `20.00`, in micro-units.
///
/// # Errors
/// Says what an amount looks like.
pub(crate) fn micros(text: &str) -> Result<u64, String> {
    fixed(text.trim(), 6).ok_or_else(|| {
        format!("{text:?} is no amount; e.g. \"20.00\", at most six digits after the point")
    })
}

/// The same amount as people write it: at least two digits after the point.
pub(crate) fn show_micros(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let cents = text.len() - 4;
    let rest = text[cents..].trim_end_matches('0');
    format!("{}{rest}", &text[..cents])
}

/// A decimal without sign, times ten to the power of `digits`; `None` when it is none, has more digits after the
/// point, or is too large.
fn fixed(text: &str, digits: usize) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !plain(whole) || !plain(rest) || rest.len() > digits {
        return None;
    }
    let scale = |power: usize| 10_u64.checked_pow(u32::try_from(power).ok()?);
    let whole = whole.parse::<u64>().ok()?.checked_mul(scale(digits)?)?;
    whole.checked_add(rest.parse::<u64>().ok()?.checked_mul(scale(digits - rest.len())?)?)
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

    #[test]
    fn shares_and_money_are_whole_numbers() {
        for (text, share) in [("5%", 500), ("0.25%", 25), ("100 %", 10_000), ("0%", 0)] {
            assert_eq!(basis_points(text), Ok(share), "{text}");
        }
        for wrong in ["", "5", "%", "-5%", "0.125%", "1e1%", "5.%"] {
            assert!(basis_points(wrong).is_err(), "{wrong}");
        }
        assert_eq!((show_basis_points(500), show_basis_points(25)), ("5%".into(), "0.25%".into()));
        for (text, amount) in [("20.00", 20_000_000), ("7", 7_000_000), ("0.000001", 1)] {
            assert_eq!(micros(text), Ok(amount), "{text}");
        }
        for wrong in ["", "$5", "-1", "1.0000001", "99999999999999999999"] {
            assert!(micros(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            (show_micros(20_000_000), show_micros(1_500_001)),
            ("20.00".into(), "1.500001".into())
        );
    }
}
