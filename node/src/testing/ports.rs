//! Free loopback ports below the range from which the kernel takes ports for outgoing connections, so that nobody has one
//! between its being found and its being listened at.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
const COUNT: u16 = 7_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens at.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_port() -> u16 {
    // Each test is a process of its own: each begins elsewhere.
    let spread = std::process::id().wrapping_mul(61);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let place = spread.wrapping_add(step) % u32::from(COUNT);
        let port = FIRST + u16::try_from(place).expect("it is below COUNT");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on the loopback interface");
}
