use super::*;

fn run(took: f64) -> Past {
    Past {
        drill: "019a".to_owned(),
        started: DateTime::UNIX_EPOCH,
        mode: Mode::Drill,
        verdict: Some(if took > 3600.0 { Verdict::ObjectiveMissed } else { Verdict::Passed }),
        rto_seconds: Some(took),
        rto_objective_seconds: Some(3600.0),
        recovered: true,
    }
}

fn lost() -> Past {
    Past { verdict: Some(Verdict::Failed), recovered: false, ..run(5.0) }
}

#[test]
fn the_trend_says_what_a_person_wants_to_know() {
    let told = |runs: &[Past]| sentence(runs);
    assert_eq!(told(&[run(600.0)]), "The last recovery took 10 min; 0 of 1 took longer than the 1 h allowed.");
    assert_eq!(
        told(&[run(600.0), run(900.0)]),
        "The last recovery took 15 min, 50 % more than the one before; 0 of 2 took longer than the 1 h allowed."
    );
    assert_eq!(
        told(&[run(1200.0), run(4000.0), run(1000.0), lost(), run(600.0)]),
        "The last recovery took 10 min, 50 % less than the median of the 3 before; 1 of 5 took longer than the 1 h \
         allowed, 1 did not recover."
    );
    assert_eq!(
        told(&[run(600.0), lost()]),
        "The last run did not recover; the recovery before it took 10 min; 0 of 2 took longer than the 1 h allowed, \
         1 did not recover."
    );
    assert_eq!(told(&[lost()]), "The only run ended without a measured recovery.");
    assert_eq!(told(&[Past { verdict: None, ..run(1.0) }]), "No run has ended yet.");
    let free = Past { rto_objective_seconds: None, ..run(61.0) };
    assert_eq!(told(&[free]), "The last recovery took 1 min 01 s; there is no objective.");
}

#[test]
fn the_line_of_signs_stands_against_the_objective() {
    let runs = [run(1.0), run(1800.0), run(3599.0), run(3601.0), lost(), Past { verdict: None, ..run(1.0) }];
    assert_eq!(sparkline(&runs, false), "▁▄▇█✗");
    assert_eq!(sparkline(&runs, true), "_-+#x");
}

#[test]
fn the_chart_has_the_objective_in_its_place() {
    assert!(chart(&[run(60.0)]).is_none(), "one run is no trend");
    let chart = chart(&[run(1800.0), lost(), run(3600.0)]).unwrap();
    let classes: Vec<_> = chart.runs.iter().map(|dot| (dot.class, dot.own)).collect();
    assert_eq!(classes, [("met", false), ("lost", false), ("met", true)]);
    let target = chart.target.unwrap();
    assert_eq!(chart.runs[2].y, target.y, "a recovery as long as allowed lies on the line");
    let half = f64::midpoint(target.y, chart.bottom);
    assert!((chart.runs[0].y - half).abs() <= 0.1, "{} is not {half}", chart.runs[0].y);
    assert_eq!(chart.line.split(' ').count(), 2, "the line leaves out what did not recover");
    assert!(chart.runs.iter().all(|dot| (LEFT..=RIGHT).contains(&dot.x) && (TOP..=BOTTOM).contains(&dot.y)));
}
