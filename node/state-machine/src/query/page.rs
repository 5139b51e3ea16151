//! Pages of lists. A page token is the last key of the page before, in hex; a forged one is refused when it lies
//! outside of the list's range.

use pinrail_proto::{limits, reason};

use crate::key::RowKey;
use crate::outcome::{Stop, reject};
use crate::store::{KeyRange, Order, Read, Row};

/// Rows of one page, and the token of the next one (empty: there is none).
pub(super) fn page(
    read: &dyn Read,
    range: &KeyRange,
    size: u32,
    token: &str,
) -> Result<(Vec<Row>, String), Stop> {
    let rest = resume(range, token)?;
    cut(read, &rest, Order::Ascending, size)
}

/// The same, last row first.
pub(super) fn page_back(
    read: &dyn Read,
    range: &KeyRange,
    size: u32,
    token: &str,
) -> Result<(Vec<Row>, String), Stop> {
    let mut rest = range.clone();
    if !token.is_empty() {
        rest.end = place(range, token)?;
    }
    cut(read, &rest, Order::Descending, size)
}

fn cut(
    read: &dyn Read,
    rest: &KeyRange,
    order: Order,
    size: u32,
) -> Result<(Vec<Row>, String), Stop> {
    let size = size_of(size) as usize;
    let mut rows = read.scan(rest, order, size + 1)?;
    let next = if rows.len() > size {
        rows.truncate(size);
        rows.last().map_or_else(String::new, |(key, _)| hex::encode(key))
    } else {
        String::new()
    };
    Ok((rows, next))
}

/// The part of a range behind a token.
pub(super) fn resume(range: &KeyRange, token: &str) -> Result<KeyRange, Stop> {
    if token.is_empty() {
        return Ok(range.clone());
    }
    Ok(range.clone().after(&place(range, token)?))
}

/// The key that a token stands for.
fn place(range: &KeyRange, token: &str) -> Result<RowKey, Stop> {
    let forged = || reject(reason::INVALID_REQUEST, "the page token is not one of this list");
    let key = RowKey::from(hex::decode(token).map_err(|_| forged())?);
    if key < range.start || key >= range.end {
        return Err(forged());
    }
    Ok(key)
}

/// The size of a page: the default for 0, never more than the limit.
pub(super) fn size_of(asked: u32) -> u32 {
    if asked == 0 { limits::PAGE_DEFAULT } else { asked.min(limits::PAGE) }
}
