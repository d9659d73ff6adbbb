// Configuration: read, watched, and no longer watched. This SDK has it over gRPC only.

import { Code, client, nameOf, ok, refused, run, same, until, want } from './common.mjs';

const STORE = nameOf('configuration');
const seeded = JSON.parse(nameOf('seeded_configuration'));

run(async () => {
  const { configuration } = client();
  const names = Object.keys(seeded).sort();
  const values = (items) => Object.fromEntries(Object.entries(items).map(([key, { value }]) => [key, value]));
  const { items } = await configuration.get(STORE, names);
  same('several keys', values(items), seeded);
  for (const { key, version } of Object.values(items)) if (!version) throw new Error(`${key} has no version`);
  same('one key', Object.keys((await configuration.get(STORE, [names[0]])).items), [names[0]]);
  same('all keys', values((await configuration.get(STORE, [])).items), seeded);
  ok('one, several and all keys are read');
  same(
    'an unknown store',
    (await refused('an unknown store', configuration.get('unknown', names))).code,
    Code.INVALID_ARGUMENT,
  );
  ok('an unknown store is refused');

  const told = [];
  const [watched, other] = names;
  const stream = await configuration.subscribeWithKeys(STORE, [watched], async (answer) =>
    told.push(values(answer.items)),
  );
  // The SDK opens its stream behind our back: a change that it was too late for is made again.
  let number = 0;
  await until('the first change', async () => {
    if (told.length === 0) await want('configuration', watched, `changed-${number++}`);
    return told.some((items) => items[watched].startsWith('changed-'));
  });
  await want('configuration', other, 'not asked for');
  await want('configuration', watched, 'changed');
  await until('the change', () => told.some((items) => items[watched] === 'changed'));
  if (told.some((items) => other in items)) throw new Error(`told of ${other}, too: ${JSON.stringify(told)}`);
  ok("a change is told, and no other key's");
  await stream.stop();
  told.length = 0;
  await want('configuration', watched, 'again');
  same('read after the end', (await configuration.get(STORE, [watched])).items[watched].value, 'again');
  same('told after the end', told, []);
  ok('after the end nothing is told');
});
