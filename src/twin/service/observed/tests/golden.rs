//! Pages of every version ever written.

use super::*;

/// What lies in the pages of `tests/golden/observed-*.bin`.
fn ever_since() -> Observed {
    let mut observed = Observed::default();
    for round in 0..200_u64 {
        let mut batch = batch(if round < 150 { "1" } else { "2" });
        for pair in 0..3 {
            span(&mut batch, &format!("GET /{pair}"), at(round * 20_000), 1 + round * 7 % 90, round.is_multiple_of(10));
        }
        for number in 0..4_u64 {
            let value = num::real((round * 31 + number * 7) % 100);
            point(&mut batch, &format!("level {number}"), number, round * 20_000, Value::Gauge(value));
        }
        let total = Value::Sum { value: num::real(round), temporality: Temporality::Cumulative, monotonic: true };
        point(&mut batch, "jobs", 9, round * 20_000, total);
        let peer = batch.symbols.intern("payments");
        batch.spans.iter_mut().for_each(|span| span.peer = Some(Peer { kind: PeerKind::Service, name: peer }));
        let (body, severity) = ("it broke".into(), Severity::Error);
        batch.logs.push(LogSample { time: at(round), severity, body, exception: None, trace_id: None });
        fold(&mut observed, &batch, round * 20_000);
    }
    observed
}

#[test]
fn pages_of_version_1_are_read_as_they_were_meant() {
    let written = ever_since();
    let back = Observed::restored(&golden_pages(1, &["streams", "operations", "rest", "series-0"]));
    let (written, back) = (written.view(at(4_000_000)), back.view(at(4_000_000)));
    assert_eq!((back.samples, back.logs, &back.edges), (written.samples, written.logs, &written.edges));
    assert_eq!((back.operations.len(), back.series.len()), (6, 5));
    for (back, written) in back.operations.iter().zip(&written.operations) {
        assert_eq!((back.count, back.errors, back.sum_s), (written.count, written.errors, written.sum_s));
        assert_eq!((&back.ever, back.p99_s), (&written.ever, None), "of the last minutes nothing was kept then");
    }
    for (back, written) in back.series.iter().zip(&written.series) {
        assert_eq!((&back.name, back.last, back.last_at), (&written.name, written.last, written.last_at));
    }
    let of_service = |view: &BehaviourView| view.baselines.iter().filter(|line| !line.key.contains(' ')).count();
    assert_eq!((of_service(&back), of_service(&written)), (2, 2));
    assert!(back.baselines.iter().filter(|line| !line.key.contains(' ')).all(|line| line.expected > 0.0));
}

#[test]
fn what_an_old_page_has_and_its_new_form_has_not_is_saved_elsewhere_with_it() {
    let names = ["streams", "operations", "rest", "series-0"];
    let mut pages = golden_pages(1, &names);
    let mut observed = Observed::restored(&pages);
    let before = observed.view(at(4_000_000)).baselines;
    // Nothing but a log record comes.
    let mut batch = batch("1");
    let (body, severity) = ("it broke".into(), Severity::Error);
    batch.logs.push(LogSample { time: at(0), severity, body, exception: None, trace_id: None });
    fold(&mut observed, &batch, 4_000_000);
    for page in observed.save(at(4_000_000), usize::MAX) {
        pages.insert(page.name.to_string(), page.value.unwrap());
    }
    let after = Observed::restored(&pages).view(at(4_000_000)).baselines;
    assert_eq!(after.len(), before.len(), "{after:?}");
}

fn golden_pages(version: u8, names: &[&str]) -> Pages {
    names.iter().map(|name| (format!("{PREFIX}{name}"), std::fs::read(golden(version, name)).unwrap())).collect()
}

const GOLDEN: [&str; 5] = ["streams", "operations", "baselines", "rest", "series-0"];

fn is_read_as_it_was_meant(version: u8) {
    let now = at(4_000_000);
    let written = ever_since().view(now);
    let back = Observed::restored(&golden_pages(version, &GOLDEN)).view(now);
    assert_eq!((back.samples, &back.logs, &back.errors), (written.samples, &written.logs, &written.errors));
    assert_eq!((&back.operations, &back.edges), (&written.operations, &written.edges));
    assert_eq!(back.baselines.len(), written.baselines.len());
    for (back, written) in back.baselines.iter().zip(&written.baselines) {
        // The deviation of the last step is not kept.
        assert_eq!((&back.key, back.expected, back.seasonal), (&written.key, written.expected, written.seasonal));
    }
    assert_eq!(back.series.len(), written.series.len());
    for (back, written) in back.series.iter().zip(&written.series) {
        assert_eq!((&back.name, back.last, back.last_at), (&written.name, written.last, written.last_at));
        for (back, written) in back.tiers.iter().zip(&written.tiers) {
            assert_eq!(back.bins.len(), written.bins.len());
            for (back, written) in back.bins.iter().zip(&written.bins) {
                assert_eq!(back.start, written.start);
                near(back.value, written.value, 1e-4);
            }
        }
    }
    assert!(written.operations.iter().any(|operation| operation.p99_s.is_some()), "windows are in it");
}

#[test]
fn pages_of_version_2_are_read_as_they_were_meant() {
    is_read_as_it_was_meant(2);
}

#[test]
fn pages_of_version_3_are_read_as_they_were_meant() {
    is_read_as_it_was_meant(3);
    let bytes: Vec<_> =
        ever_since().save(at(4_000_000), usize::MAX).into_iter().map(|page| page.value.unwrap()).collect();
    let golden: Vec<_> = GOLDEN.iter().map(|name| std::fs::read(golden(3, name)).unwrap()).collect();
    assert!(bytes == golden, "a new layout needs a new version and files of its own");
}

fn golden(version: u8, name: &str) -> std::path::PathBuf {
    let file = format!("tests/golden/observed-{version}-{}.bin", name.trim_start_matches(PREFIX));
    std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)
}

/// Run by hand when a layout is new: `cargo test --lib write_golden_pages -- --ignored`.
#[test]
#[ignore = "writes the files that another test reads"]
fn write_golden_pages() {
    for page in ever_since().save(at(4_000_000), usize::MAX) {
        if !golden(page::VERSION, &page.name).exists() {
            std::fs::write(golden(page::VERSION, &page.name), page.value.unwrap()).unwrap();
        }
    }
}
