//! One file per gRPC service: thin methods that fill in namespace, actor and ids, and say whether a repeat is safe.
//!
//! They take and give the messages of the API as they are, and decide nothing.

mod agent;
mod audit;
mod bundle;
mod cluster;
mod drill;
mod eval;
mod event;
mod hook;
mod memory;
mod namespace;
mod pin;
mod release;
mod report;
mod resume;
mod run;
mod shadow;
mod signal;
mod tool;
mod worker;

pub use agent::Agents;
pub use audit::Audit;
pub use bundle::Bundles;
pub use cluster::{Cluster, Seen};
pub use drill::Drills;
pub use eval::Evals;
pub use event::{EventWatch, Events};
pub use hook::Hooks;
pub use memory::{Memory, MemoryWatch};
pub use namespace::Namespaces;
pub use pin::{PinWatch, Pins};
use pinrail_proto::v1;
pub use release::{ReleaseWatch, Releases};
pub use report::Reports;
pub use run::{RunWatch, Runs};
pub use shadow::Shadows;
pub use signal::Signals;
pub use tool::Tools;
pub use worker::Workers;

use crate::client::Client;
use crate::connection::Call;
use crate::retry::Repeat;

/// Opens the stream of a stub's method, for what is resumed.
macro_rules! open {
    ($stub:ident :: $method:ident) => {
        |client, request| async move {
            let call = client.call_for($crate::retry::Repeat::Read, String::new());
            let open = |channel, request: tonic::Request<_>| async move {
                $stub::new(channel)
                    .max_decoding_message_size(pinrail_proto::limits::API_ANSWER_BYTES)
                    // Without the call's deadline: the stream lives longer.
                    .$method(request.into_inner())
                    .await
            };
            client.connection().call(call, request, open).await
        }
    };
}

/// A call by its stub's method, with our message limits.
macro_rules! send {
    ($client:expr, $call:expr, $stub:ident :: $method:ident, $request:expr) => {
        $client
            .connection()
            .call($call, $request, |channel, request| async move {
                $stub::new(channel)
                    .max_decoding_message_size(pinrail_proto::limits::API_ANSWER_BYTES)
                    .max_encoding_message_size(pinrail_proto::limits::API_MESSAGE_BYTES)
                    .$method(request)
                    .await
            })
            .await
    };
}
use {open, send};

/// Methods of one service. `read`: changes nothing. `write`: gets a request id, which makes a repeat safe.
/// `again`: a repeat is safe by its content (`by` names the field to ask again with).
macro_rules! methods {
    ($service:ident, $stub:ident: $($(#[$doc:meta])* $kind:ident $method:ident as $name:ident
        ($request:ident) -> $response:ident $(by $id:ident)?;)*) => {
        impl $service<'_> {
            $($(#[$doc])*
            ///
            /// # Errors
            /// Those of [`crate::Error`].
            pub async fn $name(&self, request: v1::$request) -> crate::Result<v1::$response> {
                let mut request = request;
                self.client.namespace_or_default(&mut request.namespace);
                let call = crate::service::methods!(@$kind self, request $($id)?);
                crate::service::send!(self.client, call, $stub::$method, request)
            })*
        }
    };
    (@read $self:ident, $request:ident) => {
        crate::service::read_call($self.client, $request.read.as_ref())
    };
    (@write $self:ident, $request:ident) => {{
        let id = $self.client.identify(&mut $request.options);
        $self.client.call_for(crate::retry::Repeat::Safe, id)
    }};
    (@again $self:ident, $request:ident $id:ident) => {{
        $self.client.sign(&mut $request.options);
        $self.client.call_for(crate::retry::Repeat::Safe, $request.$id.clone())
    }};
}
use methods;

/// A read goes to the leader, which saves a hop, unless local state is enough.
fn read_call(client: &Client, read: Option<&v1::ReadOptions>) -> Call {
    let local = read.is_some_and(|read| read.consistency() == v1::Consistency::Local);
    Call { prefer_leader: !local, ..client.call_for(Repeat::Read, String::new()) }
}

impl Client {
    /// Tenants.
    #[must_use]
    pub fn namespaces(&self) -> Namespaces<'_> {
        Namespaces { client: self }
    }

    /// Agents, policies, pause, environments.
    #[must_use]
    pub fn agents(&self) -> Agents<'_> {
        Agents { client: self }
    }

    /// Immutable bundles.
    #[must_use]
    pub fn bundles(&self) -> Bundles<'_> {
        Bundles { client: self }
    }

    /// Runs, their steps and results.
    #[must_use]
    pub fn runs(&self) -> Runs<'_> {
        Runs { client: self }
    }

    /// Pins, routes, drains.
    #[must_use]
    pub fn pins(&self) -> Pins<'_> {
        Pins { client: self }
    }

    /// Switch and rollback.
    #[must_use]
    pub fn releases(&self) -> Releases<'_> {
        Releases { client: self }
    }

    /// The rollback, practised and timed.
    #[must_use]
    pub fn drills(&self) -> Drills<'_> {
        Drills { client: self }
    }

    /// What releases were.
    #[must_use]
    pub fn reports(&self) -> Reports<'_> {
        Reports { client: self }
    }

    /// Live runs and their mirrors, side by side.
    #[must_use]
    pub fn shadows(&self) -> Shadows<'_> {
        Shadows { client: self }
    }

    /// How a candidate does beside the bundle that it replaces.
    #[must_use]
    pub fn signals(&self) -> Signals<'_> {
        Signals { client: self }
    }

    /// What tools and models really are, against what bundles say.
    #[must_use]
    pub fn tools(&self) -> Tools<'_> {
        Tools { client: self }
    }

    /// Memory, for operators and readers; workers write through their step's context.
    #[must_use]
    pub fn memory(&self) -> Memory<'_> {
        Memory { client: self }
    }

    /// Sets of examples, and how bundles did on them.
    #[must_use]
    pub fn evals(&self) -> Evals<'_> {
        Evals { client: self }
    }

    /// What happened.
    #[must_use]
    pub fn events(&self) -> Events<'_> {
        Events { client: self }
    }

    /// Where events are sent to.
    #[must_use]
    pub fn hooks(&self) -> Hooks<'_> {
        Hooks { client: self }
    }

    /// Who did what.
    #[must_use]
    pub fn audit(&self) -> Audit<'_> {
        Audit { client: self }
    }

    /// Live workers.
    #[must_use]
    pub fn workers(&self) -> Workers<'_> {
        Workers { client: self }
    }

    /// The cluster itself.
    #[must_use]
    pub fn cluster(&self) -> Cluster<'_> {
        Cluster { client: self }
    }
}
