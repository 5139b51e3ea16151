//! Free loopback ports below the range from which the kernel takes ports for outgoing connections: a node that was
//! killed must find its own port again.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

const FIRST: u16 = 18_000;
const COUNT: u16 = 14_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// So many free ports.
///
/// # Errors
/// When there are not that many.
pub(crate) fn free(count: usize) -> Result<Vec<u16>> {
    // Test binaries run side by side: each begins elsewhere.
    let spread = u16::try_from(u64::from(std::process::id()) * 61 % u64::from(COUNT))?;
    let mut ports = Vec::new();
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port =
            FIRST + (u32::from(spread) + u32::from(step)).rem_euclid(u32::from(COUNT)) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            ports.push(port);
            if ports.len() == count {
                return Ok(ports);
            }
        }
    }
    bail!("no {count} free ports on the loopback interface")
}
