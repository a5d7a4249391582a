use super::*;

async fn run(spec: Spec) -> Captured {
    spec.capture(1 << 20, &CancellationToken::new()).await.expect("the child runs")
}

#[tokio::test]
async fn output_and_exit_code_come_back() {
    let captured = run(Spec::new("/bin/sh").args(["-c", "cat; echo err >&2; exit 3"]).stdin("hello")).await;
    assert_eq!(
        (captured.end, captured.stdout_text(), captured.stderr_text()),
        (End::Exited(3), "hello".to_owned(), "err".to_owned())
    );
}

fn names(captured: &Captured) -> Vec<String> {
    let text = captured.stdout_text();
    text.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
}

#[tokio::test]
async fn a_child_gets_little_of_our_environment_unless_it_is_to_inherit_it() {
    // The test runner's own: it must not reach a child that did not ask.
    let ours: Vec<String> = std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("CARGO")).collect();
    assert!(ours.len() > 2, "the test needs an environment to leave behind");
    let small = names(&run(Spec::new("env").env("ADDED", "1")).await);
    assert!(small.contains(&"ADDED".to_owned()) && small.contains(&"PATH".to_owned()), "{small:?}");
    let more: Vec<&String> = small
        .iter()
        .filter(|name| {
            !PASSED_ON.contains(&name.as_str()) && !name.starts_with("LC_") && *name != "ADDED" && *name != marked::MARK
        })
        .collect();
    assert_eq!(more, Vec::<&String>::new());

    let whole = names(&run(Spec::new("env").inherit_env([&ours[0]])).await);
    assert!(!whole.contains(&ours[0]) && ours[1..].iter().all(|name| whole.contains(name)), "{whole:?}");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = Spec::new("no-such-program-here").capture(1, &CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("`no-such-program-here` was not found"), "{error}");
}

#[tokio::test]
async fn row_24_cancelling_ends_the_grandchildren_too() {
    let cancel = CancellationToken::new();
    let (sender, mut receiver) = mpsc::channel(4);
    let spec = Spec::new("/bin/sh").args(["-c", "sleep 600 & echo $!; wait"]);
    let (end, grandchild) = tokio::join!(spec.stream(sender, &cancel, |_| {}), async {
        let (_, bytes) = receiver.recv().await.expect("the grandchild's pid");
        cancel.cancel();
        String::from_utf8(bytes).unwrap().trim().parse::<i32>().unwrap()
    });
    assert_eq!(end.unwrap(), End::Cancelled);
    // A zombie awaiting init still has an entry: what must not stay is a living process.
    let alive = || {
        let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        !(stat.is_empty() || stat.contains(") Z ") || stat.contains(") X "))
    };
    let gone = async {
        while alive() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the grandchild ends");
}
