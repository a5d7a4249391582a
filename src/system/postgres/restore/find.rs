//! The server that a drill has restored, from its marker alone: for later steps and after a crash.

use std::path::Path;

use super::target::{Place, State, read_marker, running_server};
use crate::event::Failure;
use crate::secret::Secret;
use crate::system::postgres::Url;

/// A restored server of this drill.
#[derive(Debug, Clone)]
pub struct Found {
    /// By the socket, as the source's user, without a password.
    pub url: Secret,
    pub place: Place,
    pub promoted: bool,
    pub running: bool,
}

/// `None` before the server stands at its target. A directory of another drill is not looked at.
pub fn find(directory: &Path, drill: &str, system: &str, source: &Secret) -> Result<Option<Found>, Failure> {
    let marker = read_marker(directory)?.filter(|m| m.owner.drill == drill && m.owner.system == system);
    let (place, promoted) = match marker.map(|marker| marker.state) {
        Some(State::Paused { place, .. }) => (place, false),
        Some(State::Promoted { place, .. }) => (place, true),
        _ => return Ok(None),
    };
    let source = Url::parse(source)?;
    let url = place.text(source.user().unwrap_or("postgres"), source.database());
    Ok(Some(Found { url, place, promoted, running: running_server(directory).is_some() }))
}
