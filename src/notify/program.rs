//! A program that tells people.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Message;
use super::alert::one_line;
use super::send::Refused;
use crate::process::Spec;

/// Runs it with the message on standard input. Nothing of the message stands in its arguments.
pub(super) async fn run(argv: &[String], hidden: &[String], message: &Message, limit: Duration) -> Result<(), Refused> {
    let Some((program, args)) = argv.split_first() else { return Err(Refused::for_good("its argv is empty")) };
    let alert = &message.alert;
    let spec = Spec::new(program)
        .args(args)
        .inherit_env(hidden.iter().map(String::as_str))
        .env("LIFEBOAT_ALERT_STATUS", message.status.word())
        .env("LIFEBOAT_ALERT_KEY", alert.key())
        .env("LIFEBOAT_ALERT_NAME", &alert.name)
        .env("LIFEBOAT_ALERT_SEVERITY", alert.severity.word())
        .env("LIFEBOAT_ALERT_SERVICE", &alert.service)
        .env("LIFEBOAT_ALERT_ENVIRONMENT", &alert.environment)
        .env("LIFEBOAT_ALERT_SUBJECT", &alert.subject)
        .env("LIFEBOAT_ALERT_RUNBOOK_URL", message.link.as_deref().unwrap_or_default())
        .stdin(message.to_string());
    let cancel = CancellationToken::new();
    let mut running = std::pin::pin!(spec.capture(64 << 10, &cancel));
    let Ok(ended) = tokio::time::timeout(limit, &mut running).await else {
        cancel.cancel();
        let late = format!("it did not end within {} s", limit.as_secs());
        return Err(Refused::for_good(running.await.map_or_else(|error| error.to_string(), |_| late)));
    };
    // What it has done before it failed is unknown, so it is not run again.
    let ended = ended.map_err(|error| Refused::for_good(error.to_string()))?;
    if ended.end.success() {
        return Ok(());
    }
    let (err, out) = (ended.stderr_text(), ended.stdout_text());
    let said = err.lines().last().or(out.lines().last()).unwrap_or("it said nothing");
    Err(Refused::for_good(format!("{}: {}", ended.end, one_line(said))))
}
