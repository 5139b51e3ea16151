//! How a candidate does beside the bundle that it replaces.

use pinrail_proto::v1;
use pinrail_proto::v1::signal_service_client::SignalServiceClient;

use crate::client::Client;
use crate::service::methods;

/// `SignalService`.
#[derive(Debug, Clone, Copy)]
pub struct Signals<'c> {
    pub(super) client: &'c Client,
}

methods! { Signals, SignalServiceClient:
    /// What is watched, how each signal stands, and what fired.
    read get_signals as get(GetSignalsRequest) -> GetSignalsResponse;
    /// Says that somebody knows of a firing.
    write ack_signal as ack(AckSignalRequest) -> AckSignalResponse;
    /// Silences a signal for a while.
    write mute_signal as mute(MuteSignalRequest) -> MuteSignalResponse;
}
