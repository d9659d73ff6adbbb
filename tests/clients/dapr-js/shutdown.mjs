// Shutdown ends this session, and nothing else.

import { client, nameOf, ok, run, same, until } from './common.mjs';

run(async () => {
  const dapr = client();
  same('save', await dapr.state.save(nameOf('state'), [{ key: 'kept', value: 'value' }]), {});
  await dapr.sidecar.shutdown();
  ok('shutdown is answered');
  // The runner looks after the node and after everybody else; a new session of our own works as well.
  await until('a session after shutdown', async () => (await client().state.get(nameOf('state'), 'kept')) === 'value');
  ok('a new session finds what was kept');
});
