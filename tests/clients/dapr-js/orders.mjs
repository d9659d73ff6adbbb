// An order processor, as in the public quick start: over Express, or called by the runtime over gRPC.

import {
  DaprPubSubStatusEnum,
  DaprServer,
  closed,
  communicationProtocol,
  logger,
  nameOf,
  ok,
  run,
  same,
  until,
} from './common.mjs';

const PUBSUB = nameOf('pubsub');
const TOPIC = nameOf('topic');
const orders = JSON.parse(nameOf('orders')).map(({ orderId }) => orderId);
// What the processor does with them; the others it takes.
const AGAIN = 7;
const BAD = 13;

run(async () => {
  const counts = {};
  const dead = [];
  const server = new DaprServer({
    serverHost: '127.0.0.1',
    serverPort: process.env.APP_PORT,
    communicationProtocol,
    logger,
    clientOptions: { communicationProtocol, logger },
  });
  await server.pubsub.subscribeWithOptions(PUBSUB, TOPIC, {
    deadLetterTopic: `${TOPIC}-dead`,
    callback: async ({ orderId }) => {
      counts[orderId] = (counts[orderId] ?? 0) + 1;
      if (orderId === BAD) return DaprPubSubStatusEnum.DROP;
      return orderId === AGAIN && counts[orderId] === 1 ? DaprPubSubStatusEnum.RETRY : DaprPubSubStatusEnum.SUCCESS;
    },
  });
  await server.pubsub.subscribe(PUBSUB, `${TOPIC}-dead`, async ({ orderId }) => void dead.push(orderId));
  await server.start();
  console.log('ready');
  await closed();
  const missing = () => orders.filter((order) => (counts[order] ?? 0) < (order === AGAIN ? 2 : 1));
  await until(
    () => `${missing()} of ${JSON.stringify(counts)}, and dead letters ${dead}`,
    () => missing().length === 0 && dead.includes(BAD),
  );
  ok('orders are received');
  ok('an order to retry comes again');
  same('dead letters', dead, [BAD]);
  ok('a dropped order is a dead letter');
});
