use super::*;

#[test]
fn the_first_failure_decides_how_it_ends() {
    let mut report = Report::default();
    let took = Duration::from_millis(1);
    report.push(Row::new("a", took, Ok(Found::Fine("well".to_owned()))));
    assert!(!report.failed());

    let fault = |exit| Fault {
        exit,
        ..Fault::new("broken", "mend it")
    };
    report.push(Row::new("b", took, Err(fault(Exit::NotFound))));
    report.push(Row::new("c", took, Err(fault(Exit::Failure))));

    let failure = report.write(Format::Json).unwrap_err();
    assert_eq!(failure.exit, Exit::NotFound);
    assert_eq!(failure.message, "");
}

#[test]
fn every_step_has_a_name_of_its_own() {
    let mut names: Vec<_> = STEPS.iter().map(|step| step.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), STEPS.len());
}
