//! Logs and metrics of the process: set up once, at its start. Everything else uses the macros of `tracing` and
//! `metrics` and knows nothing of where they end.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LogSettings};

static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Sends logs to standard error, and what a panic says to the log before the process ends. A second call changes nothing.
pub fn init_logs(settings: &LogSettings) {
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let installed = match settings.format {
        LogFormat::Text => logs.try_init(),
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
    };
    if installed.is_ok() {
        log_panics();
    }
}

/// What is logged. Libraries that talk much are held to warnings unless the level names them.
fn filter(level: &str) -> EnvFilter {
    let talks = |library: &&str| !matches!(level, "off" | "error") && !level.contains(*library);
    let quiet = ["openraft", "h2", "hyper"].into_iter().filter(talks);
    let quiet: String = quiet.map(|library| format!(",{library}=warn")).collect();
    // The level was checked when the configuration was read.
    EnvFilter::try_new(format!("{level}{quiet}")).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// A panic ends the process (`panic = "abort"`): the log must hold why.
fn log_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = info.payload_as_str().unwrap_or("no message");
        tracing::error!(thread, place, message, "panic: this process ends");
        default(info);
    }));
}

/// The metrics of this process, in the text format of Prometheus. None when another recorder was installed.
pub fn render_metrics() -> Option<String> {
    let handle = metrics_handle()?;
    handle.run_upkeep();
    Some(handle.render())
}

/// Installs the recorder. Metrics that were touched before are lost.
pub fn init_metrics() {
    if metrics_handle().is_some() {
        crate::driver::describe_metrics();
    }
}

fn metrics_handle() -> Option<&'static PrometheusHandle> {
    let install = || {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok().map(|()| handle)
    };
    METRICS.get_or_init(install).as_ref()
}
