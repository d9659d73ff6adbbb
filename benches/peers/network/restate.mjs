// A counter as a virtual object of Restate: each call is journaled before its answer.

import * as restate from '@restatedev/restate-sdk';

// The SDK needs this of Node.js 22; what it does is the same in 20.
Promise.withResolvers ??= () => {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

const counter = restate.object({
  name: 'counter',
  handlers: {
    add: async (context) => {
      const count = ((await context.get('count')) ?? 0) + 1;
      context.set('count', count);
      return count;
    },
  },
});

const port = Number(process.argv[2]);
await restate.serve({ services: [counter], port });
