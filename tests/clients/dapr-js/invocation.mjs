// Another application is invoked by its name.

import { HttpMethod, client, nameOf, ok, protocol, refused, run, same } from './common.mjs';

const PEER = nameOf('peer');

run(async () => {
  const { invoker } = client();
  for (const verb of ['POST', 'PUT', 'PATCH', 'DELETE']) {
    const told = await invoker.invoke(PEER, 'echo', HttpMethod[verb], { a: 'ü' });
    same('verb', told.verb, verb);
    same('body', JSON.parse(told.body), { a: 'ü' });
    if (protocol === 'http') same('caller', told.caller, nameOf('service'));
  }
  same('GET', (await invoker.invoke(PEER, 'echo', HttpMethod.GET)).verb, 'GET');
  ok('verbs and bodies');
  if (protocol === 'http') {
    same('query', (await invoker.invoke(PEER, 'echo?a=1&b=2', HttpMethod.GET)).query, '/echo?a=1&b=2');
    ok('a query');
    const { code, message } = await refused('an absent method', invoker.invoke(PEER, 'absent', HttpMethod.GET));
    same('an absent method', code, 404);
    if (!message.includes('Cannot GET /absent')) throw new Error(`the answer of the application is lost: ${message}`);
    ok('a status is passed through, with its body');
  }
  const { code } = await refused('an unknown application', invoker.invoke('unknown', 'a', HttpMethod.POST, {}));
  if (protocol === 'http') same('an unknown application', code, 500);
  ok('an unknown application is refused');
  const { told } = await invoker.invoke(PEER, 'chain', HttpMethod.GET);
  same('chain', [told.verb, JSON.parse(told.body)], ['POST', { a: 'through' }]);
  ok('a chain');
});
