//! What the fleet is, and what happens to it when. Pure.

use std::time::Duration;

/// Namespace of the fleet.
pub(super) const NAMESPACE: &str = "shop";
/// The release that is good.
pub(super) const RELEASE: &str = "1.4.0";
/// The release that is not.
pub(super) const BAD_RELEASE: &str = "2.0.0";
/// Share of requests that the bad release fails.
pub(super) const BAD_SHARE: f64 = 0.6;
/// How much slower the slow dependency gets.
pub(super) const SLOWER: Duration = Duration::from_millis(400);
/// In what a day passes, unless the demo is shorter.
const DAY: Duration = Duration::from_secs(60);
/// In what everything happens once, without `--for`; long enough for the twins to be sure and raise alerts.
const ROUND: Duration = Duration::from_secs(240);
/// Requests a second at the mean of the day, and how far the waves go.
const RATE: f64 = 30.0;
const WAVE: f64 = 0.6;

/// Where the shop keeps its orders, as spans name it.
pub(super) const DATABASE: (&str, &str) = ("postgresql", "shop");
/// The shop's broker.
pub(super) const BROKER: &str = "kafka";

/// Something a service uses that is not there: a pause and a span as its driver would make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uses {
    /// A statement: operation, table.
    Table(&'static str, &'static str),
    /// A message to a topic.
    Topic(&'static str),
}

/// One kind of request that a service answers.
pub(super) struct Route {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    /// How long it works itself, in milliseconds, give or take a half.
    pub(super) work_ms: f64,
    /// What it reads, writes and sends.
    pub(super) uses: &'static [Uses],
    /// What it asks others for: service, method, path.
    pub(super) calls: &'static [(&'static str, &'static str, &'static str)],
}

/// One service.
pub(super) struct Plan {
    pub(super) name: &'static str,
    pub(super) routes: &'static [Route],
}

const fn route(
    method: &'static str,
    path: &'static str,
    work_ms: f64,
    uses: &'static [Uses],
    calls: &'static [(&'static str, &'static str, &'static str)],
) -> Route {
    Route { method, path, work_ms, uses, calls }
}

/// The fleet; each service calls only those before it.
pub(super) const FLEET: [Plan; 5] = [
    Plan {
        name: "inventory",
        routes: &[
            route("GET", "/stock", 1.0, &[Uses::Table("SELECT", "stock")], &[]),
            route("POST", "/reservations", 3.0, &[Uses::Table("UPDATE", "stock")], &[]),
        ],
    },
    Plan { name: "payments", routes: &[route("POST", "/charges", 12.0, &[], &[])] },
    Plan {
        name: "recommendations",
        routes: &[route("GET", "/recommendations", 4.0, &[], &[("inventory", "GET", "/stock")])],
    },
    Plan {
        name: "orders",
        routes: &[
            route("GET", "/orders", 2.0, &[Uses::Table("SELECT", "orders")], &[]),
            route(
                "POST",
                "/orders",
                3.0,
                &[Uses::Table("INSERT", "orders"), Uses::Topic("orders-placed")],
                &[("inventory", "POST", "/reservations"), ("payments", "POST", "/charges")],
            ),
        ],
    },
    Plan {
        name: "gateway",
        routes: &[
            route("GET", "/products", 1.0, &[], &[("recommendations", "GET", "/recommendations")]),
            route("GET", "/cart", 1.0, &[], &[("orders", "GET", "/orders")]),
            route("POST", "/checkout", 1.0, &[], &[("orders", "POST", "/orders")]),
        ],
    },
];

/// What customers do: a route of the gateway, and how many of ten do it.
pub(super) const CUSTOMERS: [(&str, &str, u32); 3] =
    [("GET", "/products", 4), ("GET", "/cart", 3), ("POST", "/checkout", 3)];

/// What the fleet goes through now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stage {
    /// A bad release of `orders` takes half of its traffic.
    pub(super) bad_release: bool,
    /// `recommendations` is slow.
    pub(super) slow: bool,
}

impl Stage {
    /// At a time since the start, of a demo that lasts so long.
    pub(super) fn at(since: Duration, lasts: Option<Duration>) -> Self {
        let round = lasts.unwrap_or(ROUND).as_secs_f64().max(f64::EPSILON);
        let part = since.as_secs_f64() % round / round;
        Self { bad_release: (0.15..0.55).contains(&part), slow: (0.6..0.9).contains(&part) }
    }

    /// The same in words.
    pub(super) fn told(self) -> &'static str {
        match (self.bad_release, self.slow) {
            (true, _) => "orders 2.0.0 is going out, and fails",
            (false, true) => "recommendations is slow",
            (false, false) => "all is well",
        }
    }
}

/// Requests a second that customers send at a time since the start.
pub(super) fn rate(since: Duration, lasts: Option<Duration>) -> f64 {
    let day = lasts.map_or(DAY, |lasts| lasts.min(DAY)).as_secs_f64().max(f64::EPSILON);
    RATE * (1.0 + WAVE * (std::f64::consts::TAU * since.as_secs_f64() / day).sin())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_goes_to_a_route_of_a_service_started_before() {
        for (at, plan) in FLEET.iter().enumerate() {
            for (service, method, path) in plan.routes.iter().flat_map(|route| route.calls) {
                let callee = FLEET[..at].iter().find(|callee| callee.name == *service).expect("started before");
                assert!(callee.routes.iter().any(|route| route.method == *method && route.path == *path));
            }
        }
        let gateway = FLEET.last().unwrap();
        for (method, path, _) in CUSTOMERS {
            assert!(gateway.routes.iter().any(|route| route.method == method && route.path == path));
        }
    }

    #[test]
    fn the_bad_release_comes_and_goes_within_the_demo() {
        let lasts = Some(Duration::from_secs(10));
        let bad: Vec<u64> = (0..10).filter(|s| Stage::at(Duration::from_secs(*s), lasts).bad_release).collect();
        assert_eq!(bad, [2, 3, 4, 5]);
        let slow: Vec<u64> = (0..10).filter(|s| Stage::at(Duration::from_secs(*s), lasts).slow).collect();
        assert_eq!(slow, [6, 7, 8]);
    }

    /// An alert needs two whole steps in which a tenth and ten requests fail; half of a step does for a half.
    #[test]
    fn half_a_minute_is_enough_for_the_bad_release_to_be_an_alert() {
        let (lasts, step_s) = (Some(Duration::from_secs(30)), 5);
        let checkout_and_cart = 0.6;
        for shift in 0..step_s {
            let steps = (0..5).map(|step| {
                let seconds = (shift + step * step_s..shift + (step + 1) * step_s).map(Duration::from_secs);
                seconds.fold((0.0, 0.0), |(asked, failed), second| {
                    let requests = rate(second, lasts) * checkout_and_cart;
                    // Its process needs a moment to come up.
                    let is_out = Stage::at(second, lasts).bad_release
                        && Stage::at(second.saturating_sub(Duration::from_secs(1)), lasts).bad_release;
                    (asked + requests, failed + if is_out { requests / 2.0 * BAD_SHARE } else { 0.0 })
                })
            });
            let sure = steps.filter(|(asked, failed)| *failed >= 12.0 && failed / asked >= 0.12).count();
            assert!(sure >= 2, "steps that begin at {shift} s");
        }
    }

    #[test]
    fn traffic_comes_in_waves_and_never_stops() {
        let rates: Vec<f64> = (0..60).map(|s| rate(Duration::from_secs(s), None)).collect();
        assert!(rates.iter().all(|rate| *rate > 10.0));
        assert!(rates.iter().any(|rate| *rate > 45.0));
    }
}
