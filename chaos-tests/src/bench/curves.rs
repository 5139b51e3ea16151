//! Measures curves: throughput and latency while clients, open runs, keys, bundles, watchers or values grow. What is filled grows in one cluster;
//! everything else is measured on a fresh one at each point.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use pinrail_client::bench::{Figures, Load, VALUE_BYTES, value_of};
use serde_json::{Value as Json, json};
use tokio::time::Duration;

use super::curve::{Along, CURVES, Curve, Point};
use super::curve_plot::plot;
use super::machine::Machine;
use super::pinrail::Pinrail;
use crate::scenario::Setting;

/// Clients where they are not what grows.
const CLIENTS: usize = 64;

/// How to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct CurveOptions {
    /// Where `curves.json` and a picture of each curve as SVG go.
    #[arg(long, value_name = "FOLDER", default_value = "curves")]
    folder: PathBuf,
    /// Measurements of each point; medians are drawn.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Of each measurement.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Before each measurement.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// Where curves along open runs and keys end. Ten million keys take a quarter of an hour and 30 GB.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    keys: u64,
    /// Only this curve: start-clients, read-clients, step-clients, step-open-runs, start-bundles, put-keys, get-keys,
    /// watch-watchers, put-bytes. May be repeated.
    #[arg(long, value_parser = known)]
    only: Vec<String>,
}

fn known(name: &str) -> Result<String, String> {
    if CURVES.iter().any(|curve| curve.name == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<&str> = CURVES.iter().map(|curve| curve.name).collect();
    Err(format!("no curve has this name; there are {}", names.join(", ")))
}

/// Measures the curves, and writes each of them down as soon as it is there: who stops it keeps what was measured so far.
///
/// # Errors
/// When the harness failed, or the folder cannot be written to.
pub async fn curves(setting: &Setting, options: &CurveOptions) -> Result<()> {
    let folder = &options.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let machine = Machine::here();
    eprintln!("{}", machine.line());
    let wanted = CURVES
        .iter()
        .filter(|curve| options.only.is_empty() || options.only.iter().any(|it| it == curve.name));
    let mut measured: Vec<Json> = Vec::new();
    for curve in wanted {
        let points = points(setting, options, curve).await?;
        measured.push(curve.json(&points));
        let all = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine,
            "curves": measured,
        });
        write(&folder.join("curves.json"), &serde_json::to_vec_pretty(&all)?)?;
        let picture = folder.join(format!("{}.svg", curve.name));
        write(&picture, plot(curve, &points).as_bytes())?;
        println!("{}", picture.display());
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

async fn points(setting: &Setting, options: &CurveOptions, curve: &Curve) -> Result<Vec<Point>> {
    let places = curve.along.points(options.keys);
    let mut points: Vec<Point> =
        places.into_iter().map(|x| Point { x, rounds: Vec::new() }).collect();
    for round in 1..=options.rounds {
        let mut growing: Option<(Pinrail, u64)> = None;
        for point in &mut points {
            let (mut pinrail, before) = match growing.take() {
                Some(grown) => grown,
                None => {
                    (Pinrail::start(&setting.binaries.pinrail, setting.out.as_deref()).await?, 0)
                }
            };
            let figures = measure(&mut pinrail, options, curve, point.x, before).await?;
            eprintln!(
                "round {round}: {}, {} {}: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
                curve.name,
                point.x,
                curve.along.label(),
                figures.per_second,
                figures.p50_us as f64 / 1e3,
                figures.p99_us as f64 / 1e3
            );
            point.rounds.push(figures);
            match curve.along {
                Along::OpenRuns | Along::Keys | Along::Bundles => {
                    growing = Some((pinrail, point.x))
                }
                Along::Clients | Along::Watchers | Along::Bytes => {
                    pinrail.cluster.kill_all().await?;
                }
            }
        }
        if let Some((mut pinrail, _)) = growing {
            pinrail.cluster.kill_all().await?;
        }
    }
    Ok(points)
}

/// One point; what is filled is there up to `before`.
async fn measure(
    pinrail: &mut Pinrail,
    options: &CurveOptions,
    curve: &Curve,
    x: u64,
    before: u64,
) -> Result<Figures> {
    let count = usize::try_from(x)?;
    let (clients, bytes) = match curve.along {
        Along::Clients | Along::Watchers => (count, VALUE_BYTES),
        Along::Bytes => (CLIENTS, count),
        Along::OpenRuns => {
            pinrail.open_runs(x - before).await?;
            (CLIENTS, VALUE_BYTES)
        }
        Along::Keys => {
            pinrail.put_keys(x - before).await?;
            (CLIENTS, VALUE_BYTES)
        }
        Along::Bundles => {
            pinrail.register_bundles(x - before).await?;
            (CLIENTS, VALUE_BYTES)
        }
    };
    let CurveOptions { warm_up, duration, .. } = *options;
    let load = Load { clients, rate: None, warm_up, duration };
    let figures = pinrail.measure(curve.workload, load, value_of(bytes)).await?;
    Ok(figures.unwrap_or_default())
}
