//! What an operator chooses.

use super::*;

fn settings(change: impl FnOnce(&mut Settings)) -> &'static Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings.check().unwrap();
    Box::leak(Box::new(settings))
}

#[test]
fn an_operator_chooses_how_much_is_told_apart_and_the_rest_is_other_over_restarts() {
    let few = settings(|settings| (settings.series_max, settings.operations_max) = (3, 2));
    let mut observed = Observed::with(few);
    let feed = |observed: &mut Observed, from: u64| {
        for number in from..from + 10 {
            let mut batch = batch("1");
            span(&mut batch, &format!("operation {number}"), at(number), 5, false);
            point(&mut batch, &format!("metric {number}"), number, number, Value::Gauge(1.0));
            fold(observed, &batch, number);
        }
    };
    let others = |observed: &Observed| {
        let view = observed.view(at(100));
        let series = view.series.iter().filter(|series| series.name == "_other").count();
        let pairs: Vec<_> =
            view.operations.iter().filter(|pair| pair.operation == "_other").map(|one| one.count).collect();
        (view.series.len(), series, view.operations.len(), pairs)
    };
    feed(&mut observed, 0);
    assert_eq!(others(&observed), (4, 1, 3, vec![8]));
    // More room than before: what comes is told apart behind what was put together.
    let (mut observed, _) = reload_with(&mut observed, 50, settings(|settings| settings.series_max = 5));
    feed(&mut observed, 50);
    assert_eq!(others(&observed), (6, 1, 13, vec![8]));
    // Less than before: what is there stays until it is silent, what comes is put together.
    let (mut observed, _) = reload_with(&mut observed, 70, few);
    feed(&mut observed, 70);
    assert_eq!(others(&observed), (6, 1, 13, vec![18]));
}

#[test]
fn an_operator_chooses_resolutions_and_what_was_kept_in_others_is_a_gap() {
    let mut observed = Observed::default();
    let feed = |observed: &mut Observed, from: u64| {
        for second in from..from + 100 {
            let mut batch = batch("1");
            point(&mut batch, "memory", 1, second * 1000, Value::Gauge(7.0));
            fold(observed, &batch, second * 1000);
        }
    };
    let bins = |observed: &Observed| {
        observed.view(at(0)).series[0].tiers.iter().map(|tier| tier.bins.len()).collect::<Vec<_>>()
    };
    feed(&mut observed, 0);
    assert_eq!(bins(&observed), [10, 1, 1]);
    let finer = settings(|settings| settings.resolutions[0] = "60 x 5s".parse().unwrap());
    let (mut other, _) = reload_with(&mut observed, 100_000, finer);
    assert_eq!(bins(&other), [0, 1, 1], "only what is of another width");
    feed(&mut other, 200);
    assert_eq!(bins(&other), [20, 2, 1]);
    let shorter = settings(|settings| settings.resolutions[0] = "4 x 5s".parse().unwrap());
    let (other, _) = reload_with(&mut other, 300_000, shorter);
    assert_eq!(bins(&other), [4, 2, 1], "of the same width the newest are kept");
}

#[test]
fn the_most_that_can_be_chosen_fits_its_pages() {
    let most = settings(|settings| {
        (settings.series_max, settings.operations_max) =
            (crate::twin::service::settings::SERIES_MAX, crate::twin::service::settings::PAIRS_MAX);
    });
    // A batch for each bin.
    let step = |now| match 90 * DAY - now {
        left if left > DAY => DAY,
        left if left > 600_000 => 900_000,
        _ => 10_000,
    };
    let (mut observed, now) = full_with(Observed::with(most), 50, 100, step);
    // Each page is held against the store's bound.
    let (back, pages) = reload(&mut observed, now);
    println!("49 pairs, 96 series, 90 days: {} bytes resident, {pages} bytes of pages", observed.heap_bytes());
    let (before, after) = (observed.view(at(now)), back.view(at(now)));
    assert_eq!((before.operations.len(), before.series.len()), (49, 96));
    assert_eq!((after.operations.len(), after.series.len()), (49, 96));
}

#[test]
fn the_operations_that_can_be_chosen_fit_their_pages_whatever_is_told_of_them() {
    let most = settings(|settings| settings.operations_max = crate::twin::service::settings::PAIRS_MAX);
    let mut observed = Observed::with(most);
    let version = "v".repeat(32);
    for round in 0..70_u64 {
        let mut batch = batch(&version);
        for pair in 0..50 {
            let name = format!("{:/<60}{pair:04}", "GET ");
            let now = round * 10_000;
            // Twenty doublings, so that no page can be made coarse enough to matter.
            span(&mut batch, &name, at(now), 1 << (round % 20), true);
            let bounds: Vec<f64> = (0..20).map(|power| f64::from(1 << power) * 1e-3).collect();
            let counts = vec![u64::MAX / 64; 21];
            let count = counts.iter().sum();
            let temporality = Temporality::Delta;
            let histogram = Explicit { temporality, bounds, counts, sum: Some(1e9), count };
            let metric = "http.server.request.duration";
            point(&mut batch, metric, pair, now, Value::Explicit(Box::new(histogram)));
            let point = batch.metrics.last_mut().unwrap();
            (point.operation, point.failed, point.start) = (batch.symbols.intern(&name), true, at(now));
        }
        fold(&mut observed, &batch, round * 10_000);
    }
    // Each page is held against the store's bound.
    let (back, pages) = reload(&mut observed, 700_000);
    println!("49 pairs of everything: {pages} bytes of pages");
    let (before, after) = (observed.view(at(700_000)).operations, back.view(at(700_000)).operations);
    assert_eq!((before.len(), after.len()), (49, 49));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.operation, before.count, before.errors), (&after.operation, after.count, after.errors));
    }
}
