// Secrets of the own twin, one and all.

import { Code, client, expected, nameOf, ok, refused, run, same } from './common.mjs';

const STORE = nameOf('secrets');
const secrets = JSON.parse(nameOf('seeded_secrets'));

run(async () => {
  const { secret } = client();
  for (const [name, value] of Object.entries(secrets))
    same(name, { ...(await secret.get(STORE, name)) }, { [name]: value });
  ok('a secret is read');
  const all = Object.entries(await secret.getBulk(STORE)).map(([name, value]) => [name, { ...value }]);
  same(
    'all',
    Object.fromEntries(all),
    Object.fromEntries(Object.entries(secrets).map(([name, value]) => [name, { [name]: value }])),
  );
  ok('all secrets are read, and only ours');
  const { code, message } = await refused('an absent secret', secret.get(STORE, 'absent'));
  if (!expected([404, 500], [Code.NOT_FOUND, Code.INTERNAL]).includes(code))
    throw new Error(`an absent secret: ${code}`);
  if (!message.includes('absent')) throw new Error(`the refusal does not name the secret: ${message}`);
  ok('an absent secret is refused');
  same(
    'an unknown store',
    (await refused('an unknown store', secret.get('unknown', 'a'))).code,
    expected(401, Code.INVALID_ARGUMENT),
  );
  same('all of it', (await refused('all of it', secret.getBulk('unknown'))).code, expected(401, Code.INVALID_ARGUMENT));
  ok('an unknown store is refused');
});
