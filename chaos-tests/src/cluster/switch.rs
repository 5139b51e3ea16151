//! A switch of our own between members, which may be late, lose, double, reorder and damage what it forwards.
//!
//! Each port is a TAP device: whoever holds the other end sees an Ethernet card. Frames between members suffer; those of the
//! harness, which is on the first port, never do. A damaged frame is thrown away by the receiver's kernel, as it is by real
//! cards. The forwarding itself is a small program in Python: it can make a TAP device, which here would take unsafe code.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

const PROGRAM: &str = include_str!("switch.py");
/// How long it may take to start, and to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What happens to frames between members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Each frame takes at least so long, and up to so much longer: frames overtake each other.
    pub delay: Duration,
    pub jitter: Duration,
    /// Frames in a thousand.
    pub lost: u32,
    pub doubled: u32,
    pub damaged: u32,
}

impl Weather {
    pub const GOOD: Self =
        Self { delay: Duration::ZERO, jitter: Duration::ZERO, lost: 0, doubled: 0, damaged: 0 };
    /// Slow links, as between continents.
    pub const SLOW: Self =
        Self { delay: Duration::from_millis(25), jitter: Duration::from_millis(50), ..Self::GOOD };
    pub const LOSSY: Self = Self { lost: 50, ..Self::GOOD };
    /// Frames arrive twice, out of order, and damaged.
    pub const WILD: Self =
        Self { jitter: Duration::from_millis(10), doubled: 100, damaged: 10, ..Self::GOOD };
}

/// Ends with its owner.
#[derive(Debug)]
pub(super) struct Switch {
    // Killed when it is dropped.
    _child: Child,
    asks: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Switch {
    /// A switch whose ports are TAP devices with these names, the harness's first.
    ///
    /// # Errors
    /// When the devices cannot be made.
    pub(super) async fn make(seed: u32, names: &[String]) -> Result<Self> {
        let mut child = Command::new("python3")
            .args(["-c", PROGRAM, &seed.to_string()])
            .args(names)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("start the switch")?;
        let asks = child.stdin.take().context("the switch hears nothing")?;
        let answers = child.stdout.take().context("the switch says nothing")?;
        let mut switch = Self { _child: child, asks, answers: BufReader::new(answers).lines() };
        ensure!(switch.answer().await? == "ready", "TAP devices cannot be made");
        Ok(switch)
    }

    pub(super) async fn set_weather(&mut self, weather: Weather) -> Result<()> {
        let Weather { delay, jitter, lost, doubled, damaged } = weather;
        let (delay, jitter) = (delay.as_millis(), jitter.as_millis());
        let ask = format!("weather {delay} {jitter} {lost} {doubled} {damaged}\n");
        ensure!(self.ask(&ask).await? == "ok", "the switch does not know such weather");
        Ok(())
    }

    /// Frames that the present weather has changed something about.
    pub(super) async fn suffered(&mut self) -> Result<u64> {
        self.ask("suffered\n").await?.parse().context("the switch counts frames")
    }

    async fn ask(&mut self, ask: &str) -> Result<String> {
        self.asks.write_all(ask.as_bytes()).await.context("the switch has ended")?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<String> {
        let line = timeout(ANSWER, self.answers.next_line()).await;
        line.context("the switch does not answer")??.context("the switch has ended")
    }
}
