// A counter as a Durable Object: a read of what it has in memory, and a change that is stored before the answer.

export class Counter {
  constructor(state) {
    this.state = state;
    this.count = 0;
    state.blockConcurrencyWhile(async () => {
      this.count = (await state.storage.get('count')) ?? 0;
    });
  }

  async fetch(request) {
    if (request.method !== 'GET') {
      this.count += 1;
      // The answer waits for the storage by itself: Durable Objects hold it behind the output gate.
      this.state.storage.put('count', this.count);
    }
    return Response.json(this.count);
  }
}

export default {
  fetch(request, { counters }) {
    const name = new URL(request.url).pathname;
    return counters.get(counters.idFromName(name)).fetch(request);
  },
};
