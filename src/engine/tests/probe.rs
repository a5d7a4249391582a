//! What happened to a step that a crash cut off: its probe is asked, and what still runs of it is looked for.

use super::*;

/// A step that logs, was cut off, and has a probe that looks for the file `happened`.
fn probed(rest: &str) -> Bench {
    let bench = Bench::new(&logs("pay", &format!("probe = [\"test\", \"-e\", \"{{dir}}/happened\"]\n{rest}")));
    cut_off(&bench, [started("pay", 1, false)]);
    bench
}

#[tokio::test]
async fn what_its_probe_knows_to_have_happened_is_not_repeated() {
    let bench = probed("idempotent = true");
    std::fs::write(bench.path().join("happened"), "").unwrap();
    let (driver, handle) = bench.opening(Some(Unattended::default())).resume(bench.dir()).unwrap();
    assert_eq!(driver.run().await.unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(bench.file("log"), "");
    let attempts = &handle.feed.snapshot().steps[0].attempts;
    assert_eq!(attempts.iter().map(|attempt| attempt.probe).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn what_its_probe_does_not_find_is_repeated_when_it_may_be_and_else_asked_about() {
    let bench = probed("idempotent = true");
    let (driver, _handle) = bench.opening(Some(Unattended::default())).resume(bench.dir()).unwrap();
    assert_eq!(driver.run().await.unwrap(), RunEnd::Finished(Verdict::Passed));
    assert_eq!(bench.file("log"), "pay\n");

    let bench = probed("");
    let unattended = Unattended { yes: true, ..Unattended::default() };
    let (driver, handle) = bench.opening(Some(unattended)).resume(bench.dir()).unwrap();
    let end = driver.run().await.unwrap();
    assert!(matches!(&end, RunEnd::NeedsPerson { step, .. } if step == "pay"), "{end:?}");
    assert_eq!(bench.file("log"), "");
    let state = handle.feed.snapshot();
    let Some(Ask::InDoubt { why }) = state.ask_of(0) else { panic!("{:?}", state.steps[0]) };
    assert!(why.contains("its probe does not say that it was done"), "{why}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn nothing_is_repeated_beside_what_still_runs_of_it() {
    let bench = probed("idempotent = true");
    std::fs::write(bench.path().join("happened"), "").unwrap();
    let dir = bench.dir();
    let drill = Journal::read(&dir.journal()).unwrap().envelopes[0].event.clone();
    let Event::DrillOpened { opening } = drill else { panic!() };
    let mut left = std::process::Command::new("sleep");
    let mut left = left.arg("600").env("LIFEBOAT_DRILL", &opening.drill).env("LIFEBOAT_STEP", "pay").spawn().unwrap();
    let (driver, handle) = bench.opening(None).resume(dir).unwrap();
    let run = tokio::spawn(driver.run());
    let state = watch(&handle, |state| state.ask_of(0).is_some()).await;
    left.kill().and_then(|()| left.wait()).unwrap();
    let Some(Ask::InDoubt { why }) = state.ask_of(0) else { panic!("{:?}", state.ask_of(0)) };
    assert!(why.contains(&left.id().to_string()), "{why}");
    assert_eq!((bench.file("log").as_str(), state.steps[0].attempts.len()), ("", 1));
    handle.leave.cancel();
    assert_eq!(run.await.unwrap().unwrap(), RunEnd::Left);
}
