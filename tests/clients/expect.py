"""What a twin must show after a number of bursts, computed from burst.json alone."""

import json
import math
from pathlib import Path

BURST = json.loads(Path(__file__).with_name("burst.json").read_text())

# Relative error of the twin's own sketch.
SKETCH = 0.01
# Most buckets and finest scale of the SDKs' exponential histograms.
EXPONENTIAL_BUCKETS, EXPONENTIAL_SCALE = 160, 20
EXACT = 1e-6
# A rate is of the last five minutes, or of the time since the first sample, but not of less than ten seconds.
RATE_S_MIN, RATE_S_MAX = 10, 300
SECONDS = {"s": 1, "ms": 1e-3}
QUANTILES = {"p50": 0.50, "p90": 0.90, "p95": 0.95, "p99": 0.99}


def between(values: list, quantile: float) -> tuple:
    """The least and greatest value that any usual definition of the quantile gives."""
    rank = quantile * (len(values) - 1)
    return values[math.floor(rank)], values[min(math.ceil(rank) + 1, len(values) - 1)]


def bucket(bounds: list, value: float) -> tuple:
    lower = max([bound for bound in bounds if bound < value], default=0.0)
    return lower, min([bound for bound in bounds if bound >= value], default=math.inf)


def exponential_bucket(values: list, value: float) -> tuple:
    """The bucket of a value in an exponential histogram of all the values: what part of them had was no coarser."""
    bucket_of = lambda each, scale: math.ceil(math.log2(each) * 2**scale) - 1
    scale = EXPONENTIAL_SCALE
    while bucket_of(max(values), scale) - bucket_of(min(values), scale) >= EXPONENTIAL_BUCKETS:
        scale -= 1
    number = bucket_of(value, scale)
    return 2 ** (number / 2**scale), 2 ** ((number + 1) / 2**scale)


def failures(work: dict) -> int:
    """How many of one burst failed: those given that status, and those whose attributes say so."""
    if work.get("error_every"):
        return math.ceil(work["count"] / work["error_every"])
    return sum(number % len(work["cycle"]) in work["failed"] for number in range(work["count"])) if "cycle" in work else 0


class Expected:
    def __init__(self, bursts: int, age_s: tuple, exponential: bool) -> None:
        """After so many bursts, the first of which lies so many seconds back, at least and at most; whether histograms
        without a view are exponential."""
        self.bursts, self.exponential = bursts, exponential
        self.window_s = tuple(min(max(age, RATE_S_MIN), RATE_S_MAX) for age in age_s)
        self.found = []

    def complaints(self, view: dict) -> list:
        self.found = []
        behaviour = view["behaviour"]
        assert behaviour is not None, "the view has no behaviour"
        for operation in BURST["spans"]:
            self.operation(operation, behaviour)
        for counter in BURST["counters"]:
            total = sum(value for _, value in counter["adds"]) * self.bursts
            self.series(counter, "counter", total, behaviour)
        for level in BURST["levels"]:
            self.series(level, "gauge", sum(level["adds"]), behaviour)
        for gauge in BURST["gauges"]:
            self.series(gauge, "gauge", gauge["values"][-1], behaviour)
        for histogram in BURST["histograms"]:
            self.histogram(histogram, behaviour)
        logs = dict(zip(["trace", "debug", "info", "warn", "error", "fatal"], behaviour["logs"]))
        for severity, count in BURST["logs"].items():
            self.same(f"{severity} logs", count * self.bursts, logs[severity])
        bodies = [error["body"] for error in behaviour["errors"]]
        if f"error {BURST['logs']['error'] - 1}" not in bodies:
            self.found.append(f"the newest error is not among {bodies}")
        return self.found

    def same(self, what: str, expected: float, found: float, within: float = EXACT) -> None:
        if found is None or abs(found - expected) > within * max(abs(expected), 1e-12):
            self.found.append(f"{what}: {found} instead of {expected}")

    def inside(self, what: str, lower: float, upper: float, found: float) -> None:
        if found is None or not lower <= found <= upper:
            self.found.append(f"{what}: {found} is not within {lower:.6g} and {upper:.6g}")

    def pick(self, what: str, rows: list, **keys: str) -> dict:
        rows = [row for row in rows if all(row[key] == value for key, value in keys.items())]
        if len(rows) != 1:
            self.found.append(f"{what}: {len(rows)} rows instead of one")
        return rows[0] if rows else {}

    def operation(self, operation: dict, behaviour: dict) -> None:
        seconds = sorted((operation["first_ms"] + at * operation["step_ms"]) / 1000 for at in range(operation["count"]))
        row = self.work(operation["name"], "spans", operation, seconds, behaviour)
        if not row:
            return
        name = operation["name"]
        self.same(f"{name} max", seconds[-1], row["max_s"], SKETCH)
        self.same(f"{name} max ever", seconds[-1], row["ever"]["max"], SKETCH)
        for quantile, share in QUANTILES.items():
            least, greatest = between(seconds, share)
            # The story is shorter than the window, and every burst is the same.
            for when, found in ("lately", row[f"{quantile}_s"]), ("ever", row["ever"][quantile]):
                self.inside(f"{name} {quantile} {when}", least * (1 - SKETCH), greatest * (1 + SKETCH), found)

    def work(self, name: str, source: str, work: dict, seconds: list, behaviour: dict) -> dict:
        """Totals, errors and rate of an operation, and of what it calls."""
        row = self.pick(name, behaviour["operations"], operation=name, source=source, kind=work["kind"])
        count, errors = work["count"] * self.bursts, failures(work) * self.bursts
        if row:
            self.same(f"{name} count", count, row["count"])
            self.same(f"{name} errors", errors, row["errors"])
            self.same(f"{name} sum", sum(seconds) * self.bursts, row["sum_s"], 1e-3)
            self.same(f"{name} count in the sketch", count, row["ever"]["count"])
            self.same(f"{name} error ratio", errors / count, row["error_ratio"], SKETCH)
            shortest, longest = self.window_s
            self.inside(f"{name} rate", count / longest * (1 - SKETCH), count / shortest * (1 + SKETCH), row["rate"])
        if "peer" in work:
            edge = self.pick(f"edge to {work['peer']}", behaviour["edges"], peer=work["peer"])
            if edge:
                self.same(f"edge to {work['peer']} count", count, edge["count"])
                self.same(f"edge to {work['peer']} errors", errors, edge["errors"])
                self.same(f"edge to {work['peer']} mean", sum(seconds) / len(seconds), edge["mean_s"], 1e-3)
        return row

    def series(self, metric: dict, shape: str, last: float, behaviour: dict) -> dict:
        name = metric["name"]
        row = self.pick(name, behaviour["series"], name=name)
        if row:
            self.same(f"{name} last", last, row["last"])
            if (row["shape"], row["unit"]) != (shape, metric["unit"]):
                self.found.append(f"{name}: {row['shape']} in {row['unit']}, not {shape} in {metric['unit']}")
        return row

    def histogram(self, histogram: dict, behaviour: dict) -> None:
        name, count = histogram["name"], histogram["count"]
        values = [histogram["first"] + at * histogram["step"] for at in range(count)]
        unit = 1
        if "operation" in histogram:
            name, unit = histogram["operation"], SECONDS[histogram["unit"]]
            row = self.work(name, "metrics", histogram, [value * unit for value in values], behaviour)
            if not row:
                return
            quantiles = {key: [row[f"{key}_s"], row["ever"][key]] for key in QUANTILES}
            quantiles["max"] = [row["max_s"], row["ever"]["max"]]
        else:
            row = self.series(histogram, "histogram", count * self.bursts, behaviour)
            if not row:
                return
            quantiles = {key: [row[key], row["ever"][key]] for key in ("p50", "p99")}
        for quantile, both in quantiles.items():
            least, greatest = between(values, QUANTILES.get(quantile, 1))
            least, greatest = self.bucket(histogram, values, least)[0], self.bucket(histogram, values, greatest)[1]
            for found in both:
                self.inside(f"{name} {quantile}", least * unit * (1 - SKETCH), greatest * unit * (1 + SKETCH), found)

    def bucket(self, histogram: dict, values: list, value: float) -> tuple:
        """What its histogram can tell of a value."""
        if histogram.get("exponential") or ("advised" in histogram and self.exponential):
            return exponential_bucket(values, value)
        return bucket(histogram.get("bounds") or histogram["advised"], value)
