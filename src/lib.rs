//! Lifeboat: the terminal an on-call engineer opens when the database is gone.
//!
//! It loads a runbook, walks the operator through it, finds the recovery point, restores PostgreSQL and Redis from
//! backups in object storage, cuts over, proves the service, times everything against RTO and RPO while it happens, and
//! leaves a signed report.
//!
//! # The house
//!
//! Every file has a room, rooms stand on floors, and imports run downwards only; rooms on one floor never import each
//! other. `tests/it/architecture.rs` reads every `crate::` path against this table.
//!
//! | floor | room | owns |
//! |---|---|---|
//! | 0 | [`mutant`] | defences that the tests may take away; nothing in the program that people use |
//! | 1 | [`clock`] | the only room that reads time or sleeps |
//! | 1 | [`secret`] | values that never print, and the redactor that knows them |
//! | 1 | [`digest`] | hashes of stored bytes |
//! | 2 | [`document`] | files that people write: spanned TOML, schema, problems with line, caret and hint |
//! | 2 | [`event`] | what happened ([`event::Event`]) and what the operator wants ([`event::Command`]) |
//! | 3 | [`runbook`] | the file as written → a model that cannot be invalid, every problem with line and caret |
//! | 4 | [`inventory`] | `lifeboat.toml`: systems, stores, contacts, objectives |
//! | 5 | [`drill`] | the pure fold of events: state, clocks, RPO, verdict |
//! | 5 | [`journal`] | append + fdatasync + hash chain, torn tail, output blobs, seal |
//! | 5 | [`store`] | a bucket by URL |
//! | 5 | [`process`] | child processes: groups, deadlines, an unprivileged user, their output as a stream |
//! | 6 | [`history`] | past runs as plain facts, out of their journals |
//! | 6 | [`notify`] | alerts to the sinks of the inventory, once; what was told to whom |
//! | 6 | [`system`] | PostgreSQL and Redis: identity, backup, restore, recover, check |
//! | 7 | [`recovery`] | the recovery window over all systems, and the plan for a target |
//! | 8 | [`action`] | one file a step kind |
//! | 8 | [`metrics`] | numbers for Prometheus, alert rules, a dashboard; what of it is alarming |
//! | 9 | [`engine`] | `decide`, the driver, the guard, resume; the socket by which views come and go |
//! | 9 | [`replay`] | paces a journal |
//! | 9 | [`report`] | a fold over the journal → Markdown, HTML, JSON; sign, verify |
//! | 9 | [`tui`] | a stream of envelopes in, a sink of commands out |
//! | 9 | [`sandbox`] | a whole incident on this machine: servers, application, ledger, damage |
//! | 10 | [`cli`] | the command line, wiring, logging, exit codes |
//!
//! # One event log, four uses
//!
//! ```text
//! key → Msg → Command ─┐
//! action's outcome ────┼→ driver → Event → journal (append, fdatasync) → DrillState::apply → publish
//! timer, signal ───────┘                                                      ├→ tui · plain printer · views that attach
//! recordings/*.jsonl → replay ─────── the same stream of envelopes ───────────┤
//!                                                                             └→ report → sign
//! ```
//!
//! An effect starts only after its [`event::Event::StepStarted`] is durable, and what the operator sees is durable. A step
//! that started and has no outcome is *in doubt*. Crash resume, audit, report and replay read the same journal.

pub mod action;
pub mod cli;
pub mod clock;
pub mod digest;
pub mod document;
pub mod drill;
pub mod engine;
pub mod event;
pub mod history;
pub mod inventory;
pub mod journal;
pub mod metrics;
pub mod mutant;
pub mod notify;
pub mod process;
pub mod recovery;
pub mod replay;
pub mod report;
pub mod runbook;
pub mod sandbox;
pub mod secret;
pub mod store;
pub mod system;
pub mod tui;
