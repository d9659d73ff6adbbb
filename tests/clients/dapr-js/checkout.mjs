// Publishes orders, as the public quick start does.

import { client, nameOf, ok, run, same } from './common.mjs';

run(async () => {
  const { pubsub } = client();
  for (const order of JSON.parse(nameOf('orders')))
    same('publish', await pubsub.publish(nameOf('pubsub'), nameOf('topic'), order), {});
  ok('orders are published');
});
