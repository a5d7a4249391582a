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

#[tokio::test]
async fn a_missing_program_is_named() {
    let error = Spec::new("no-such-program-here").capture(1, &CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("`no-such-program-here` was not found"), "{error}");
}

#[tokio::test]
async fn cancelling_ends_the_grandchildren_too() {
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
