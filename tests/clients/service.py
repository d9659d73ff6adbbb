"""A service instrumented with the ordinary OpenTelemetry SDK for Python, which does as it is told.

Each line `burst` on standard input makes it do once what burst.json says, export it and answer `done`; the end of the
input ends it. Where to and as whom is in the SDK's own environment variables.
"""

import json
import os
import sys
import time
from pathlib import Path

from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode

if os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"] == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
else:
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

BURST = json.loads(Path(__file__).with_name("burst.json").read_text())
SEVERITY = {
    "debug": SeverityNumber.DEBUG,
    "info": SeverityNumber.INFO,
    "warn": SeverityNumber.WARN,
    "error": SeverityNumber.ERROR,
}
NEVER_MS = 3_600_000


def views() -> list:
    """One for each name that asks for it; what is only advised has none, and is as the exporter prefers."""
    made = {}
    for histogram in BURST["histograms"]:
        if histogram.get("exponential"):
            made[histogram["name"]] = ExponentialBucketHistogramAggregation()
        elif "bounds" in histogram:
            made[histogram["name"]] = ExplicitBucketHistogramAggregation(histogram["bounds"])
    return [View(instrument_name=name, aggregation=aggregation) for name, aggregation in made.items()]


def attributes_of(work: dict, number: int) -> dict:
    """Those that all of it has, and those of this one."""
    cycle = work.get("cycle", [{}])
    return {**work["attributes"], **cycle[number % len(cycle)]}


class Service:
    def __init__(self) -> None:
        self.traces = TracerProvider()
        self.traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=NEVER_MS)
        self.metrics = MeterProvider([reader], views=views())
        self.logs = LoggerProvider()
        self.logs.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
        self.tracer = self.traces.get_tracer("clients")
        self.logger = self.logs.get_logger("clients")
        meter = self.metrics.get_meter("clients")
        self.instruments = {}
        for group, make in {
            "counters": meter.create_counter,
            "levels": meter.create_up_down_counter,
            "gauges": meter.create_gauge,
        }.items():
            for each in BURST[group]:
                self.instruments[each["name"]] = make(each["name"], unit=each["unit"])
        for each in BURST["histograms"]:
            if each["name"] not in self.instruments:
                advice = each.get("advised")
                self.instruments[each["name"]] = meter.create_histogram(
                    each["name"], unit=each["unit"], explicit_bucket_boundaries_advisory=advice
                )

    def burst(self) -> None:
        for operation in BURST["spans"]:
            self.trace(operation)
        for severity, count in BURST["logs"].items():
            for number in range(count):
                self.logger.emit(
                    timestamp=time.time_ns(),
                    severity_number=SEVERITY[severity],
                    severity_text=severity.upper(),
                    body=f"{severity} {number}",
                )
        self.measure()
        assert self.traces.force_flush(), "spans were not exported"
        assert self.logs.force_flush(), "logs were not exported"

    def trace(self, operation: dict) -> None:
        now = time.time_ns()
        for number in range(operation["count"]):
            duration_ms = operation["first_ms"] + number * operation["step_ms"]
            span = self.tracer.start_span(
                operation["name"],
                kind=SpanKind[operation["kind"].upper()],
                attributes=attributes_of(operation, number),
                start_time=now - duration_ms * 1_000_000,
            )
            if operation.get("error_every") and number % operation["error_every"] == 0:
                span.set_status(Status(StatusCode.ERROR, "made to fail"))
            span.end(now)

    def measure(self) -> None:
        """Exports between additions, so that a total comes in several points."""
        for counter in BURST["counters"]:
            for attributes, value in counter["adds"]:
                self.instruments[counter["name"]].add(value, attributes)
                self.export_metrics()
        for level in BURST["levels"]:
            self.instruments[level["name"]].add(level["back"] if getattr(self, "went", False) else 0)
            for value in level["adds"]:
                self.instruments[level["name"]].add(value)
        self.went = True
        for gauge in BURST["gauges"]:
            for value in gauge["values"]:
                self.instruments[gauge["name"]].set(value)
        for histogram in BURST["histograms"]:
            for number in range(histogram["count"]):
                value = histogram["first"] + number * histogram["step"]
                self.instruments[histogram["name"]].record(value, attributes_of(histogram, number))
                if number == histogram["count"] // 2:
                    self.export_metrics()
        self.export_metrics()

    def export_metrics(self) -> None:
        assert self.metrics.force_flush(), "metrics were not exported"

    def end(self) -> None:
        self.traces.shutdown()
        self.metrics.shutdown()
        self.logs.shutdown()


def main() -> None:
    service = Service()
    print("ready", flush=True)
    for line in sys.stdin:
        assert line.strip() == "burst", f"unknown order {line!r}"
        service.burst()
        print("done", flush=True)
    service.end()


main()
