//! The terminal: taken with care, given back whatever happens.
//!
//! A [`Guard`] holds raw mode and the alternate screen and gives them back when it is dropped. A panic gives them back
//! first and then says, in two lines, what happened and where the log is. [`crate::tui::run_drill`] watches SIGTERM and
//! SIGHUP and leaves in order; `^Z` gives the terminal back, stops the program, and takes it again when it goes on.
//!
//! A terminal throws away what it has not shown yet when somebody presses `^C` (`NOFLSH` in `termios(3)`): an impatient one
//! would lose the escapes that give it back, and the line that says how to go on. It keeps them until [`settle`].

use std::io::{self, BufWriter, Stdout, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once};

use crossterm::event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture};
use crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use crossterm::{cursor, execute, queue};
use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use ratatui::Terminal;
use ratatui::backend::{Backend, ClearType, CrosstermBackend};

use crate::mutant;

/// Whether the terminal is ours right now; the panic hook and the guard must agree who gives it back.
static HELD: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicBool = AtomicBool::new(false);
static LOG_FILE: Mutex<Option<PathBuf>> = Mutex::new(None);
static HOOK: Once = Once::new();
/// The terminal's settings as they were before it was first taken.
static FOUND: Mutex<Option<Termios>> = Mutex::new(None);

/// A frame leaves in one write, not in a line's worth of bytes at a time.
type Out = BufWriter<Stdout>;

/// Bytes of a whole frame of a large terminal, roughly.
const FRAME_BYTES: usize = 128 * 1024;

/// Holds the terminal.
pub struct Guard {
    terminal: Terminal<CrosstermBackend<Out>>,
    mouse: bool,
}

impl Guard {
    /// Takes the terminal: raw mode, alternate screen, bracketed paste, mouse when wanted.
    pub fn enter(mouse: bool) -> io::Result<Self> {
        // Under NO_COLOR crossterm writes `ESC[;m` for every colour, which wipes bold and reverse; the theme without
        // colour has none to write.
        crossterm::style::force_color_output(true);
        take(mouse)?;
        let out = BufWriter::with_capacity(FRAME_BYTES, io::stdout());
        match Terminal::new(CrosstermBackend::new(out)) {
            Ok(terminal) => Ok(Self { terminal, mouse }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Draws one frame between the marks of a synchronised update, so that no terminal shows half of it.
    pub fn draw(&mut self, render: impl FnOnce(&mut ratatui::Frame<'_>)) -> io::Result<()> {
        if !HELD.load(Ordering::SeqCst) {
            return Ok(());
        }
        queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
        let drawn = self.terminal.draw(render).map(|_| ());
        execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)?;
        drawn
    }

    /// Forgets what the screen shows; the next frame draws all of it.
    pub fn clear(&mut self) -> io::Result<()> {
        // Not `Terminal::clear`: it asks the terminal where the cursor is, and the answer goes to whoever reads keys.
        self.terminal.backend_mut().clear_region(ClearType::All)?;
        self.terminal.swap_buffers();
        Ok(())
    }

    /// Columns and rows.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }

    /// Takes the terminal once more: whoever stopped this program from outside may have left it in another state.
    pub fn take_again(&mut self) -> io::Result<()> {
        give_back();
        take(self.mouse)?;
        self.clear()
    }

    /// Gives the terminal back and stops this program, as `^Z` does. The SIGCONT that lets it go on is for the loop, which
    /// calls [`Self::take_again`]; until then nothing is drawn.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        settle();
        raise(Signal::SIGSTOP).map_err(io::Error::from)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

fn take(mouse: bool) -> io::Result<()> {
    keep_output();
    enable_raw_mode()?;
    HELD.store(true, Ordering::SeqCst);
    let mut out = io::stdout();
    let taken = execute!(out, EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
        .and_then(|()| if mouse { execute!(out, EnableMouseCapture) } else { Ok(()) });
    if taken.is_err() {
        give_back();
    }
    taken
}

/// Gives the terminal back, once. Errors have nowhere to go: the terminal may be gone.
fn give_back() {
    if !HELD.swap(false, Ordering::SeqCst) || mutant::removes("21d") {
        return;
    }
    let mut out = io::stdout();
    let _ = execute!(out, EndSynchronizedUpdate, DisableMouseCapture, DisableBracketedPaste);
    let _ = execute!(out, LeaveAlternateScreen, cursor::Show);
    let _ = disable_raw_mode();
    let _ = out.flush();
}

/// From here to [`settle`] a `^C` throws away nothing that is on its way to the screen.
fn keep_output() {
    let mut found = FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if found.is_none() && !mutant::removes("21e") {
        *found = tcgetattr(io::stdout()).ok();
        if let Some(mut kept) = found.clone() {
            kept.local_flags |= LocalFlags::NOFLSH;
            // Without it the terminal is as it ever was.
            let _ = tcsetattr(io::stdout(), SetArg::TCSANOW, &kept);
        }
    }
}

/// Sets the terminal as it was found: when all is said, and before the program stops.
pub fn settle() {
    if let Some(found) = FOUND.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        // It may be gone.
        let _ = tcsetattr(io::stdout(), SetArg::TCSANOW, &found);
    }
}

/// Installs the panic hook, the first time it is called; `log_file` is named in the message. The panic itself goes to
/// the log by `tracing`.
pub fn install_panic_hook(log_file: Option<PathBuf>) {
    *LOG_FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = log_file;
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            PANICKED.store(true, Ordering::SeqCst);
            give_back();
            let place = panic.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
            let words = panic.payload_as_str().unwrap_or("without words");
            tracing::error!(place, words, backtrace = %std::backtrace::Backtrace::force_capture(), "panic");
            let log = LOG_FILE.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            let _ = write!(io::stderr(), "{}", epitaph(words, &place, log.as_deref()));
        }));
    });
}

/// Whether any thread has panicked since the hook was installed; the screen is not ours any more then.
pub fn panicked() -> bool {
    PANICKED.load(Ordering::SeqCst)
}

fn epitaph(words: &str, place: &str, log: Option<&std::path::Path>) -> String {
    let log = log.map(|log| format!(" The log has the details: {}", log.display())).unwrap_or_default();
    format!(
        "lifeboat broke: {} ({place}).\n\
         What had been done is in the drill's journal; `lifeboat resume` goes on from there.{log}\n",
        super::text::clean(words)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_short_and_name_the_log() {
        let text = epitaph("index out of bounds", "src/x.rs:1", Some(std::path::Path::new("/var/log/lifeboat.log")));
        assert!(text.contains("lifeboat resume") && text.contains("/var/log/lifeboat.log"));
        assert_eq!(text.lines().count(), 2);
    }
}
