// Events of every form are published. This SDK has no streaming subscription; how they arrive is told by the order
// processors.

import { Code, client, expected, nameOf, ok, refused, run, same } from './common.mjs';

const PUBSUB = nameOf('pubsub');
const TOPIC = `${nameOf('topic')}/forms`;

run(async () => {
  const { pubsub } = client();
  const event = { specversion: '1.0', id: 'own-1', source: 'own', type: 'own.type', data: { a: 1 } };
  for (const [what, data, options] of [
    ['text', 'größe'],
    ['JSON', { orderId: 1 }],
    ['a list', [1, 2]],
    ['bytes', Buffer.from([0, 1, 255])],
    ['a whole CloudEvent', event],
    ['a type of its own', '{"a":1}', { contentType: 'application/json' }],
    ['metadata', 'a', { metadata: { 'cloudevent.id': 'over-1', ttlInSeconds: '600' } }],
    ['a raw payload', 'raw', { metadata: { rawPayload: 'true' } }],
  ]) {
    same(what, await pubsub.publish(PUBSUB, TOPIC, data, options), {});
    ok(what);
  }
  const messages = [
    'text',
    { a: 1 },
    { entryID: 'own', event: { b: 2 }, contentType: 'application/json', metadata: { a: 'b' } },
  ];
  same('bulk', await pubsub.publishBulk(PUBSUB, TOPIC, messages), { failedMessages: [] });
  ok('bulk publish');
  const { failedMessages } = await pubsub.publishBulk('unknown', TOPIC, messages);
  same('bulk to an unknown pubsub', failedMessages.length, messages.length);
  ok('a bulk that is refused fails as a whole');
  const { code } = await refused('an unknown pubsub', pubsub.publish('unknown', TOPIC, 'a'));
  same('an unknown pubsub', code, expected(404, Code.INVALID_ARGUMENT));
  ok('an unknown pubsub is refused');
});
