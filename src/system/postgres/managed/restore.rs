//! A restore into a new instance: ordered once, waited for, made like its source, compared.
//!
//! One loop looks at the instance and does what is missing. It keeps nothing that the cloud does not tell it, so that it
//! can be ended anywhere and begun again.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use tokio_util::sync::CancellationToken;

use super::answer::shown;
use super::tool::{Complaint, Trouble};
use super::{Instance, Managed, Moment, Order, Owner, Provider, State, differences};
use crate::clock;
use crate::event::{Failure, Progress, Unit};
use crate::system::postgres::Reporter;

/// How often and how long an instance is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Between the first two looks; it doubles up to `longest`.
    pub first: Duration,
    pub longest: Duration,
    /// Until an ordered instance can be seen.
    pub appears: Duration,
    /// Until what was changed on an instance that is ready can be seen.
    pub settles: Duration,
    /// Of everything.
    pub whole: Duration,
    /// Looks in a row that the cloud may leave unanswered.
    pub misses: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(250),
            longest: Duration::from_secs(15),
            appears: Duration::from_secs(15 * 60),
            settles: Duration::from_secs(10 * 60),
            whole: Duration::from_secs(24 * 3600),
            misses: 20,
        }
    }
}

/// A restore to be done.
pub struct Restore {
    pub managed: Managed,
    pub moment: Moment,
    pub owner: Owner,
    /// How this machine and the clients reach the source.
    pub source: (String, u16),
    pub patience: Patience,
    pub cancel: CancellationToken,
    pub report: Reporter,
}

/// A new instance that is ready, and like its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub instance: String,
    /// Where clients reach it, in the way in which they reach the source.
    pub host: String,
    pub port: u16,
    /// Settings that were compared with the source's.
    pub compared: usize,
    /// In which of them it is not like its source.
    pub differs: Option<Failure>,
    pub seconds: u64,
    /// An earlier attempt had ordered it.
    pub found: bool,
}

/// A restore at work.
struct Work<'a> {
    restore: &'a Restore,
    provider: &'a dyn Provider,
    name: String,
    began: Duration,
    said: Option<String>,
}

impl Restore {
    pub async fn run(self) -> Result<Restored, Failure> {
        let provider = self.managed.provider();
        let name = self.managed.new_name(&self.owner, self.moment);
        let began = clock::boot_now();
        Work { restore: &self, provider: provider.as_ref(), name, began, said: None }.run().await
    }
}

impl Work<'_> {
    async fn run(mut self) -> Result<Restored, Failure> {
        let Restore { managed, report, .. } = self.restore;
        let source = managed.source(self.provider, &self.restore.cancel).await?;
        let found = self.look().await.map_err(|complaint| complaint.fails(self.what()))?;
        let found = match found {
            Some(found) => {
                self.is_own(&found)?;
                true
            }
            None => self.order(&source).await?,
        };
        if found {
            report.say(format!("{} is there already: an earlier attempt ordered it", self.name)).await;
        }
        let (new, differs) = self.until_ready(&source).await?;
        let (host, port) = self.address(&source, &new).ok_or_else(|| {
            Failure::new(self.what(), "it is ready, and its cloud tells no address of it that could be one")
                .now(format!("Look at {} by hand, then retry.", self.name))
        })?;
        let seconds = clock::boot_now().saturating_sub(self.began).as_secs();
        // What the source has none of is the same everywhere.
        let compared = source.settings.values().filter(|value| !value.is_empty()).count();
        Ok(Restored { instance: self.name, host, port, compared, differs, seconds, found })
    }

    /// That kind of address by which the source is reached, where it can be told; else the first.
    fn address(&self, source: &Instance, new: &Instance) -> Option<(String, u16)> {
        let (host, port) = &self.restore.source;
        let kind = source.endpoints.iter().find(|(_, endpoint)| endpoint.host == *host).map(|(kind, _)| kind);
        let same = new.endpoints.iter().find(|(other, _)| Some(other) == kind);
        let (_, endpoint) = same.or(new.endpoints.first())?;
        Some((endpoint.host.clone(), endpoint.port.unwrap_or(*port)))
    }

    fn order_of(&self) -> Order<'_> {
        Order { name: &self.name, moment: self.restore.moment, owner: &self.restore.owner }
    }

    fn what(&self) -> String {
        format!("{} was not restored to {}", self.restore.managed.title(), self.name)
    }

    async fn look(&self) -> Result<Option<Instance>, Complaint> {
        self.provider.describe(&self.name, &self.restore.cancel).await
    }

    /// Under this name there may be nothing but what this very restore made.
    fn is_own(&self, found: &Instance) -> Result<(), Failure> {
        match &found.drill {
            Some(drill) if *drill != self.restore.owner.drill => {
                Err(Failure::new(self.what(), format!("there is a {} already, and drill {drill} made it", self.name))
                    .now("Look at it by hand: it is not touched."))
            }
            _ => Ok(()),
        }
    }

    /// Whether an earlier attempt had ordered it. What is ordered is not taken back when this program is ended: the call is
    /// short, and half of it nobody could judge.
    async fn order(&self, source: &Instance) -> Result<bool, Failure> {
        let Restore { report, .. } = self.restore;
        self.possible(source).await?;
        let args = self.provider.create(source, &self.order_of()).map_err(|why| {
            Failure::new(self.what(), why).now("Look at the source's settings by hand: nothing was ordered.")
        })?;
        report.say(format!("ordering {} of {}", self.name, self.restore.managed.of.by.title())).await;
        if self.restore.cancel.is_cancelled() {
            return Err(self.interrupted(false));
        }
        match self.provider.tool().call(&args, &CancellationToken::new()).await {
            Ok(_) => Ok(false),
            // It was ordered by an attempt of which no answer came.
            Err(complaint) if complaint.trouble == Trouble::Taken => match self.look().await {
                Ok(Some(found)) => self.is_own(&found).map(|()| true),
                _ => Err(complaint.fails(self.what())),
            },
            Err(complaint) => Err(complaint.fails(self.what())),
        }
    }

    async fn possible(&self, source: &Instance) -> Result<(), Failure> {
        let Moment::At(time) = self.restore.moment else { return Ok(()) };
        let reported = self.provider.window(source, &self.restore.cancel).await;
        let reported = reported.map_err(|complaint| complaint.fails(self.what()))?;
        for warning in reported.warnings {
            self.restore.report.say(warning).await;
        }
        let stamp = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
        let refused = |why: String, now: &str| Err(Failure::new(self.what(), why).now(now));
        match (reported.earliest, reported.latest) {
            (Some(earliest), _) if time < earliest => refused(
                format!("{} lies before the earliest point that can be restored to, {}", stamp(time), stamp(earliest)),
                "Choose a later recovery point.",
            ),
            (_, Some(latest)) if time > latest => refused(
                format!("{} lies behind the latest point that can be restored to, {}", stamp(time), stamp(latest)),
                "It moves on every few minutes: wait and retry, or choose an earlier recovery point.",
            ),
            _ => Ok(()),
        }
    }

    /// Looks until the instance is ready, repairs what a restore leaves out, and compares. What differs in the end
    /// comes along.
    async fn until_ready(&mut self, source: &Instance) -> Result<(Instance, Option<Failure>), Failure> {
        let patience = self.restore.patience;
        let (mut pause, mut missed, mut absent) = (patience.first, 0, None);
        // Since the last change of an instance that was ready; repairs that were ordered.
        let (mut changed, mut ordered) = (None, Vec::new());
        // Why the last try of a repair is to be made again.
        let mut busy: Option<String> = None;
        loop {
            match self.look().await {
                Err(_) if self.restore.cancel.is_cancelled() => return Err(self.interrupted(true)),
                Err(complaint) if complaint.may_pass() && missed < patience.misses => {
                    missed += 1;
                    self.say(format!("no answer, asking again: {complaint}")).await;
                }
                Err(complaint) => return Err(complaint.fails(self.what())),
                Ok(None) => {
                    let since = *absent.get_or_insert_with(clock::boot_now);
                    if clock::boot_now().saturating_sub(since) > patience.appears {
                        return Err(self.never_appeared());
                    }
                    self.say("ordered, and not to be seen yet".to_owned()).await;
                }
                Ok(Some(new)) => {
                    (missed, absent) = (0, None);
                    match &new.state {
                        State::Broken(why) => return Err(self.broken(why)),
                        State::Working(word) => {
                            changed = None;
                            self.say(word.clone()).await;
                        }
                        State::Ready => {
                            let repairs = self.provider.repairs(source, &new, &self.order_of());
                            if let Some(repair) = repairs.iter().find(|repair| !ordered.contains(*repair)) {
                                self.say(busy.take().unwrap_or_else(|| repair.does.clone())).await;
                                let (tool, none) = (self.provider.tool(), CancellationToken::new());
                                match tool.call_either(&repair.args, repair.older.as_deref(), &none).await {
                                    // What was just made may be busy, and for long.
                                    Err(complaint) if complaint.may_pass() => {
                                        let again = format!("{}: to be tried again: {complaint}", repair.does);
                                        self.say(again.clone()).await;
                                        busy = Some(again);
                                    }
                                    Err(complaint) if complaint.trouble != Trouble::Taken => {
                                        return Err(complaint.fails(self.unlike(&repair.does)));
                                    }
                                    // Taken: of an attempt of which no answer came.
                                    _ => {
                                        ordered.push(repair.clone());
                                        pause = patience.first;
                                    }
                                }
                                changed = None;
                            } else {
                                let differences = differences(source, &new, self.provider.essential());
                                if differences.is_empty() && repairs.is_empty() {
                                    return Ok((new, None));
                                }
                                let since = *changed.get_or_insert_with(clock::boot_now);
                                let waited = clock::boot_now().saturating_sub(since);
                                if ordered.is_empty() || waited > patience.settles {
                                    let failure = self.differs(&differences);
                                    return Ok((new, Some(failure)));
                                }
                                self.say("waiting until it shows what was changed".to_owned()).await;
                            }
                        }
                    }
                }
            }
            if clock::boot_now().saturating_sub(self.began) > patience.whole {
                return Err(self.too_long());
            }
            tokio::select! {
                () = clock::sleep(pause) => {}
                () = self.restore.cancel.cancelled() => return Err(self.interrupted(true)),
            }
            pause = (pause * 2).min(patience.longest);
        }
    }

    /// Progress at every look, a line when something is new.
    async fn say(&mut self, state: String) {
        let Restore { report, managed, .. } = self.restore;
        report.progress(Progress {
            lane: managed.of.by.title().to_owned(),
            done: clock::boot_now().saturating_sub(self.began).as_secs(),
            total: None,
            unit: Unit::Seconds,
            position: Some(state.clone()),
            rate: None,
            eta_seconds: None,
        });
        if self.said.as_ref() != Some(&state) {
            report.say(format!("{}: {state}", self.name)).await;
            self.said = Some(state);
        }
    }

    fn interrupted(&self, ordered: bool) -> Failure {
        let cloud = self.restore.managed.of.by.title();
        match ordered {
            false => Failure::new(self.what(), "it was ended before anything was ordered"),
            true => Failure::new(
                format!("{} is not ready yet", self.name),
                format!("this program was ended; {cloud} was not told, and goes on making it"),
            )
            .now(format!(
                "Go on with `lifeboat resume`, or retry: it is found again under its name, and no second one is made. If \
                 nobody wants it any more, remove it by hand: {}",
                self.provider.removal(&self.name)
            )),
        }
    }

    fn never_appeared(&self) -> Failure {
        let minutes = self.restore.patience.appears.as_secs() / 60;
        Failure::new(self.what(), format!("it was ordered, and in {minutes} minutes nothing of that name came to be"))
            .now("Read what the cloud's own log says of the order, then retry: nothing is made twice.")
    }

    fn too_long(&self) -> Failure {
        let hours = self.restore.patience.whole.as_secs() / 3600;
        let last = self.said.as_ref().map_or_else(String::new, |said| format!("; at last: {said}"));
        Failure::new(format!("{} is not ready yet", self.name), format!("it was waited for for {hours} hours{last}"))
            .now("Look at it by hand; retry to go on waiting: no second one is made.")
    }

    fn broken(&self, why: &str) -> Failure {
        Failure::new(self.what(), format!("{} says that it is {why}", self.restore.managed.of.by.title())).now(format!(
            "Look at {} by hand. To restore again into another one, remove it ({}) and retry.",
            self.name,
            self.provider.removal(&self.name)
        ))
    }

    fn unlike(&self, does: &str) -> String {
        format!("{} is not like its source: {does} was refused", self.name)
    }

    fn differs(&self, differences: &[(String, String, String)]) -> Failure {
        let or_none = |text: &str| if text.is_empty() { "none".to_owned() } else { shown(text) };
        let all = differences.iter().map(|(name, source, new)| match source == new {
            true => format!("{} is not told", shown(name)),
            false => format!("{} is {} and was {}", shown(name), or_none(new), or_none(source)),
        });
        let all: Vec<String> = all.collect();
        Failure::new(format!("{} is not like its source", self.name), all.join("; ")).now(
            "Put that right on the new instance by hand, then retry: it is compared again, and no second one is made. Or skip \
             the step with the reason why it may differ: later steps use it as it is.",
        )
    }
}
