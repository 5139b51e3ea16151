//! `[drift]`: what is done about tools and models that are not what a bundle says.

use pinrail_proto::policy::range::PERMILLE;
use pinrail_proto::v1;

use super::range::{permille, word};
use crate::outcome::Stop;

pub(super) fn check(drift: &v1::DriftPolicy) -> Result<(), Stop> {
    let words = "alert, block, accept";
    word::<v1::DriftAction>("drift.breaking", drift.breaking, words)?;
    word::<v1::DriftAction>("drift.compatible", drift.compatible, words)?;
    permille("drift.sample", drift.sample_permille, PERMILLE)
}
