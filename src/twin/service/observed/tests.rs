mod alerts;
mod choice;
mod golden;

use proptest::prelude::*;

use super::*;
use crate::{
    model::{
        ServiceId,
        telemetry::{
            Batch, Buckets, Explicit, Exponential, LogSample, MetricPoint, Peer, PeerKind, Role, Severity, SpanKind,
            SpanSample, Symbol, Temporality, Value,
        },
    },
    twin::service::{
        core::Alert,
        view::{BehaviourView, OperationView, Status},
    },
};

const START: u64 = 1_700_000_000_000;

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(START + ms)
}

pub(in crate::twin::service) fn batch(version: &str) -> Batch {
    let mut batch = Batch::new(ServiceId::parse("shop/orders").unwrap());
    batch.resource.version = Some(version.into());
    batch
}

pub(in crate::twin::service) fn span(
    batch: &mut Batch,
    operation: &str,
    end: Timestamp,
    duration_ms: u64,
    failed: bool,
) {
    let operation = batch.symbols.intern(operation);
    batch.spans.push(SpanSample {
        id: end.unix_ms() ^ (duration_ms << 40) ^ num::long(batch.spans.len()),
        operation,
        kind: SpanKind::Server,
        failed,
        status_class: if failed { 5 } else { 2 },
        duration_ns: duration_ms * 1_000_000,
        end,
        peer: None,
    });
}

fn point(batch: &mut Batch, name: &str, stream: u64, time: u64, value: Value) {
    let (series, unit) = (batch.symbols.intern(name), batch.symbols.intern("s"));
    let operation = batch.symbols.intern("GET /orders");
    batch.metrics.push(MetricPoint {
        stream,
        series,
        unit,
        role: Role::of(name),
        operation,
        failed: false,
        peer: None,
        start: at(0),
        time: at(time),
        value,
    });
}

fn fold(observed: &mut Observed, batch: &Batch, now: u64) -> Vec<Fact> {
    observed.fold(batch, at(now), &[])
}

fn only(observed: &Observed, now: u64) -> OperationView {
    let operations = observed.view(at(now)).operations;
    assert_eq!(operations.len(), 1, "{operations:?}");
    operations.into_iter().next().unwrap()
}

fn near(found: f64, expected: f64, share: f64) {
    assert!((found - expected).abs() <= share * expected.abs(), "{found} for {expected}");
}

/// Saves everything and reads it back.
fn reload(observed: &mut Observed, now: u64) -> (Observed, usize) {
    let settings = observed.settings;
    reload_with(observed, now, settings)
}

/// The same with other settings than it was saved with.
fn reload_with(observed: &mut Observed, now: u64, settings: &'static Settings) -> (Observed, usize) {
    let mut pages = Pages::new();
    observed.saved.dirty = [true; PAGES.len()];
    while observed.unsaved() {
        for page in observed.save(at(now), usize::MAX) {
            let value = page.value.unwrap();
            assert!(value.len() <= crate::model::limits::PAGE_BYTES_MAX, "{} has {} bytes", page.name, value.len());
            pages.insert(page.name.to_string(), value);
        }
    }
    let bytes = pages.values().map(Vec::len).sum();
    (Observed::restored_with(settings, &pages), bytes)
}

#[test]
fn spans_give_rate_errors_and_durations_and_a_repeated_batch_gives_nothing() {
    let mut observed = Observed::default();
    for number in 0..30 {
        let mut batch = batch("1.2");
        for place in 0..10 {
            span(&mut batch, "GET /orders", at(number * 10_000 + place), place * 10 + 10, place == 0);
        }
        fold(&mut observed, &batch, number * 10_000 + 500);
        fold(&mut observed, &batch, number * 10_000 + 900);
    }
    let view = only(&observed, 299_000);
    assert_eq!((view.count, view.errors, view.version.as_str(), view.source.as_str()), (300, 30, "1.2", "spans"));
    near(view.rate, 1.0, 0.01);
    near(view.error_ratio, 0.1, 1e-6);
    near(view.p50_s.unwrap(), 0.05, 0.01);
    near(view.p99_s.unwrap(), 0.1, 0.01);
    near(view.sum_s, 165.0 / 10.0, 1e-6);
}

#[test]
fn a_duration_histogram_counts_what_it_says_over_exports_and_a_restart() {
    let mut observed = Observed::default();
    let explicit = |counts: Vec<u64>, sum| {
        let count = counts.iter().sum();
        let bounds = vec![0.01, 0.1, 1.0];
        Value::Explicit(Box::new(Explicit {
            temporality: Temporality::Cumulative,
            bounds,
            counts,
            sum: Some(sum),
            count,
        }))
    };
    for (number, counts) in [vec![10, 0, 0, 0], vec![10, 90, 0, 0], vec![10, 90, 100, 0]].into_iter().enumerate() {
        let mut batch = batch("1");
        point(&mut batch, "http.server.request.duration", 1, (num::long(number) + 1) * 60_000, explicit(counts, 4.0));
        fold(&mut observed, &batch, 200_000);
        fold(&mut observed, &batch, 200_000);
    }
    let view = only(&observed, 200_000);
    assert_eq!((view.count, view.source.as_str(), view.sum_s), (200, "metrics", 4.0));
    assert!((0.01..=0.1).contains(&view.p50_s.unwrap()) && (0.1..=1.0).contains(&view.p99_s.unwrap()));
    let (mut observed, _) = reload(&mut observed, 200_000);
    let mut batch = batch("1");
    point(&mut batch, "http.server.request.duration", 1, 240_000, explicit(vec![10, 90, 101, 0], 4.5));
    fold(&mut observed, &batch, 240_000);
    assert_eq!(only(&observed, 240_000).count, 201, "a restart of the node neither loses nor doubles");
}

#[test]
fn spans_and_metrics_about_the_same_requests_are_not_added_up() {
    let mut observed = Observed::default();
    let mut spans = batch("1");
    for place in 0..100 {
        span(&mut spans, "GET /orders", at(place), 20, false);
    }
    fold(&mut observed, &spans, 1000);
    let mut metrics = batch("1");
    let buckets = Buckets { offset: -6, counts: vec![100] };
    let histogram = Exponential {
        temporality: Temporality::Cumulative,
        scale: 0,
        zero_count: 0,
        positive: buckets,
        negative: Buckets::default(),
        sum: Some(2.0),
        count: 100,
    };
    point(&mut metrics, "http.server.request.duration", 1, 1000, Value::Exponential(Box::new(histogram)));
    fold(&mut observed, &metrics, 1000);
    let view = only(&observed, 1000);
    assert_eq!(view.count, 100);
    near(view.p50_s.unwrap(), 0.02, 0.01);
}

#[test]
fn traffic_spread_thinly_over_time_is_the_same_after_a_restart() {
    let mut observed = Observed::default();
    for minute in 1..=5 {
        let mut batch = batch("1");
        // Over all of a minute: a third of a request in each bin, and a sixth of an error.
        for (stream, failed) in [(1, false), (2, true)] {
            let histogram = Explicit {
                temporality: Temporality::Delta,
                bounds: vec![0.1, 1.0],
                counts: vec![0, 1, 0],
                sum: Some(0.2),
                count: 1,
            };
            let name = "http.server.request.duration";
            point(&mut batch, name, stream, minute * 60_000, Value::Explicit(Box::new(histogram)));
            let last = batch.metrics.last_mut().unwrap();
            (last.start, last.failed) = (at((minute - 1) * 60_000 + 1), failed);
        }
        fold(&mut observed, &batch, minute * 60_000);
    }
    let before = only(&observed, 300_000);
    let after = only(&reload(&mut observed, 300_000).0, 300_000);
    near(after.rate, before.rate, 0.1);
    near(after.error_ratio, 0.5, 0.1);
}

#[test]
fn operations_that_need_little_leave_their_room_in_a_page_to_one_that_needs_much() {
    let mut observed = Observed::default();
    let mut batch = batch("1");
    for number in 0..23 {
        span(&mut batch, &format!("GET /{number}"), at(0), 10, false);
    }
    (1..=400).for_each(|ms| span(&mut batch, "GET /orders", at(1), ms, false));
    fold(&mut observed, &batch, 2);
    let (observed, _) = reload(&mut observed, 3);
    let view = observed.view(at(4));
    let found = view.operations.iter().find(|view| view.operation == "GET /orders").unwrap();
    for (lately, ever, exact) in [
        (found.p50_s, found.ever.p50, 0.2),
        (found.p90_s, found.ever.p90, 0.36),
        (found.p95_s, found.ever.p95, 0.38),
        (found.p99_s, found.ever.p99, 0.396),
    ] {
        near(lately.unwrap(), exact, 0.01);
        near(ever.unwrap(), exact, 0.01);
    }
}

#[test]
fn a_counter_is_a_rate_at_every_resolution_and_a_gauge_a_mean() {
    let mut observed = Observed::default();
    for minute in 1..=30 {
        let mut batch = batch("1");
        let total =
            Value::Sum { value: num::real(minute) * 120.0, temporality: Temporality::Cumulative, monotonic: true };
        point(&mut batch, "jobs", 1, minute * 60_000, total);
        point(&mut batch, "memory", 2, minute * 60_000, Value::Gauge(num::real(minute % 2)));
        fold(&mut observed, &batch, minute * 60_000);
    }
    let view = observed.view(at(1_800_000));
    let (jobs, memory) = (&view.series[0], &view.series[1]);
    assert_eq!((jobs.name.as_str(), jobs.last, jobs.shape.as_str()), ("jobs", 3600.0, "counter"));
    assert_eq!(jobs.tiers[0].bins.len(), 60);
    for tier in &jobs.tiers[..2] {
        tier.bins[1..tier.bins.len() - 1].iter().for_each(|bin| near(bin.value, 2.0, 1e-4));
    }
    let quarter = memory.tiers[1].bins[1];
    near(quarter.value, 0.5, 0.1);
    assert_eq!((quarter.min, quarter.max), (0.0, 1.0));
}

#[test]
fn what_finds_no_room_is_named_other() {
    let mut observed = Observed::default();
    for number in 0..100 {
        let mut batch = batch("1");
        span(&mut batch, &format!("operation {number}"), at(number), 5, false);
        let peer = batch.symbols.intern(&format!("peer {number}"));
        batch.spans[0].peer = Some(Peer { kind: PeerKind::Service, name: peer });
        point(&mut batch, &format!("metric {number}"), number, number, Value::Gauge(1.0));
        fold(&mut observed, &batch, number);
    }
    let view = observed.view(at(100));
    assert_eq!((view.operations.len(), view.series.len(), view.edges.len()), (24 + 1, 32 + 1, 33));
    assert_eq!((view.operations[24].operation.as_str(), view.series[32].name.as_str()), ("_other", "_other"));
    assert_eq!(view.operations.iter().map(|operation| operation.count).sum::<u64>(), 100);
    assert_eq!(view.edges.iter().map(|edge| edge.count).sum::<u64>(), 100);
}

#[test]
fn logs_are_counted_and_the_latest_errors_kept() {
    let mut observed = Observed::default();
    for number in 0..40_u64 {
        let mut batch = batch("1");
        let severity = if number % 2 == 0 { Severity::Error } else { Severity::Info };
        let body = format!("größe {number}").into();
        batch.logs.push(LogSample { time: at(number), severity, body, exception: None, trace_id: Some([7; 16]) });
        fold(&mut observed, &batch, number);
    }
    let view = observed.view(at(40));
    assert_eq!((view.logs[2], view.logs[4], view.errors.len()), (20, 20, 16));
    assert_eq!(view.errors[0].body, "größe 38");
    assert_eq!(view.errors[0].trace_id.as_deref().unwrap().len(), 32);
}

/// Folds a batch and keeps `alerts` as a twin does.
fn fold_into(observed: &mut Observed, alerts: &mut Vec<Alert>, batch: &Batch, now: u64) -> Vec<String> {
    let mut told = Vec::new();
    for fact in observed.fold(batch, at(now), alerts) {
        match fact {
            Fact::Open { key, status, value, expected } => {
                assert!(alerts.iter().all(|alert| alert.key != key), "{key} opened twice");
                told.push(format!("+{key}"));
                alerts.push(Alert { key, status, opened_at: at(now), value, expected });
            }
            Fact::Close { key } => {
                told.push(format!("-{key}"));
                alerts.retain(|alert| alert.key != key);
            }
        }
    }
    told
}

#[test]
fn a_long_name_is_the_same_operation_after_a_restart() {
    let mut observed = Observed::default();
    let name = format!("GET /{}", "long/".repeat(20));
    for round in 0..2 {
        let mut batch = batch("1");
        span(&mut batch, &name, at(round), 20, false);
        fold(&mut observed, &batch, round);
        observed = reload(&mut observed, round).0;
    }
    assert_eq!(only(&observed, 2).count, 2);
}

/// A twin after 90 days: a batch each ten minutes, and four a minute on the last day.
fn full(pairs: u64, series: u64) -> (Observed, u64) {
    let minute = 60_000;
    full_with(Observed::default(), pairs, series, |now| if now > 89 * DAY { minute / 4 } else { 10 * minute })
}

const DAY: u64 = 86_400_000;

fn full_with(mut observed: Observed, pairs: u64, series: u64, step: impl Fn(u64) -> u64) -> (Observed, u64) {
    let mut now = 0;
    let mut round = 0_u64;
    while now < 90 * DAY {
        round += 1;
        now += step(now);
        let mut batch = batch("1");
        for pair in 0..pairs {
            for spread in 0..2 {
                let duration = 1 + (round * 7919 + pair * 104_729 + spread * 31) % 1000;
                span(&mut batch, &format!("GET /resource/number/{pair}"), at(now), duration, round.is_multiple_of(10));
            }
        }
        for number in 0..series {
            let name = format!("process.some.metric.number.{number}");
            let value = num::real((round * 31 + number * 7) % 1000) * 1.37;
            let value = if number % 2 == 0 {
                Value::Gauge(value)
            } else {
                Value::Sum { value: num::real(round * 10), temporality: Temporality::Cumulative, monotonic: true }
            };
            point(&mut batch, &name, number, now, value);
        }
        let peer = batch.symbols.intern(&format!("peer-{}", round % 10));
        batch.spans.iter_mut().for_each(|span| span.peer = Some(Peer { kind: PeerKind::Service, name: peer }));
        let body = "something went wrong while an order was being written to its table".repeat(4).into();
        batch.logs.push(LogSample { time: at(now), severity: Severity::Error, body, exception: None, trace_id: None });
        fold(&mut observed, &batch, now);
    }
    (observed, now)
}

#[test]
fn after_ninety_days_a_twin_is_as_small_as_promised() {
    let (mut observed, now) = full(10, 20);
    let resident = observed.heap_bytes();
    assert!(resident <= 200 * 1024, "{resident} bytes resident");
    let before = observed.view(at(now));
    let (back, pages) = reload(&mut observed, now);
    println!("10 pairs, 20 series, 90 days: {resident} bytes resident, {pages} bytes of pages");
    assert!(pages <= 64 * 1024, "{pages} bytes of pages");
    let after = back.view(at(now));
    assert_eq!((before.samples, before.logs, before.edges), (after.samples, after.logs, after.edges));
    for (before, after) in before.operations.iter().zip(&after.operations) {
        assert_eq!((before.count, before.errors, before.sum_s), (after.count, after.errors, after.sum_s));
        near(after.p99_s.unwrap(), before.p99_s.unwrap(), 0.02);
    }
    for (before, after) in before.series.iter().zip(&after.series) {
        for (before, after) in before.tiers.iter().zip(&after.tiers) {
            assert_eq!(before.bins.len(), after.bins.len());
            before.bins.iter().zip(&after.bins).for_each(|(before, after)| near(after.value, before.value, 1e-4));
        }
    }
}

#[test]
fn a_twin_filled_to_the_brim_still_fits_its_pages() {
    let (mut observed, now) = full(30, 40);
    let (_, pages) = reload(&mut observed, now);
    println!("25 pairs, 33 series, 90 days: {} bytes resident, {pages} bytes of pages", observed.heap_bytes());
    assert!(pages <= 64 * 1024, "{pages} bytes of pages");
}

#[test]
fn what_was_usual_of_operations_at_each_hour_outlives_a_save_of_a_twin_filled_to_the_brim() {
    let (mut observed, mut alerts) = (Observed::default(), Vec::new());
    for number in 0..30 {
        let mut batch = batch("1");
        point(&mut batch, &format!("level {number}"), number, 0, Value::Gauge(1.0));
        fold(&mut observed, &batch, 0);
    }
    // What is usual changes each hour, so that no two hours are put together for being the same.
    let of_hour = |hour: u64, pair: u64| (hour + pair).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 61;
    for minute in 0..175 * 60 {
        let mut batch = batch("1");
        for pair in 0..24 {
            for number in 0..6 {
                let (name, usual) = (format!("GET /{pair}"), of_hour(minute / 60, pair));
                span(&mut batch, &name, at(minute * 60_000 + number), 10 << usual.min(3), number < usual / 2);
            }
        }
        fold_into(&mut observed, &mut alerts, &batch, minute * 60_000);
    }
    let now = 175 * 3_600_000;
    let (back, pages) = reload(&mut observed, now);
    assert!(pages <= 64 * 1024, "{pages} bytes of pages");
    // The means of two hours are put together at most.
    let in_sight = |observed: &Observed| {
        let judged = |line: &&crate::twin::service::view::BaselineView| {
            line.key.starts_with("errors GET") || line.key.starts_with("duration GET")
        };
        observed.view(at(now)).baselines.iter().filter(judged).filter(|line| line.seasonal.is_some()).count()
    };
    assert_eq!((in_sight(&observed), in_sight(&back)), (48, 48));
}

fn value() -> impl Strategy<Value = Value> {
    let temporality = prop_oneof![Just(Temporality::Delta), Just(Temporality::Cumulative)];
    let counts = || proptest::collection::vec(prop_oneof![0..9_u64, any::<u64>()], 0..20);
    prop_oneof![
        any::<f64>().prop_map(Value::Gauge),
        (any::<f64>(), temporality.clone(), any::<bool>()).prop_map(|(value, temporality, monotonic)| Value::Sum {
            value,
            temporality,
            monotonic
        }),
        (temporality.clone(), proptest::collection::vec(any::<f64>(), 0..20), counts(), any::<u64>()).prop_map(
            |(temporality, bounds, counts, count)| {
                Value::Explicit(Box::new(Explicit { temporality, bounds, counts, sum: Some(1.0), count }))
            }
        ),
        (temporality, any::<i32>(), any::<i32>(), counts(), any::<f64>()).prop_map(
            |(temporality, scale, offset, counts, sum)| {
                let positive = Buckets { offset, counts: counts.clone() };
                let negative = Buckets { offset, counts };
                Value::Exponential(Box::new(Exponential {
                    temporality,
                    scale,
                    zero_count: 3,
                    positive,
                    negative,
                    sum: Some(sum),
                    count: 9,
                }))
            }
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_batch_is_folded_saved_and_read_back(
        points in proptest::collection::vec((0..50_u64, any::<u64>(), any::<u64>(), 0..60_u8, value()), 0..40),
        spans in proptest::collection::vec((any::<u64>(), any::<u64>(), 0..40_u8), 0..40),
        now in prop_oneof![0..100_000_000_u64, any::<u64>()],
    ) {
        let mut batch = batch("1");
        for (stream, start, time, name, value) in points {
            let name = if name < 4 { "http.client.request.duration".to_owned() } else { format!("m{name}") };
            point(&mut batch, &name, stream, 0, value);
            let last = batch.metrics.last_mut().unwrap();
            (last.start, last.time) = (Timestamp::from_unix_ms(start), Timestamp::from_unix_ms(time));
        }
        for (end, duration, name) in spans {
            span(&mut batch, &format!("o{name}"), Timestamp::from_unix_ms(end), 0, false);
            batch.spans.last_mut().unwrap().duration_ns = duration;
        }
        let mut observed = Observed::default();
        for number in 0..3 {
            let now = Timestamp::from_unix_ms(now).after(std::time::Duration::from_secs(number * 40));
            observed.fold(&batch, now, &[]);
            observed.batches = [0; BATCHES];
            let _ = observed.view(now);
        }
        let (back, bytes) = reload(&mut observed, now);
        prop_assert!(bytes <= 64 * 1024);
        prop_assert_eq!(back.view(at(0)).operations.len(), observed.view(at(0)).operations.len());
    }

    #[test]
    fn a_page_of_any_bytes_is_a_gap_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        for (name, version) in PAGES.into_iter().flat_map(|name| (1..=page::VERSION).map(move |version| (name, version))) {
            let mut page = vec![version];
            page.extend_from_slice(&bytes);
            let observed = Observed::restored(&Pages::from([(name.to_owned(), page)]));
            let _ = observed.view(at(0));
        }
    }
}

/// Question: what does a sample cost in the model, finding its operation and series included? Run with
/// `cargo test --release --lib ns_per_sample -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[expect(clippy::disallowed_methods, reason = "it measures time")]
fn ns_per_sample() {
    let time = |name: &str, make: &dyn Fn(u64, &mut Batch)| {
        let (mut observed, mut spent, mut samples) = (Observed::default(), std::time::Duration::ZERO, 0);
        for round in 0..20_000 {
            let mut batch = batch("1.0.0");
            (0..32).for_each(|number| make(round * 32 + number, &mut batch));
            let begin = std::time::Instant::now();
            fold(&mut observed, &batch, round * 100);
            spent += begin.elapsed();
            samples += num::long(batch.samples());
        }
        println!("{name}: {:.1} ns a sample", spent.as_secs_f64() * 1e9 / num::real(samples));
    };
    let operations: Vec<String> = (0..10).map(|number| format!("GET /resource/number/{number}")).collect();
    let series: Vec<String> = (0..20).map(|number| format!("process.some.metric.number.{number}")).collect();
    time("server spans", &|number, batch| {
        span(batch, &operations[num::at(number % 10)], at(number * 3), 1 + number * 7919 % 1000, number % 50 == 0);
    });
    time("client spans with a peer", &|number, batch| {
        span(batch, &operations[num::at(number % 10)], at(number * 3), 1 + number * 7919 % 1000, number % 50 == 0);
        let name = batch.symbols.intern("payments");
        let span = batch.spans.last_mut().unwrap();
        (span.kind, span.peer) = (SpanKind::Client, Some(Peer { kind: PeerKind::Service, name }));
    });
    time("gauges", &|number, batch| {
        point(batch, &series[num::at(number % 20)], number % 20, number * 3, Value::Gauge(num::real(number)));
    });
    time("cumulative sums", &|number, batch| {
        let value = Value::Sum { value: num::real(number), temporality: Temporality::Cumulative, monotonic: true };
        point(batch, &series[num::at(number % 20)], number % 20, number * 3, value);
    });
    time("explicit histograms", &|number, batch| {
        let bounds = vec![0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
        let counts = (0..15).map(|bucket| number * (bucket % 4)).collect::<Vec<_>>();
        let count = counts.iter().sum();
        let temporality = Temporality::Cumulative;
        let histogram = Explicit { temporality, bounds, counts, sum: Some(num::real(number)), count };
        point(batch, "http.server.request.duration", number % 20, number * 3, Value::Explicit(Box::new(histogram)));
        batch.metrics.last_mut().unwrap().operation = Symbol::OTHER;
    });
    time("logs", &|number, batch| {
        let severity = if number % 20 == 0 { Severity::Error } else { Severity::Info };
        batch.logs.push(LogSample { time: at(number), severity, body: "".into(), exception: None, trace_id: None });
    });
}
