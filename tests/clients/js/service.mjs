// A service instrumented with the ordinary OpenTelemetry SDK for Node.js, which does as it is told.
//
// Each line `burst` on standard input makes it do once what burst.json says, export it and answer `done`; the end of the
// input ends it. Where to and as whom is in the SDK's own environment variables.

import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

import { SpanKind, SpanStatusCode, metrics, trace } from '@opentelemetry/api';
import { SeverityNumber, logs } from '@opentelemetry/api-logs';
import { NodeSDK } from '@opentelemetry/sdk-node';
import { AggregationType } from '@opentelemetry/sdk-metrics';

const burst = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const kinds = { server: SpanKind.SERVER, client: SpanKind.CLIENT, internal: SpanKind.INTERNAL };
const severities = {
  debug: SeverityNumber.DEBUG,
  info: SeverityNumber.INFO,
  warn: SeverityNumber.WARN,
  error: SeverityNumber.ERROR,
};

// One view for each name that asks for it; what is only advised has none.
const views = new Map();
for (const { name, exponential, bounds } of burst.histograms) {
  if (exponential) views.set(name, { type: AggregationType.EXPONENTIAL_HISTOGRAM });
  else if (bounds) views.set(name, { type: AggregationType.EXPLICIT_BUCKET_HISTOGRAM, options: { boundaries: bounds } });
}
const sdk = new NodeSDK({
  autoDetectResources: true,
  views: [...views].map(([instrumentName, aggregation]) => ({ instrumentName, aggregation })),
});
sdk.start();

const tracer = trace.getTracer('clients');
const logger = logs.getLogger('clients');
const meter = metrics.getMeter('clients');
const instruments = new Map();
for (const [group, make] of Object.entries({
  counters: 'createCounter',
  levels: 'createUpDownCounter',
  gauges: 'createGauge',
})) {
  for (const { name, unit } of burst[group]) instruments.set(name, meter[make](name, { unit }));
}
for (const { name, unit, advised } of burst.histograms) {
  if (instruments.has(name)) continue;
  instruments.set(name, meter.createHistogram(name, { unit, advice: { explicitBucketBoundaries: advised } }));
}

// The SDK is reached behind the API's proxies, which know nothing of flushing.
const behind = (provider) => provider.getDelegate?.() ?? provider._getDelegate?.() ?? provider;
const exported = (provider) => behind(provider).forceFlush();

// The attributes that all of some work has, and those of this one.
const attributesOf = ({ attributes, cycle = [{}] }, number) => ({ ...attributes, ...cycle[number % cycle.length] });

function spans(operation) {
  const { name, kind, count, first_ms, step_ms, error_every } = operation;
  const now = Date.now();
  for (let number = 0; number < count; number++) {
    const startTime = now - (first_ms + number * step_ms);
    const span = tracer.startSpan(name, { kind: kinds[kind], attributes: attributesOf(operation, number), startTime });
    if (error_every && number % error_every === 0) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: 'made to fail' });
    }
    span.end(now);
  }
}

let went = false;
async function measure() {
  // Exports between additions, so that a total comes in several points.
  for (const { name, adds } of burst.counters) {
    for (const [attributes, value] of adds) {
      instruments.get(name).add(value, attributes);
      await exported(metrics.getMeterProvider());
    }
  }
  for (const { name, adds, back } of burst.levels) {
    instruments.get(name).add(went ? back : 0);
    for (const value of adds) instruments.get(name).add(value);
  }
  went = true;
  for (const { name, values } of burst.gauges) {
    for (const value of values) instruments.get(name).record(value);
  }
  for (const histogram of burst.histograms) {
    const { name, count, first, step } = histogram;
    for (let number = 0; number < count; number++) {
      instruments.get(name).record(first + number * step, attributesOf(histogram, number));
      if (number === Math.floor(count / 2)) await exported(metrics.getMeterProvider());
    }
  }
  await exported(metrics.getMeterProvider());
}

async function run() {
  burst.spans.forEach(spans);
  for (const [severity, count] of Object.entries(burst.logs)) {
    for (let number = 0; number < count; number++) {
      logger.emit({
        severityNumber: severities[severity],
        severityText: severity.toUpperCase(),
        body: `${severity} ${number}`,
      });
    }
  }
  await measure();
  await exported(trace.getTracerProvider());
  await exported(logs.getLoggerProvider());
}

console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() !== 'burst') throw new Error(`unknown order '${line}'`);
  await run();
  console.log('done');
}
await sdk.shutdown();
