// What the programs share: the client for the protocol they are called with, and the words with which they tell the
// runner.
//
// A program is called with the protocol, `http` or `grpc`. It prints `ok NAME` for each claim that held, and ends with
// a complaint at the first that did not. `want WHAT…` asks the runner for what only an operator can do.

import { deepStrictEqual } from 'node:assert';
import { createInterface } from 'node:readline';

import dapr from '@dapr/dapr';

export const { CommunicationProtocolEnum, DaprClient, DaprPubSubStatusEnum, DaprServer, HttpMethod, LogLevel } = dapr;
export const protocol = process.argv[2];
if (!['http', 'grpc'].includes(protocol)) throw new Error(`no protocol is called '${protocol}'`);

const WITHIN_MS = 20_000;
const PAUSE_MS = 50;

export const communicationProtocol = CommunicationProtocolEnum[protocol.toUpperCase()];
// The SDK logs to standard output, which is the runner's.
const silent = Object.fromEntries(['error', 'warn', 'info', 'verbose', 'debug'].map((level) => [level, () => {}]));
export const logger = { service: silent };
export const client = (options = {}) => new DaprClient({ communicationProtocol, logger, ...options });

export const nameOf = (what) => {
  const name = process.env[`TWIN_${what.toUpperCase()}`];
  if (name === undefined) throw new Error(`TWIN_${what.toUpperCase()} is not set`);
  return name;
};

export const ok = (name) => console.log(`ok ${name}`);

export const same = (what, found, expected) =>
  deepStrictEqual(found, expected, `${what}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);

const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
export async function want(...words) {
  console.log('want', ...words);
  const { value } = await lines.next();
  if (value !== 'done') throw new Error(`the runner answered '${value}' to 'want ${words.join(' ')}'`);
}

// Waits for the runner to close our input.
export async function closed() {
  for await (const line of { [Symbol.asyncIterator]: () => lines }) throw new Error(`unknown order '${line}'`);
}

// Waits for the condition to hold, and gives what it gave.
export async function until(what, condition) {
  const deadline = Date.now() + WITHIN_MS;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > deadline)
      throw new Error(`${typeof what === 'function' ? what() : what} did not come within ${WITHIN_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

// Awaits what has to be refused, and gives the status over HTTP, or the code over gRPC, whichever way the SDK tells it.
export async function refused(what, call) {
  let error;
  try {
    const answer = await call;
    error = answer?.error;
    if (!error) throw new Error(`not refused, but answered ${JSON.stringify(answer)}`);
  } catch (caught) {
    error = caught;
  }
  if (error.error && !(error instanceof Error)) error = error.error;
  if (typeof error.code === 'number') return { code: error.code, message: error.rawMessage ?? error.message };
  try {
    const { status, error_msg } = JSON.parse(error.message);
    return { code: status, message: error_msg };
  } catch {
    throw new Error(`${what}: ${error.stack ?? error}`);
  }
}

// Status, headers and body of what no method of the SDK shows.
export async function raw(method, path, body) {
  const headers = { 'content-type': 'application/json', 'dapr-api-token': process.env.DAPR_API_TOKEN };
  const answer = await fetch(process.env.DAPR_HTTP_ENDPOINT + path, {
    method,
    headers,
    body: body && JSON.stringify(body),
  });
  return { status: answer.status, headers: answer.headers, body: Buffer.from(await answer.arrayBuffer()) };
}

// Codes of gRPC.
export const Code = { INVALID_ARGUMENT: 3, NOT_FOUND: 5, ABORTED: 10, UNIMPLEMENTED: 12, INTERNAL: 13 };
export const expected = (http, grpc) => (protocol === 'http' ? http : grpc);

export async function run(story) {
  try {
    await story();
    // What the SDK leaves open would keep the program alive.
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}
