//! What is wanted of an environment has been said: who follows the events of a bundle knows what the state says.

use pinrail_proto::v1::Want;

use super::{Found, Scene};

/// The last `environment.wanted` of each bundle says what its environment says now.
pub(super) fn wants_are_told(scene: &Scene<'_>, found: &mut Found) {
    for bundle in scene.bundles.values() {
        let is = crate::bundle::environment(&scene.agent, bundle);
        let told = match bundle.wanted() {
            Want::Unspecified => Want::Off,
            told @ (Want::Off | Want::Warm | Want::Serve) => told,
        };
        let same_why = is.reason == bundle.wanted_why || bundle.wanted() == Want::Unspecified;
        if (is.want(), is.slots) != (told, bundle.wanted_slots) || !same_why {
            let (id, said) = (&bundle.bundle_id, bundle.wanted().as_str_name());
            found.say("environment", format!("{id} is {is:?}, said was {said}"));
        }
    }
}
