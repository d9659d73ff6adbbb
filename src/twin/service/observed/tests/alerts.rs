//! What is usual of operations and metrics, and what opens and ends an alert.

use super::*;

/// A minute of requests as the SDKs tell of them: base-2 buckets, in seconds.
fn exponential(scale: i32, offset: i32, counts: Vec<u64>) -> Value {
    let count = counts.iter().sum();
    Value::Exponential(Box::new(Exponential {
        temporality: Temporality::Delta,
        scale,
        zero_count: 0,
        positive: Buckets { offset, counts },
        negative: Buckets::default(),
        sum: Some(num::real(count) * 0.02),
        count,
    }))
}

#[test]
fn a_native_histogram_of_a_fine_scale_has_a_usual_duration_and_an_alert_when_it_slows_down() {
    let mut observed = Observed::default();
    let mut opened = Vec::new();
    for minute in 1..40 {
        let mut batch = batch("1");
        // Around 20 ms, later around 320 ms.
        let offset = if minute < 30 { -370 } else { -114 };
        let name = "http.server.request.duration";
        point(&mut batch, name, 1, minute * 60_000, exponential(6, offset, vec![10, 20, 10]));
        opened.extend(fold(&mut observed, &batch, minute * 60_000));
    }
    let view = observed.view(at(40 * 60_000));
    let duration = view.baselines.iter().find(|line| line.key.starts_with("duration ")).unwrap();
    assert!(duration.value.is_finite() && (0.01..0.4).contains(&duration.expected), "{duration:?}");
    assert_eq!(only(&observed, 40 * 60_000).max_s.map(|max| max > 0.28), Some(true));
    let is_slow = |fact: &Fact| matches!(fact, Fact::Open { key, .. } if key == "duration GET /orders (1)");
    assert!(opened.iter().any(is_slow), "{opened:?}");
}

#[test]
fn when_metrics_take_over_from_spans_they_tell_of_now() {
    let mut observed = Observed::default();
    for minute in 1..40_u64 {
        let mut batch = batch("1");
        for number in 0..if minute <= 10 { 30 } else { 0 } {
            span(&mut batch, "GET /orders", at(minute * 60_000 + number), 20, false);
        }
        // Slow at first, as metrics see it.
        let counts = if minute <= 5 { vec![0, 0, 0, 30, 0] } else { vec![0, 30, 0, 0, 0] };
        let bounds = vec![0.01, 0.03, 0.5, 2.0];
        let temporality = Temporality::Delta;
        let value = Value::Explicit(Box::new(Explicit { temporality, bounds, counts, sum: None, count: 30 }));
        point(&mut batch, "http.server.request.duration", 1, minute * 60_000, value);
        batch.metrics[0].start = at((minute - 1) * 60_000);
        fold(&mut observed, &batch, minute * 60_000);
        let lines = observed.view(at(minute * 60_000)).baselines;
        let told = lines.iter().find(|line| line.key == "duration GET /orders (1)");
        assert!(told.is_none_or(|told| told.value < 0.1), "minute {minute}: {told:?}");
    }
    assert_eq!(only(&observed, 40 * 60_000).source, "metrics");
}

/// A minute of requests of one operation at one version, so many a second; answers what that opened and closed.
fn minute(observed: &mut Observed, alerts: &mut Vec<Alert>, number: u64, version: &str, duration_ms: u64, errors: u64) {
    for second in 0..60 {
        let mut batch = batch(version);
        let now = number * 60_000 + second * 1000;
        span(&mut batch, "POST /orders", at(now), duration_ms + second % 3, second < errors);
        fold_into(observed, alerts, &batch, now);
    }
}

#[test]
fn a_metric_tells_how_far_it_is_from_usual() {
    let mut observed = Observed::default();
    let told = |observed: &Observed, now: u64| {
        let baselines = observed.view(at(now)).baselines;
        baselines.into_iter().find(|line| line.key == "series memory").unwrap()
    };
    let feed = |observed: &mut Observed, minutes: std::ops::Range<u64>, level: f64| {
        for minute in minutes {
            let mut batch = batch("1");
            point(&mut batch, "memory", 1, minute * 60_000, Value::Gauge(level + num::real(minute % 5)));
            assert_eq!(fold(observed, &batch, minute * 60_000), []);
        }
    };
    feed(&mut observed, 0..1500, 4e9);
    let usual = told(&observed, 1500 * 60_000);
    near(usual.expected, 4e9, 0.01);
    near(usual.seasonal.unwrap(), 4e9, 0.05);
    assert!(usual.deviation.abs() < 1.0, "{usual:?}");
    let (mut observed, _) = reload(&mut observed, 1500 * 60_000);
    feed(&mut observed, 1500..1503, 8e9);
    assert!(told(&observed, 1503 * 60_000).deviation > 4.0);
}

#[test]
fn a_bad_release_is_measured_by_what_was_usual_before_it_and_goes_with_its_traffic() {
    let (mut observed, mut alerts) = (Observed::default(), Vec::new());
    let keys = |alerts: &[Alert]| alerts.iter().map(|alert| alert.key.to_string()).collect::<Vec<_>>();
    (0..20).for_each(|number| minute(&mut observed, &mut alerts, number, "1.4.0", 20, 0));
    assert_eq!(keys(&alerts), Vec::<String>::new());
    let (mut observed, _) = reload(&mut observed, 20 * 60_000);
    (20..26).for_each(|number| minute(&mut observed, &mut alerts, number, "2.0.0", 200, 30));
    let opened = keys(&alerts);
    for key in ["errors POST /orders (2.0.0)", "duration POST /orders (2.0.0)"] {
        assert!(opened.iter().any(|opened| opened == key), "{key} is not among {opened:?}");
    }
    let slow = alerts.iter().find(|alert| alert.key.starts_with("duration POST")).unwrap();
    near(slow.expected, 0.021, 0.2);
    (26..40).for_each(|number| minute(&mut observed, &mut alerts, number, "1.4.0", 20, 0));
    assert_eq!(keys(&alerts), Vec::<String>::new(), "rolled back");
    // An operation that a new activation knows nothing of.
    let key = "errors GET /gone (1.0.0)".into();
    alerts.push(Alert { key, status: Status::Degraded, opened_at: at(0), value: 1.0, expected: 0.0 });
    minute(&mut observed, &mut alerts, 40, "1.4.0", 20, 0);
    assert_eq!(keys(&alerts), Vec::<String>::new());
    let (back, _) = reload(&mut observed, 41 * 60_000);
    assert_eq!(back.view(at(0)).baselines.len(), observed.view(at(0)).baselines.len());
}

#[test]
fn what_is_served_and_what_is_called_by_the_same_name_are_told_apart() {
    let (mut observed, mut alerts, mut told) = (Observed::default(), Vec::new(), Vec::new());
    for second in 0..40 * 60 {
        let mut batch = batch("1");
        let failed = second > 20 * 60;
        for kind in [SpanKind::Server, SpanKind::Client, SpanKind::Consumer] {
            span(&mut batch, "POST /orders", at(second * 1000), 20, failed && kind != SpanKind::Client);
            batch.spans.last_mut().unwrap().kind = kind;
        }
        told.extend(fold_into(&mut observed, &mut alerts, &batch, second * 1000));
    }
    assert_eq!(told, ["+errors", "+errors POST /orders (1)", "+errors POST /orders [consumer] (1)"]);
    let lines = observed.view(at(40 * 60_000)).baselines;
    assert!(lines.iter().any(|line| line.key == "errors POST /orders [client] (1)"), "{lines:?}");
}

#[test]
fn an_alert_of_sparse_traffic_ends_with_the_trouble() {
    let (mut observed, mut alerts) = (Observed::default(), Vec::new());
    (0..20).for_each(|number| minute(&mut observed, &mut alerts, number, "1", 20, 0));
    (20..26).for_each(|number| minute(&mut observed, &mut alerts, number, "1", 20, 30));
    assert_eq!(alerts.len(), 2, "{alerts:?}");
    // From here on a request each ten minutes, which is too little to say anything.
    let mut told = Vec::new();
    for number in [36, 46] {
        let mut batch = batch("1");
        span(&mut batch, "POST /orders", at(number * 60_000), 20, false);
        told.extend(fold_into(&mut observed, &mut alerts, &batch, number * 60_000));
    }
    assert_eq!(told, ["-errors", "-errors POST /orders (1)"]);
}

#[test]
fn an_operation_that_its_sender_calls_other_is_judged_after_a_restart_too() {
    let (mut observed, mut alerts, mut told) = (Observed::default(), Vec::<Alert>::new(), Vec::new());
    for second in 0..45 * 60 {
        if second == 30 * 60 {
            assert!(alerts.iter().any(|alert| alert.key == "errors _other (1)"), "{alerts:?}");
            observed = reload(&mut observed, second * 1000).0;
        }
        let mut batch = batch("1");
        span(&mut batch, "_other", at(second * 1000), 20, second > 20 * 60 && second < 30 * 60);
        told.extend(fold_into(&mut observed, &mut alerts, &batch, second * 1000));
    }
    assert_eq!(told, ["+errors", "+errors _other (1)", "-errors", "-errors _other (1)"]);
}
