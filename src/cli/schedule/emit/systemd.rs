//! A service and a timer a schedule.

use super::Plan;
use crate::inventory::Schedule;

pub fn files(plan: &Plan<'_>) -> Vec<(String, String)> {
    let units = plan.inventory.schedules.iter().flat_map(|schedule| {
        let name = plan.name(schedule);
        [(format!("{name}.service"), service(plan, schedule)), (format!("{name}.timer"), timer(plan, schedule))]
    });
    units.collect()
}

fn service(plan: &Plan<'_>, schedule: &Schedule) -> String {
    let program = plan.program.display().to_string();
    let words: Vec<String> =
        std::iter::once(program).chain(plan.local_arguments(schedule)).map(|text| word(&text)).collect();
    let mut unit = format!(
        "[Unit]
Description=Lifeboat: {name} of {service} ({cadence}, {zone})
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart={command}
User={user}
TimeoutStartSec={timeout}
# the first signal goes to Lifeboat alone: it ends what it started, and records how
KillMode=mixed
TimeoutStopSec=300
StateDirectory=lifeboat
StateDirectoryMode=0700
UMask=0077
",
        name = plain(&schedule.name),
        service = plain(&plan.inventory.service),
        cadence = plain(&schedule.cadence.written),
        zone = schedule.cadence.zone,
        command = words.join(" "),
        user = plain(&plan.args.user),
        timeout = schedule.timeout.as_secs(),
    );
    if !plan.secrets.variables.is_empty() {
        let default = format!("/etc/lifeboat/{}.env", plan.inventory.service);
        let file = plan.args.environment_file.as_ref().map_or(default, |file| file.display().to_string());
        let names: Vec<&str> = plan.secrets.variables.iter().map(String::as_str).collect();
        unit += &format!("# holds {}; root's, mode 0600\nEnvironmentFile={}\n", plain(&names.join(", ")), word(&file));
    }
    for file in &plan.secrets.files {
        unit += &format!("# {} is read: the user above needs the right to\n", plain(&file.display().to_string()));
    }
    unit += "
# it restores databases: it gets what that takes, and not the whole machine
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=6
CPUWeight=50
MemoryHigh=75%
TasksMax=1024
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
";
    let state = (plan.state != std::path::Path::new(super::STATE)).then(|| plan.state.clone());
    for path in plan.written().into_iter().chain(state) {
        unit += &format!("ReadWritePaths={}\n", word(&format!("-{}", path.display())));
    }
    unit
}

fn timer(plan: &Plan<'_>, schedule: &Schedule) -> String {
    format!(
        "[Unit]
Description=Lifeboat: {} of {}, {}

[Timer]
OnCalendar={}
# a run that fell into a time without power is made up for
Persistent=true
AccuracySec=1min

[Install]
WantedBy=timers.target
",
        plain(&schedule.name),
        plain(&plan.inventory.service),
        plain(&schedule.cadence.written),
        schedule.cadence.on_calendar(),
    )
}

/// Text of a line of its own; specifiers mean nothing in it.
fn plain(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.replace('%', "%%")
}

/// One word of a command or of a list of paths.
fn word(text: &str) -> String {
    let text = text.replace('%', "%%").replace('$', "$$");
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,$".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        return text;
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
