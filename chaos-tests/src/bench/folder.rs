//! Where the data of measured servers is: on a disk, which a temporary folder need not be.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// On a disk by the Filesystem Hierarchy Standard, and open to every user: PostgreSQL does not run as root.
const PLACE: &str = "/var/tmp";

/// A folder that goes with its handle; others may look into it.
///
/// # Errors
/// When it cannot be made.
pub(super) fn fresh(out: Option<&Path>) -> Result<TempDir> {
    let place = out.unwrap_or(Path::new(PLACE));
    let folder = tempfile::Builder::new()
        .prefix("pinrail-bench-")
        .tempdir_in(place)
        .with_context(|| format!("a folder in {}", place.display()))?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}
