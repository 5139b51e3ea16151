//! Amounts: numbers, decimals, durations, sizes, shares and money, each within a range.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::tree::{Node, Value};
use super::super::{FileError, value};
use super::Reader;

impl Reader<'_> {
    /// An integer within a range.
    pub(crate) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, FileError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        let Value::Integer(number) = node.value else {
            return Err(self.wrong(key, &node, "an integer"));
        };
        let fits = u64::try_from(number).ok().filter(|number| range.contains(number));
        fits.map(Some).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            let rule = format!("{}: {number} is out of range: {low} to {high}", self.key(key));
            self.error(node.line, rule)
        })
    }

    /// A small integer within a range.
    pub(crate) fn small(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u32>, FileError> {
        Ok(self.number(key, range)?.and_then(|number| u32::try_from(number).ok()))
    }

    /// A decimal within a range, in thousandths.
    pub(crate) fn permille(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u32>, FileError> {
        let Some(node) = self.node(key) else { return Ok(None) };
        #[expect(clippy::cast_precision_loss, reason = "the range ends far below 2^53")]
        let number = match node.value {
            Value::Integer(number) => number as f64,
            Value::Decimal(number) => number,
            Value::Text(_) | Value::Bool(_) | Value::Date(_) | Value::List(_) | Value::Table(_) => {
                return Err(self.wrong(key, &node, "a number"));
            }
        };
        let thousandths = value::permille(number).and_then(|number| u32::try_from(number).ok());
        let fits = thousandths.filter(|number| range.contains(&u64::from(*number)));
        fits.map(Some).ok_or_else(|| {
            let (low, high) = (range.start(), range.end());
            let rule = format!(
                "{}: {number} is out of range: {} to {}, at most three digits after the point",
                self.key(key),
                value::show_permille(*low),
                value::show_permille(*high)
            );
            self.error(node.line, rule)
        })
    }

    /// A duration within a range of milliseconds.
    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<prost_types::Duration>, FileError> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        self.duration_of(key, &text, line, range).map(Some)
    }

    /// A text of this table as a duration within a range of milliseconds.
    pub(crate) fn duration_of(
        &self,
        key: &str,
        text: &str,
        line: usize,
        range: RangeInclusive<u64>,
    ) -> Result<prost_types::Duration, FileError> {
        let parsed = value::duration(text)
            .map_err(|rule| self.error(line, format!("{}: {rule}", self.key(key))))?;
        let millis = u64::try_from(parsed.as_millis()).unwrap_or(u64::MAX);
        if !range.contains(&millis) {
            let show = |millis: &u64| value::show_duration(Duration::from_millis(*millis));
            let (low, high) = (show(range.start()), show(range.end()));
            let rule = format!("{}: {text} is out of range: {low} to {high}", self.key(key));
            return Err(self.error(line, rule));
        }
        Ok(pinrail_proto::time::duration(millis))
    }

    /// A size in bytes, within a range.
    pub(crate) fn size(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, FileError> {
        if matches!(self.table.get(key), Some(Node { value: Value::Integer(_), .. })) {
            return self.number(key, range);
        }
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let parsed = value::size(&text)
            .map_err(|rule| self.error(line, format!("{}: {rule}", self.key(key))))?;
        if !range.contains(&parsed) {
            let (low, high) = (value::show_size(*range.start()), value::show_size(*range.end()));
            let rule = format!("{}: {text} is out of range: {low} to {high}", self.key(key));
            return Err(self.error(line, rule));
        }
        Ok(Some(parsed))
    }

    /// A share such as `5%`, in basis points.
    pub(crate) fn share(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u32>, FileError> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        self.share_of(key, &text, line, range).map(Some)
    }

    /// A text of this table as a share.
    pub(crate) fn share_of(
        &self,
        key: &str,
        text: &str,
        line: usize,
        range: RangeInclusive<u64>,
    ) -> Result<u32, FileError> {
        let parsed = value::basis_points(text)
            .map_err(|rule| self.error(line, format!("{}: {rule}", self.key(key))))?;
        let fits = range.contains(&parsed).then(|| u32::try_from(parsed).ok()).flatten();
        fits.ok_or_else(|| {
            let show = |share: &u64| value::show_basis_points(*share);
            let (low, high) = (show(range.start()), show(range.end()));
            self.error(line, format!("{}: {text} is out of range: {low} to {high}", self.key(key)))
        })
    }

    /// An amount of money such as `"20.00"`, in micro-units.
    pub(crate) fn money(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, FileError> {
        let Some((text, line)) = self.text(key)? else { return Ok(None) };
        let parsed = value::micros(&text)
            .map_err(|rule| self.error(line, format!("{}: {rule}", self.key(key))))?;
        if !range.contains(&parsed) {
            let (low, high) =
                (value::show_micros(*range.start()), value::show_micros(*range.end()));
            let rule = format!("{}: {text} is out of range: {low} to {high}", self.key(key));
            return Err(self.error(line, rule));
        }
        Ok(Some(parsed))
    }
}
