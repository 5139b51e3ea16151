//! Cuts between members: packets are dropped in a member's namespace, on one way or on both, and counted.
//!
//! A cut is proven before anybody relies on it: a datagram is sent along every way that is cut, and the rule there
//! must have counted it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::time::{Duration, Instant, sleep};

use super::network::{Network, enter};
use super::tool::{feed, run};
use crate::clock;

const TABLE: &str = "pinrail_cut";
/// The discard service: nobody listens there.
const PROBE_PORT: u16 = 9;
/// How long a datagram may take to be counted.
const COUNTED: Duration = Duration::from_secs(2);

/// Which way between a member and others is cut, as the member sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Both,
    /// It hears nothing, and is heard.
    In,
    /// It is not heard, and hears.
    Out,
}

impl Way {
    fn cuts_in(self) -> bool {
        matches!(self, Self::Both | Self::In)
    }

    fn cuts_out(self) -> bool {
        matches!(self, Self::Both | Self::Out)
    }
}

impl Network {
    /// Cuts a member off from others, and gives the moment from which every way was closed.
    ///
    /// # Errors
    /// When packets still pass.
    pub async fn cut(&self, member: usize, way: Way, others: &[usize]) -> Result<u64> {
        let namespace = self.namespace(member);
        let addresses: Vec<String> =
            others.iter().map(|other| self.member_address(*other)).collect();
        nft(namespace, &rules(way, &addresses)).await.context("cut the network")?;
        let effective_us = clock::now_us();
        if way.cuts_out() {
            probe(namespace, &addresses).await?;
        }
        if way.cuts_in() {
            let address = [self.member_address(member)];
            for other in others {
                probe(self.namespace(*other), &address).await?;
            }
        }
        let ways = others.len() * (usize::from(way.cuts_in()) + usize::from(way.cuts_out()));
        let deadline = Instant::now() + COUNTED;
        loop {
            let counted = counters(namespace).await?;
            if counted.len() == ways && counted.iter().all(|packets| *packets > 0) {
                return Ok(effective_us);
            }
            if Instant::now() > deadline {
                bail!(
                    "the cut of member {member} from {others:?} ({way:?}) dropped {counted:?} packets"
                );
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Lets everything pass again everywhere.
    ///
    /// # Errors
    /// When the rules cannot be removed.
    pub async fn mend_all(&self) -> Result<()> {
        // Made first, so that removing what is not there is no error.
        let rules = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
        for namespace in self.namespaces() {
            nft(namespace, &rules).await.context("mend the network")?;
        }
        Ok(())
    }
}

/// All rules of a cut: they come into force together.
fn rules(way: Way, others: &[String]) -> String {
    let mut text = format!("table inet {TABLE} {{\n");
    for (cuts, hook, match_on) in
        [(way.cuts_in(), "input", "saddr"), (way.cuts_out(), "output", "daddr")]
    {
        if !cuts {
            continue;
        }
        let _ = writeln!(text, "chain {hook} {{\ntype filter hook {hook} priority 0;");
        for address in others {
            let _ = writeln!(text, "ip {match_on} {address} counter drop");
        }
        text.push_str("}\n");
    }
    text.push_str("}\n");
    text
}

async fn nft(namespace: &str, rules: &str) -> Result<String> {
    let [net, end] = enter(namespace);
    feed("nsenter", &[&net, &end, "nft", "-f", "-"], rules).await
}

/// Sends a datagram to each address. The kernel tells the sender of one that it drops: that is no failure here.
async fn probe(namespace: &str, addresses: &[String]) -> Result<()> {
    let [net, end] = enter(namespace);
    let script = format!("for to; do echo > /dev/udp/$to/{PROBE_PORT}; done; true");
    let mut args = vec![net.as_str(), &end, "bash", "-c", &script, "probe"];
    args.extend(addresses.iter().map(String::as_str));
    run("nsenter", &args).await.context("probe a cut").map(drop)
}

/// Packets that each rule has dropped.
async fn counters(namespace: &str) -> Result<Vec<u64>> {
    let [net, end] = enter(namespace);
    let args = [net.as_str(), &end, "nft", "-j", "list", "table", "inet", TABLE];
    let listed: Value = serde_json::from_str(&run("nsenter", &args).await?)?;
    Ok(packets(&listed))
}

fn packets(listed: &Value) -> Vec<u64> {
    let rules = listed["nftables"].as_array().into_iter().flatten();
    rules
        .filter_map(|object| object["rule"]["expr"].as_array())
        .filter_map(|parts| parts.iter().find_map(|part| part["counter"]["packets"].as_u64()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_cuts_have_one_chain_and_a_rule_for_each_other() {
        let others = ["198.18.1.11".to_owned(), "198.18.1.12".to_owned()];
        let deaf = rules(Way::In, &others);
        assert!(deaf.contains("hook input") && !deaf.contains("hook output"), "{deaf}");
        assert_eq!(deaf.matches("ip saddr").count(), 2, "{deaf}");
        let mute = rules(Way::Out, &others);
        assert!(mute.contains("hook output") && !mute.contains("hook input"), "{mute}");
        assert_eq!(rules(Way::Both, &others).matches("counter drop").count(), 4);
    }

    #[test]
    fn counters_are_read_from_rules_alone() {
        let listed = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1"}}, {"table": {"name": TABLE}}, {"chain": {"name": "input"}},
            {"rule": {"expr": [{"match": {}}, {"counter": {"packets": 3, "bytes": 90}}, {"drop": null}]}},
            {"rule": {"expr": [{"match": {}}, {"counter": {"packets": 0, "bytes": 0}}, {"drop": null}]}},
        ]});
        assert_eq!(packets(&listed), [3, 0]);
    }
}
