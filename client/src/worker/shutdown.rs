//! The signals that ask a program to end.

use tokio::signal::unix::{SignalKind, signal};

/// Ready when the process gets SIGTERM or SIGINT. Where signals cannot be heard, never.
pub async fn shutdown_signal() {
    tokio::select! {
        () = heard(SignalKind::terminate()) => {}
        () = heard(SignalKind::interrupt()) => {}
    }
}

async fn heard(kind: SignalKind) {
    match signal(kind) {
        Ok(mut stream) => {
            stream.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "signals cannot be heard");
            std::future::pending::<()>().await;
        }
    }
}
