//! The linear mode: the same drill as lines of text, for screen readers, dumb terminals and logs. No cursor movement, no
//! colour; questions are answered by words.

mod ask;
mod linear;
mod printer;

#[cfg(test)]
mod tests;

use std::io::{self, BufRead, Write};

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::run::{Signals, Told, TuiError};
use super::session::{Leave, Notice, Session};
use linear::{Linear, Out};

pub use printer::Printer;

/// Runs a drill by prompts on standard input and output, until it has ended or the operator leaves.
pub async fn run(session: Session) -> Result<Leave, TuiError> {
    let (sender, lines) = mpsc::unbounded_channel();
    // A thread of its own, never joined: a read from a terminal cannot be cancelled and must not hold up the end.
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    drive(session, lines, io::stdout()).await
}

/// As [`run`], over any source of lines and any sink.
async fn drive(
    mut session: Session,
    mut lines: mpsc::UnboundedReceiver<String>,
    mut out: impl Write,
) -> Result<Leave, TuiError> {
    let mut signals = Signals::watch().map_err(TuiError::Signal)?;
    let replay = session.player.is_some();
    let mut linear =
        Linear::new(session.state.clone(), session.options.clone(), std::sync::Arc::clone(&session.preview), replay);
    let begin = linear.begin();
    if let Some(leave) = perform(begin, &session, &mut out).await? {
        return Ok(leave);
    }
    let (mut stream_open, mut notices_open) = (true, true);
    loop {
        let over = linear.state.finished.is_some();
        let outs = tokio::select! {
            biased;
            told = signals.any() => match told {
                Told::End => return Ok(Leave::Terminated),
                Told::Interrupt => linear.interrupt(),
                Told::GoOn => Vec::new(),
            },
            line = lines.recv() => match line {
                Some(line) => linear.line(&line, session.clock.now()),
                // Nobody can answer any more.
                None => return Ok(if over { Leave::Finished } else { Leave::Left }),
            },
            envelope = session.envelopes.recv(), if stream_open => match envelope {
                Ok(envelope) if envelope.seq == linear.state.next_seq => linear.envelope(&envelope),
                Ok(envelope) if envelope.seq < linear.state.next_seq => Vec::new(),
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    let mut outs = linear.say(["(some lines were left out)".to_owned()]);
                    outs.extend(linear.snapshot((session.snapshot)()));
                    outs
                }
                Err(RecvError::Closed) => {
                    stream_open = false;
                    match over {
                        true => Vec::new(),
                        false => linear.say(["The engine has ended before the drill did; the log says why.".to_owned()]),
                    }
                }
            },
            notice = session.notices.recv(), if notices_open => match notice {
                Some(Notice::Refused(text)) => linear.say([format!("✗ {text}")]),
                Some(Notice::Say(text)) => linear.say([text]),
                Some(Notice::After(text)) => {
                    let mut outs = linear.say(text.lines().map(str::to_owned));
                    outs.push(Out::Leave(Leave::Finished));
                    outs
                }
                None => {
                    notices_open = false;
                    Vec::new()
                }
            },
        };
        if let Some(leave) = perform(outs, &session, &mut out).await? {
            return Ok(leave);
        }
        // The drill has ended and nothing more will be said of it.
        if linear.state.finished.is_some() && !stream_open && !notices_open {
            return Ok(Leave::Finished);
        }
    }
}

async fn perform(outs: Vec<Out>, session: &Session, out: &mut impl Write) -> Result<Option<Leave>, TuiError> {
    for item in outs {
        match item {
            Out::Say(line) => writeln!(out, "{line}").map_err(TuiError::Draw)?,
            Out::Send(command) => {
                // The driver is gone only when the drill is, and that is said by the stream's end.
                let _ = session.commands.send(command).await;
            }
            Out::Leave(leave) => return Ok(Some(leave)),
        }
    }
    out.flush().map_err(TuiError::Draw)?;
    Ok(None)
}
