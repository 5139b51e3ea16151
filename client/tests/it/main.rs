//! The client and the worker against members that follow a script: the wire is real, only the answers are the test's.

mod calls;
#[cfg(feature = "cli")]
mod cli;
#[cfg(feature = "cli")]
mod files;
#[cfg(feature = "cli")]
mod host;
mod member;
mod worker;
