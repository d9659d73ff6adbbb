// What is not served is said to be so.

import { Code, client, expected, ok, refused, run, same } from './common.mjs';

const NOT = expected(501, Code.UNIMPLEMENTED);

run(async () => {
  const { binding, lock, state } = client();
  for (const [what, call] of [
    ['locks', () => lock.lock('lockstore', 'resource', 'owner', 10)],
    ['unlocks', () => lock.unlock('lockstore', 'resource', 'owner')],
    ['bindings', () => binding.send('binding', 'create', { a: 1 })],
    ['queries', () => state.query('statestore', { filter: {}, sort: [], page: { limit: 1 } })],
  ]) {
    same(what, (await refused(what, call())).code, NOT);
    ok(what);
  }
});
