//! Lines of a crontab.

use super::Plan;

pub fn lines(plan: &Plan<'_>) -> String {
    let service = line(&plan.inventory.service);
    let mut text = format!(
        "# Lifeboat: what runs by itself for {service}. Install it with: crontab FILE
# CRON_TZ is cronie's; Debian's own cron goes by the machine's zone, whatever stands here.
SHELL=/bin/sh
MAILTO={}
",
        line(&plan.args.mail_to)
    );
    if !plan.secrets.variables.is_empty() {
        let names: Vec<&str> = plan.secrets.variables.iter().map(String::as_str).collect();
        text += &format!("# {} come from the file that each line reads\n", line(&names.join(", ")));
    }
    for schedule in &plan.inventory.schedules {
        let (fields, days) = schedule.cadence.crontab();
        let zone = &schedule.cadence.zone;
        let lock = plan.state.join(format!("{}.lock", schedule.name));
        let mut command = String::new();
        if let Some((from, to)) = days {
            // Cron takes a day of the month and a weekday for alternatives.
            command +=
                &format!("day=$(TZ={zone} date +%d) && [ \"$day\" -ge {from} ] && [ \"$day\" -le {to} ] || exit 0; ");
        }
        if !plan.secrets.variables.is_empty() {
            let default = format!("/etc/lifeboat/{}.env", plan.inventory.service);
            let file = plan.args.environment_file.as_ref().map_or(default, |file| file.display().to_string());
            command += &format!("set -a; . {}; set +a; ", quoted(&file));
        }
        // Before the first run there is no place for the lock.
        let state = plan.state.display().to_string();
        command += &format!("mkdir -p -m 700 {} && ", quoted(&state));
        // A run that takes longer than its cadence is not begun twice; one that hangs is ended as a person would.
        let words = ["flock".to_owned(), "-n".to_owned(), lock.display().to_string(), "timeout".to_owned()].into_iter();
        let words = words.chain(["--kill-after=300".to_owned(), schedule.timeout.as_secs().to_string()]);
        let words = words.chain([plan.program.display().to_string()]).chain(plan.local_arguments(schedule));
        command += &words.map(|word| quoted(&word)).collect::<Vec<_>>().join(" ");
        // To cron an unescaped % is the end of the line.
        let command = command.replace('%', "\\%");
        text += &format!(
            "\n# {}: {}\nCRON_TZ={zone}\n{fields} {}\n",
            line(&schedule.name),
            line(&schedule.cadence.written),
            line(&command)
        );
    }
    text
}

fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A word that means nothing but itself to a shell.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./=:@+,".contains(c);
    match !word.is_empty() && word.chars().all(safe) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}
