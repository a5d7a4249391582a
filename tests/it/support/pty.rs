//! The real program in a real terminal: a pty on one side, a terminal emulator on the other.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZeroU16;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use lifeboat::clock::boot_now;

/// A program that believes it has a terminal of its own.
pub struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<(Mutex<Screen>, Condvar)>,
}

struct Screen {
    parser: vt100::Parser,
    /// Everything that was written, for tests about escapes.
    raw: Vec<u8>,
    ended: bool,
}

fn cells(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("a terminal has rows and columns")
}

impl Terminal {
    /// Starts `command` in a terminal of so many columns and rows.
    pub fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).expect("a pty");
        for end in [&pty.master, &pty.slave] {
            // What the program starts would hold the terminal open, and its end would never be seen.
            nix::fcntl::fcntl(end, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC)).expect("a flag");
        }
        let clone = |fd: &OwnedFd| fd.try_clone().expect("a copy of the pty's end");
        command.stdin(clone(&pty.slave)).stdout(clone(&pty.slave)).stderr(clone(&pty.slave));
        command
            .env("TERM", "xterm-256color")
            .env("COLORTERM", "truecolor")
            .env("LANG", "C.UTF-8")
            .env_remove("NO_COLOR");
        // SAFETY: both calls are async-signal-safe and touch no memory of ours.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                match nix::libc::ioctl(0, nix::libc::TIOCSCTTY as _, 0) {
                    -1 => Err(std::io::Error::last_os_error()),
                    _ => Ok(()),
                }
            });
        }
        let child = command.spawn().expect("the program starts");
        // The command holds copies of the terminal's end: they must go, or its end would never be seen.
        drop(command);
        drop(pty.slave);
        let parser = vt100::Parser::new(cells(rows), cells(columns), 0);
        let screen = Arc::new((Mutex::new(Screen { parser, raw: Vec::new(), ended: false }), Condvar::new()));
        let (shared, mut output) = (screen.clone(), File::from(clone(&pty.master)));
        std::thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            loop {
                let n = output.read(&mut buffer).unwrap_or(0);
                let mut screen = shared.0.lock().expect("the screen's lock");
                screen.parser.process(&buffer[..n]);
                screen.raw.extend_from_slice(&buffer[..n]);
                screen.ended = n == 0;
                shared.1.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        Self { child, keys: File::from(pty.master), screen }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    pub fn resize(&mut self, columns: u16, rows: u16) {
        let size = nix::pty::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        self.screen.0.lock().expect("the screen's lock").parser.screen_mut().set_size(cells(rows), cells(columns));
        // SAFETY: TIOCSWINSZ reads a Winsize, and this is one.
        let done = unsafe { nix::libc::ioctl(self.keys.as_raw_fd(), nix::libc::TIOCSWINSZ, &size) };
        assert_eq!(done, 0, "the terminal is resized");
    }

    /// What the screen shows.
    pub fn text(&self) -> String {
        self.screen.0.lock().expect("the screen's lock").parser.screen().contents()
    }

    /// Whether the program holds the terminal in raw mode: no echo, no line editing.
    pub fn is_raw(&self) -> bool {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        let flags = tcgetattr(&self.keys).expect("the terminal's settings").local_flags;
        !flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    /// Whether a ^C leaves alone what the terminal has not shown yet.
    pub fn keeps_output(&self) -> bool {
        use nix::sys::termios::{LocalFlags, tcgetattr};
        tcgetattr(&self.keys).expect("the terminal's settings").local_flags.contains(LocalFlags::NOFLSH)
    }

    /// Fails unless the program, which has ended, left the terminal as it found it.
    pub fn assert_given_back(&self) {
        // Its last bytes may still be on their way.
        let (screen, changed) = &*self.screen;
        let screen = screen.lock().expect("the screen's lock");
        let read = changed.wait_timeout_while(screen, Duration::from_secs(20), |screen| !screen.ended);
        let screen = read.expect("the screen's lock").0;
        let shown = screen.parser.screen();
        let kept = [self.is_raw(), shown.alternate_screen(), shown.hide_cursor(), shown.bracketed_paste()];
        let last = String::from_utf8_lossy(&screen.raw[screen.raw.len().saturating_sub(300)..]).into_owned();
        assert_eq!(
            kept, [false; 4],
            "the terminal was not given back (raw, other screen, no cursor, pastes marked); its last bytes: {last:?}"
        );
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("the program can be asked for").is_some()
    }

    /// Every byte that was written so far.
    pub fn raw(&self) -> Vec<u8> {
        self.screen.0.lock().expect("the screen's lock").raw.clone()
    }

    /// Waits until the screen shows `text`; returns how long it took. Fails with the screen after 60 s.
    pub fn wait_for(&self, text: &str) -> Duration {
        self.wait_until(text, |screen| screen.contains(text))
    }

    pub fn wait_until(&self, what: &str, holds: impl Fn(&str) -> bool) -> Duration {
        let began = boot_now();
        let (screen, changed) = &*self.screen;
        let mut screen = screen.lock().expect("the screen's lock");
        loop {
            let text = screen.parser.screen().contents();
            if holds(&text) {
                return boot_now() - began;
            }
            let left = Duration::from_secs(60).saturating_sub(boot_now() - began);
            assert!(!left.is_zero() && !screen.ended, "the screen never showed {what}:\n{text}");
            screen = changed.wait_timeout(screen, left).expect("the screen's lock").0;
        }
    }

    /// Waits for the end of the program.
    pub fn end(&mut self) -> ExitStatus {
        self.child.wait().expect("the program ends")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has ended already in a test that passes.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
