//! The terminal user interface: a stream of envelopes in, a sink of commands out.
//!
//! [`run_drill`] shows one drill, live or replayed; [`home::run`] the screen that `lifeboat` without words opens;
//! [`plain::run`] is the same drill as lines of text. They take a [`Session`] or a plain model: what runs behind them they
//! cannot tell.

mod app;
pub mod format;
pub mod home;
mod keymap;
mod markdown;
mod moment;
mod picker;
pub mod plain;
mod price;
mod run;
mod session;
pub mod terminal;
mod text;
pub mod theme;
mod view;

pub use app::{App, Effect, Msg};
pub use run::{TuiError, run_drill};
pub use session::{Leave, Notice, Options, Player, PlayerAct, PlayerStatus, PointPreview, Preview, Session};
pub use text::{clean, hanging};
pub use theme::{Depth, Theme, ThemeError, Themes};
