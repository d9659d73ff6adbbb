// States, as the SDK's own examples use them and as its documents promise them.

import { Code, client, expected, nameOf, ok, protocol, raw, refused, run, same, until } from './common.mjs';

const STORE = nameOf('state');
const FIRST = { concurrency: 1 };
const LAST = { concurrency: 2 };
const STALE = expected(409, Code.ABORTED);
const TTL_S = 2;
const dapr = client();
const { state } = dapr;

// A save that has to be taken: over HTTP the SDK gives an error instead of throwing it.
async function save(...items) {
  same(`save of ${items.map(({ key }) => key)}`, await state.save(STORE, items), {});
}

async function oneValue() {
  await save({ key: 'key', value: 'value' });
  same('value', await state.get(STORE, 'key'), 'value');
  same('delete', await state.delete(STORE, 'key'), {});
  same('deleted value', await state.get(STORE, 'key'), '');
  same('delete again', await state.delete(STORE, 'key'), {});
  ok('save, get, delete');
  same('absent value', await state.get(STORE, 'never'), '');
  ok('an absent key is empty');
}

async function values() {
  const values = {
    object: { a: [1, 2.5, null], b: 'ü', c: { d: true } },
    list: [1, 'a'],
    number: 42,
    yes: true,
    text: 'größe 🚀',
  };
  await save(...Object.entries(values).map(([key, value]) => ({ key, value })));
  for (const [key, value] of Object.entries(values)) same(key, await state.get(STORE, key), value);
  ok('values of JSON');
  const large = 'x'.repeat(20 * 1024);
  await save({ key: 'large', value: { large } });
  same('large', await state.get(STORE, 'large'), { large });
  ok('a large value');
  // Over HTTP this SDK puts a key into the path as it is, so one with a `?` or `#` in it is not its to ask for.
  for (const key of ['a/b/c', 'größe', 'emoji 🚀 and spaces', 'UPPER', 'upper']) {
    await save({ key, value: `of ${key}` });
    same(`value of ${key}`, await state.get(STORE, key), `of ${key}`);
  }
  ok('keys of any text');
}

async function etags() {
  const etag = async (key) => (await state.getBulk(STORE, [key]))[0].etag;
  await save({ key: 'counted', value: 'a' });
  same('first etag', await etag('counted'), '1');
  await save({ key: 'counted', value: 'b', etag: '1', options: FIRST });
  same('second etag', await etag('counted'), '2');
  ok('etags are 1, then 2');
  const stale = await refused(
    'a stale save',
    state.save(STORE, [{ key: 'counted', value: 'c', etag: '1', options: FIRST }]),
  );
  same('a stale save', stale.code, STALE);
  same('a stale delete', (await refused('a stale delete', state.delete(STORE, 'counted', { etag: '1' }))).code, STALE);
  same('value after refusals', await state.get(STORE, 'counted'), 'b');
  await save({ key: 'counted', value: 'c', etag: '1', options: LAST });
  same('after the last write', await state.get(STORE, 'counted'), 'c');
  same('delete by etag', await state.delete(STORE, 'counted', { etag: '3' }), {});
  same('deleted by etag', await state.get(STORE, 'counted'), '');
  ok('a wrong etag is refused, unless the last write is to win');
}

async function timeToLive() {
  const began = Date.now();
  same('save', await state.save(STORE, [{ key: 'brief', value: 'a', metadata: { ttlInSeconds: `${TTL_S}` } }]), {});
  same(
    'save',
    await state.save(STORE, [{ key: 'brief too', value: 'a' }], { metadata: { ttlInSeconds: `${TTL_S}` } }),
    {},
  );
  for (const key of ['brief', 'brief too']) {
    same('while it lives', await state.get(STORE, key), 'a');
    const { headers } = await raw('GET', `/v1.0/state/${STORE}/${encodeURIComponent(key)}`);
    const expires = Date.parse(headers.get('metadata.ttlExpireTime') ?? '');
    if (!(expires > began && expires <= Date.now() + (TTL_S + 1) * 1000)) throw new Error(`${key} ends ${expires}`);
  }
  ok('an answer tells when it ends');
  for (const key of ['brief', 'brief too'])
    await until(`the end of ${key}`, async () => (await state.get(STORE, key)) === '');
  ok('a value ends with its time');
}

async function bulk() {
  await save(...[0, 1, 2].map((number) => ({ key: `bulk-${number}`, value: { number } })));
  const found = await state.getBulk(STORE, ['bulk-0', 'bulk-1', 'bulk-2', 'bulk-9']);
  const byKey = Object.fromEntries(found.map(({ key, data, etag }) => [key, [data || '', etag || '']]));
  same('bulk', byKey, {
    'bulk-0': [{ number: 0 }, '1'],
    'bulk-1': [{ number: 1 }, '1'],
    'bulk-2': [{ number: 2 }, '1'],
    'bulk-9': ['', ''],
  });
  ok('bulk save and bulk get');
}

async function transaction() {
  const upsert = (key, value, etag) => ({ operation: 'upsert', request: { key, value, etag } });
  const remove = (key, etag) => ({ operation: 'delete', request: { key, etag } });
  const found = async (...keys) => {
    const values = [];
    for (const key of keys) values.push(await state.get(STORE, key));
    return values;
  };
  await save({ key: 'tx-gone', value: 'old' });
  await state.transaction(STORE, [upsert('tx-a', 'one'), upsert('tx-b', 'two'), remove('tx-gone')]);
  same('after the transaction', await found('tx-a', 'tx-b', 'tx-gone'), ['one', 'two', '']);
  ok('a transaction does all');
  const operations = [upsert('tx-a', 'three', '1'), upsert('tx-c', 'four'), remove('tx-b', '9')];
  same('a stale etag', (await refused('a transaction', state.transaction(STORE, operations))).code, STALE);
  same('after the refusal', await found('tx-a', 'tx-b', 'tx-c'), ['one', 'two', '']);
  ok('or nothing');
}

async function errors() {
  const unknown = expected(400, Code.INVALID_ARGUMENT);
  for (const [what, call] of [
    ['get', () => state.get('unknown', 'a')],
    ['save', () => state.save('unknown', [{ key: 'a', value: 'b' }])],
    ['delete', () => state.delete('unknown', 'a')],
    ['bulk get', () => state.getBulk('unknown', ['a'])],
    ['transaction', () => state.transaction('unknown', [{ operation: 'upsert', request: { key: 'a', value: 'b' } }])],
  ]) {
    const { code, message } = await refused(what, call());
    same(`${what} of an unknown store`, code, unknown);
    if (!message.includes('state store unknown is not found')) throw new Error(`${what}: ${message}`);
    if (protocol === 'http') same('errorCode', JSON.parse(message).errorCode, 'ERR_STATE_STORE_NOT_FOUND');
  }
  ok('an unknown store is refused');
}

run(async () => {
  for (const part of [oneValue, values, etags, timeToLive, bulk, transaction, errors]) await part();
});
