// Pages of other origins in a real Chromium, against the door and the node whose ports DOOR and NODE name.
//
// Prints one JSON object: what each attempt came to. Names under .example lead to this machine here, so a page of one of
// them is what it is elsewhere: another site, or, on a port of ours, one that has rebound its name.

import { createReadStream, createWriteStream, existsSync } from "node:fs";
import { chmod, mkdir, rename } from "node:fs/promises";
import { createServer } from "node:http";
import { spawnSync } from "node:child_process";
import { pipeline } from "node:stream/promises";
import { createBrotliDecompress } from "node:zlib";

import { chromium } from "playwright-core";

const { DOOR, NODE } = process.env;
const here = import.meta.dirname;

// The package has the program and the libraries it needs packed; they are unpacked once.
async function unpacked() {
  const from = `${here}/node_modules/@sparticuz/chromium/bin`;
  const to = `${here}/node_modules/.chromium`;
  if (!existsSync(`${to}/ready`)) {
    await mkdir(to, { recursive: true });
    const unpack = (name, into) =>
      pipeline(createReadStream(`${from}/${name}.br`), createBrotliDecompress(), createWriteStream(`${to}/${into}`));
    await unpack("chromium", "chromium");
    await unpack("al2023.tar", "al2023.tar");
    await chmod(`${to}/chromium`, 0o755);
    const tar = spawnSync("tar", ["xf", `${to}/al2023.tar`, "-C", to]);
    if (tar.status !== 0) throw new Error(`tar: ${tar.error ?? tar.stderr}`);
    await rename(`${to}/al2023.tar`, `${to}/ready`);
  }
  return to;
}

const folder = await unpacked();
const browser = await chromium.launch({
  executablePath: `${folder}/chromium`,
  env: { ...process.env, LD_LIBRARY_PATH: `${folder}/lib` },
  args: ["--headless", "--no-sandbox", "--host-resolver-rules=MAP *.example 127.0.0.1"],
});
const other = createServer((_, answer) => answer.setHeader("content-type", "text/html").end("<form></form>"));
await new Promise((listening) => other.listen(0, "127.0.0.1", listening));

// A request as a page makes it: what the page learns, `opaque` for an answer that it may not see.
const asked = ({ url, options }) => {
  const body = options.body === undefined ? undefined : new Blob([options.body]);
  return fetch(url, { ...options, body }).then(
    (answer) => (answer.type === "opaque" ? "opaque" : answer.status),
    () => "blocked",
  );
};
const from = async (at, requests) => {
  const page = await browser.newPage();
  await page.goto(at);
  const outcomes = {};
  for (const [name, url, options] of requests) outcomes[name] = await page.evaluate(asked, { url, options });
  await page.close();
  return outcomes;
};

const [door, node] = [`http://127.0.0.1:${DOOR}`, `http://127.0.0.1:${NODE}`];
const state = (key) => ({ method: "POST", body: JSON.stringify([{ key, value: 1 }]) });
const key = (label) => ({ method: "POST", body: JSON.stringify({ kind: "operator", label }) });
const blind = { mode: "no-cors" };
const attempts = [
  ["write at the door", `${door}/v1.0/state/statestore`, { ...blind, ...state("of-another-site") }],
  ["write at the door by name", `http://localhost:${DOOR}/v1.0/state/statestore`, { ...blind, ...state("by-name") }],
  ["read at the door", `${door}/v1.0/metadata`, {}],
  ["write at the node", `${node}/api/v1/keys`, { ...blind, ...key("of-another-site") }],
  ["read at the node", `${node}/api/v1/keys`, {}],
];
const elsewhere = other.address().port;
const outcomes = {
  "another site": await from(`http://evil.example:${elsewhere}/`, attempts),
  "another port": await from(`http://127.0.0.1:${elsewhere}/`, attempts),
  "a name rebound to the door": await from(`http://rebound.example:${DOOR}/`, [
    ["write", "/v1.0/state/statestore", state("rebound")],
    ["read", "/v1.0/metadata", {}],
  ]),
  "a name rebound to the node": await from(`http://rebound.example:${NODE}/readyz`, [
    ["write", "/api/v1/keys", key("rebound")],
    ["read", "/api/v1/keys", {}],
  ]),
  // What is not refused, or the above would say nothing.
  "the door itself": await from(`${door}/v1.0/metadata`, [
    ["write", "/v1.0/state/statestore", state("own")],
    ["read", "/v1.0/metadata", {}],
  ]),
  "the node itself": await from(`${node}/readyz`, [
    ["write", "/api/v1/keys", key("own")],
    ["read", "/api/v1/keys", {}],
  ]),
};
// A form is sent as a page that is gone to, and no script learns of it.
const page = await browser.newPage();
await page.goto(`http://evil.example:${elsewhere}/`);
await page.evaluate((action) => {
  const form = document.forms[0];
  Object.assign(form, { action, method: "post", enctype: "text/plain" });
  // The = between name and value lies within a text.
  form.innerHTML = `<input name='[{"key": "of-a-form", "value": "' value='"}]'>`;
}, `${door}/v1.0/state/statestore`);
const answered = page.waitForResponse((answer) => answer.url().startsWith(door));
await page.evaluate(() => document.forms[0].submit());
outcomes["a form of another site"] = { write: (await answered).status() };

console.log(JSON.stringify(outcomes));
await browser.close();
other.close();
