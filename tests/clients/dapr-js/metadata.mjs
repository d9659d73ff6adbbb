// What the runtime tells of itself, and what an application may add to it.

import { client, nameOf, ok, run, same } from './common.mjs';

run(async () => {
  const dapr = client();
  const metadata = await dapr.metadata.get();
  same('application', metadata.id, nameOf('service'));
  const components = Object.fromEntries(metadata.components.map(({ name, type }) => [name, type]));
  for (const [kind, name] of [
    ['state', 'state'],
    ['pubsub', 'pubsub'],
    ['secretstores', 'secrets'],
    ['configuration', 'configuration'],
  ]) {
    const type = components[nameOf(name)] ?? '';
    if (!type.startsWith(`${kind}.`))
      throw new Error(`${nameOf(name)} is not a ${kind} among ${JSON.stringify(components)}`);
  }
  ok('the stores are among the components');

  same('set', await dapr.metadata.set('team', 'größe a/b'), true);
  same('extended', (await dapr.metadata.get()).extended.team, 'größe a/b');
  ok('an attribute is set and read');
});
