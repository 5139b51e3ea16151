//! A network of their own for the members of a cluster: each in a namespace, all on a bridge in one more, and the
//! harness on the same bridge. Where the weather between members is to be bad, a switch of ours takes the bridge's place.
//!
//! ```text
//!  this machine          switch namespace               member's namespace
//!  pinrail7 .1 ---- host [bridge] port0 ---------------- eth0 .10
//!                            \---- port1 ---------------- eth0 .11
//!
//!  pinrail7 .1 ---- [ switch.py, beside this process ] ------ eth0 .10
//!                                          \------------- eth0 .11
//! ```
//! Everything is named after the process that made it, so that what a killed one left behind is found and removed.
//! It knows nothing of what runs in a namespace.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Duration, Instant, sleep};

use super::switch::{Switch, Weather};
use super::tool::{demand, quietly, run};

/// Of all names of namespaces here.
const PREFIX: &str = "pinrail-chaos-";
/// Networks at the same time: one for each third byte of an address of the range for benchmarks (RFC 2544).
const NETWORKS: u32 = 256;
/// Members send each other something all the time.
const SUFFERED: Duration = Duration::from_secs(5);
/// The last byte of the first member's address.
const FIRST_MEMBER: usize = 10;

/// Removed when it is dropped; processes in it must have ended by then.
#[derive(Debug)]
pub struct Network {
    number: u32,
    switch: String,
    members: Vec<String>,
    /// None: the bridge.
    own: Option<Switch>,
}

impl Network {
    /// # Errors
    /// When this machine cannot do it: says what is missing.
    pub(super) async fn make(members: usize, own_switch: bool) -> Result<Self> {
        let needed = [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("nsenter", "util-linux"),
            ("bash", "bash"),
            ("python3", "python3"),
        ];
        demand("a network namespace for each member", &needed)?;
        remove_stale();
        let mut network = Self::claim(own_switch, members)
            .await
            .context("network namespaces cannot be made here")?;
        for index in 0..members {
            network.add_member(index).await?;
        }
        Ok(network)
    }

    /// The switch's namespace with its bridge, joined with this machine.
    async fn claim(own_switch: bool, members: usize) -> Result<Self> {
        let pid = std::process::id();
        for step in 0..NETWORKS {
            let number = (pid + step) % NETWORKS;
            let switch = format!("{PREFIX}{pid}-{number}-switch");
            if !first(&["netns", "add", &switch]).await? {
                continue;
            }
            // From here on dropping it removes the namespace.
            let mut network = Self { number, switch, members: Vec::new(), own: None };
            let host = network.host();
            let address = format!("{}/24", network.address(1));
            if own_switch {
                if quietly("ip", &["link", "show", &host]).is_some() {
                    continue;
                }
                let ports = (0..members).map(|index| network.tap(index));
                let names: Vec<String> = [host.clone()].into_iter().chain(ports).collect();
                network.own = Some(Switch::make(number, &names).await?);
                run("ip", &["address", "add", &address, "dev", &host]).await?;
                run("ip", &["link", "set", &host, "up"]).await?;
                return Ok(network);
            }
            let (host, switch) = (network.host(), network.switch.as_str());
            let link =
                ["link", "add", &host, "type", "veth", "peer", "name", "host", "netns", switch];
            // The name of the link can be taken only once: this is what makes a network unique.
            if !first(&link).await? {
                continue;
            }
            let rest: [&[&str]; 5] = [
                &["address", "add", &address, "dev", &host],
                &["link", "set", &host, "up"],
                &["-n", switch, "link", "add", "bridge", "type", "bridge"],
                &["-n", switch, "link", "set", "host", "master", "bridge", "up"],
                &["-n", switch, "link", "set", "bridge", "up"],
            ];
            for args in rest {
                run("ip", args).await?;
            }
            return Ok(network);
        }
        bail!("all {NETWORKS} networks are in use")
    }

    async fn add_member(&mut self, index: usize) -> Result<()> {
        let name = format!("{PREFIX}{}-{}-{index}", std::process::id(), self.number);
        run("ip", &["netns", "add", &name]).await?;
        self.members.push(name.clone());
        let (name, switch) = (name.as_str(), self.switch.as_str());
        let (port, tap) = (format!("port{index}"), self.tap(index));
        let address = format!("{}/24", self.member_address(index));
        let to_bridge: [&[&str]; 2] = [
            &[
                "-n", switch, "link", "add", &port, "type", "veth", "peer", "name", "eth0",
                "netns", name,
            ],
            &["-n", switch, "link", "set", &port, "master", "bridge", "up"],
        ];
        let to_own: [&[&str]; 2] = [
            &["link", "set", &tap, "netns", name],
            &["-n", name, "link", "set", &tap, "name", "eth0"],
        ];
        let card: [&[&str]; 3] = [
            &["-n", name, "address", "add", &address, "dev", "eth0"],
            &["-n", name, "link", "set", "eth0", "up"],
            &["-n", name, "link", "set", "lo", "up"],
        ];
        let join = if self.own.is_some() { to_own } else { to_bridge };
        for args in join.into_iter().chain(card) {
            run("ip", args).await?;
        }
        Ok(())
    }

    /// Lets the weather between members be like this, until something has suffered from it.
    ///
    /// # Errors
    /// When there is no switch of ours, or nothing suffers.
    pub(super) async fn set_weather(&mut self, weather: Weather) -> Result<()> {
        let switch =
            self.own.as_mut().context("the members have no switch of ours between them")?;
        switch.set_weather(weather).await?;
        let deadline = Instant::now() + SUFFERED;
        while switch.suffered().await? == 0 {
            ensure!(Instant::now() < deadline, "no frame suffered from {weather:?}");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Good weather again, where it can be bad.
    ///
    /// # Errors
    /// When the switch has ended.
    pub(super) async fn clear(&mut self) -> Result<()> {
        match &mut self.own {
            Some(switch) => switch.set_weather(Weather::GOOD).await,
            None => Ok(()),
        }
    }

    /// The name of a member's card before it is in its namespace.
    fn tap(&self, index: usize) -> String {
        format!("pinrail{}-{index}", self.number)
    }

    /// The address of a member.
    #[must_use]
    pub fn member_address(&self, index: usize) -> String {
        self.address(FIRST_MEMBER + index)
    }

    /// The namespace of a member.
    pub(super) fn namespace(&self, index: usize) -> &str {
        self.members.get(index).map_or("", String::as_str)
    }

    pub(super) fn namespaces(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(String::as_str)
    }

    fn address(&self, last: usize) -> String {
        format!("198.18.{}.{last}", self.number)
    }

    /// This machine's end, by a name that is short enough for a link.
    fn host(&self) -> String {
        format!("pinrail{}", self.number)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The links go with the namespaces that they end in.
        for name in self.members.iter().chain([&self.switch]) {
            quietly("ip", &["netns", "delete", name]);
        }
    }
}

/// Makes something, unless it is there already.
async fn first(args: &[&str]) -> Result<bool> {
    match run("ip", args).await {
        Ok(_) => Ok(true),
        Err(error) if format!("{error:#}").contains("File exists") => Ok(false),
        Err(error) => Err(error),
    }
}

/// How a program is started in a namespace: the process stays the one that was started.
pub(super) fn enter(namespace: &str) -> [String; 2] {
    [format!("--net=/run/netns/{namespace}"), "--".to_owned()]
}

/// Removes the namespaces of harnesses that are gone, and ends what still runs in them.
fn remove_stale() {
    let listed = quietly("ip", &["netns", "list"]).unwrap_or_default();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| maker(name).is_some_and(|pid| !lives(pid))) {
        let inside = quietly("ip", &["netns", "pids", name]).unwrap_or_default();
        for pid in inside.lines().filter_map(|pid| Pid::from_raw(pid.trim().parse().ok()?)) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        quietly("ip", &["netns", "delete", name]);
        eprintln!("removed {name}, left behind by a run that is gone");
    }
}

/// The process that made a namespace, when it is one of these.
fn maker(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Whether a process is there.
pub(super) fn lives(pid: u32) -> bool {
    fs::exists(Path::new("/proc").join(pid.to_string())).unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_harness_have_a_maker() {
        assert_eq!(maker("pinrail-chaos-812-7-switch"), Some(812));
        assert_eq!(maker("pinrail-chaos-812-7-0"), Some(812));
        assert_eq!(maker("pinrail-chaos-x-7-0"), None);
        assert_eq!(maker("somebody-else"), None);
    }
}
