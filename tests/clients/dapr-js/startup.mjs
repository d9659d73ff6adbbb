// A client is made from three environment variables, or from host and port.

import { client, expected, nameOf, ok, run, same } from './common.mjs';

const AT_ONCE_MS = 5_000;

run(async () => {
  for (const variable of ['DAPR_HTTP_PORT', 'DAPR_GRPC_PORT']) same(variable, process.env[variable], undefined);
  const began = Date.now();
  const dapr = client();
  same('who the token says we are', (await dapr.metadata.get()).id, nameOf('service'));
  if (Date.now() - began > AT_ONCE_MS) throw new Error('the client waited for the runtime');
  ok('three variables are enough');

  const daprPort = nameOf(expected('http_port', 'grpc_port'));
  for (const daprHost of ['127.0.0.1', 'http://127.0.0.1']) {
    const explicit = client({ daprHost, daprPort });
    same('who the token says we are', (await explicit.metadata.get()).id, nameOf('service'));
  }
  ok('an explicit host and port are taken');

  const started = client();
  await started.start();
  same('initialised', started.getIsInitialized(), true);
  same('healthy', await started.health.isHealthy(), true);
  await started.stop();
  ok('a client starts and is healthy');
});
