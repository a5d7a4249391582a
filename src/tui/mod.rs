//! The terminal user interface: a stream of envelopes in, a sink of commands out.
//!
//! [`run_drill`] shows one drill, live or replayed. It takes a [`Session`]: what runs behind it, it cannot tell.

mod app;
pub mod format;
mod keymap;
mod markdown;
mod picker;
mod run;
mod session;
pub mod terminal;
mod text;
pub mod theme;
mod view;

pub use app::{App, Effect, Msg};
pub use run::{TuiError, run_drill};
pub use session::{Leave, Notice, Options, Player, PlayerAct, PlayerStatus, PointPreview, Preview, Session};
pub use text::clean;
pub use theme::{Depth, Theme, ThemeError, Themes};
