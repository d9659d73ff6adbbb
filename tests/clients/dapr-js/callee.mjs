// An application that others invoke, over Express or called by the runtime over gRPC. It invokes its own peer.

import { DaprServer, HttpMethod, closed, communicationProtocol, logger, nameOf, run } from './common.mjs';

run(async () => {
  const server = new DaprServer({
    serverHost: '127.0.0.1',
    serverPort: process.env.APP_PORT,
    communicationProtocol,
    logger,
    clientOptions: { communicationProtocol, logger },
  });
  for (const verb of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']) {
    const echo = async ({ body, query, headers }) => ({ verb, body, query, caller: headers?.['dapr-caller-app-id'] });
    await server.invoker.listen('echo', echo, { method: HttpMethod[verb] });
  }
  const chain = async () => ({
    told: await server.client.invoker.invoke(process.env.TWIN_PEER, 'echo', HttpMethod.POST, { a: 'through' }),
  });
  if (process.env.TWIN_PEER) await server.invoker.listen('chain', chain, { method: HttpMethod.GET });
  await server.start();
  console.log('ready');
  await closed();
});
