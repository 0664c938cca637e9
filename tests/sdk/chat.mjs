// Judges Chat Completions by the official JavaScript SDK and by the Vercel AI SDK: the same tool loop direct and through
// tailwire.
//
// An ordinary agent appends the assistant's message as its SDK has it, answers every call and posts the whole history
// again. Each turn through the proxy must be answered as the provider's own Chat endpoint answers it. Chat has no place
// for what the simulated provider saw, so that is looked up by the answer's id: the visible context and the settings
// must agree. With `--expect delta` every turn after the first must have been sent as one and say so in `x-tailwire`;
// with `--expect native` the proxy must have passed all turns on to the provider's own Chat endpoint.
// It starts no server and knows nothing of WebSockets: see `run.sh`. `chat.py` is its twin in Python.
//
// usage: chat.mjs --expect delta|native DIRECT_BASE_URL PROXY_BASE_URL

import assert from 'node:assert/strict';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, jsonSchema, streamText, tool } from 'ai';
import OpenAI from 'openai';

const CALLS = 12;
const MODEL = 'gpt-5.2';
// The directive to the simulated provider; what follows makes each conversation one of its own.
const QUESTION = `[sim calls=${CALLS} reasoning=1 text=120] Look the keys up one after the other, from JavaScript Chat, `;
const DESCRIPTION = 'Looks a key up.';
const PARAMETERS = { type: 'object', properties: { key: { type: 'string' } }, required: ['key'] };
const TOOL = { type: 'function', function: { name: 'lookup', description: DESCRIPTION, parameters: PARAMETERS } };
// Milliseconds for the whole judgement; a hang must end by itself.
const PATIENCE = 120_000;

/** A base URL whose last response's headers are kept. */
class Base {
  constructor(url) {
    this.url = url;
    this.fetch = async (...request) => {
      const response = await fetch(...request);
      this.headers = response.headers;
      return response;
    };
  }
}

/** An agent on the official SDK: `json` or `stream` (its stream helper). */
class Sdk {
  static kind = 'openai';

  constructor(base, form) {
    this.form = form;
    this.messages = [{ role: 'user', content: `${QUESTION}${form} SDK.` }];
    this.client = new OpenAI({ apiKey: 'sk-test', baseURL: base.url, maxRetries: 0, timeout: 20_000, fetch: base.fetch });
  }

  /** One turn: its id, text and calls. */
  async ask() {
    const body = { model: MODEL, messages: this.messages, tools: [TOOL] };
    const { completions } = this.client.chat;
    const reply = this.form === 'json' ? await completions.create(body) : await completions.stream(body).finalChatCompletion();
    this.said = reply.choices[0].message;
    const calls = (this.said.tool_calls ?? []).map((c) => [c.id, c.function.name, c.function.arguments]);
    return [reply.id, this.said.content, calls];
  }

  answer(results) {
    const told = results.map(([id, , content]) => ({ role: 'tool', tool_call_id: id, content }));
    this.messages = [...this.messages, this.said, ...told];
  }
}

/** An agent on the Vercel AI SDK's chat model: `json` or `stream`. */
class Vercel {
  static kind = 'vercel';

  constructor(base, form) {
    this.form = form;
    this.messages = [{ role: 'user', content: `${QUESTION}${form} Vercel.` }];
    this.model = createOpenAI({ apiKey: 'sk-test', baseURL: base.url, fetch: base.fetch }).chat(MODEL);
  }

  async ask() {
    // A tool without `execute`: the loop is ours, a turn at a time.
    const tools = { lookup: tool({ description: DESCRIPTION, inputSchema: jsonSchema(PARAMETERS) }) };
    const wish = { model: this.model, messages: this.messages, tools, maxRetries: 0 };
    const result = this.form === 'json' ? await generateText(wish) : streamText(wish);
    if (this.form === 'stream') await result.consumeStream();
    const response = await result.response;
    this.said = response.messages;
    const calls = (await result.toolCalls).map((c) => [c.toolCallId, c.toolName, JSON.stringify(c.input)]);
    return [response.id, (await result.text) || null, calls];
  }

  answer(results) {
    const content = results.map(([toolCallId, toolName, value]) => ({
      type: 'tool-result',
      toolCallId,
      toolName,
      output: { type: 'text', value },
    }));
    this.messages = [...this.messages, ...this.said, { role: 'tool', content }];
  }
}

/** The whole conversation, as a list of what was seen in each turn. */
async function loop(agent, base) {
  let fresh = 1;
  let items = 1;
  const turns = [];
  for (;;) {
    const [id, text, calls] = await agent.ask();
    const seen = await lookup(id);
    turns.push({
      answer: [text, calls, seen.visible, seen.settings],
      transport: seen.transport,
      header: base.headers.get('x-tailwire'),
      items: `${fresh}/${items}`,
    });
    if (calls.length === 0) return turns;
    assert.ok(turns.length <= CALLS, 'the model never stops calling');
    agent.answer(calls.map(([callId, name, args]) => [callId, name, found(turns.length, name, args)]));
    fresh = calls.length;
    items += 2 * calls.length;
  }
}

/** What the simulated provider knows of an answer. */
async function lookup(id) {
  const reply = await fetch(`${direct.url}/sim/answers/${id}`, { headers: { authorization: 'Bearer judge' } });
  assert.equal(reply.status, 200, `no answer ${id} is on record`);
  return reply.json();
}

/** What the tool says: about 1 KB that depends on the call alone. */
function found(round, name, args) {
  return `${round} ${name} ${args} is as long as a small page of text\n`.repeat(20).slice(0, 1024);
}

/** The members of an x-tailwire header. */
function told(header) {
  return Object.fromEntries(header.split(';').map((member) => member.trim().split('=')));
}

/** Compares both conversations and prints the mode's line. */
function judge(kind, form, plain, proxied) {
  assert.deepEqual([plain.length, proxied.length], [CALLS + 1, CALLS + 1], 'the number of turns');
  const sums = { received: 0, sent: 0, wire: 0 };
  let deltas = 0;
  proxied.forEach((ours, n) => {
    const place = `${kind} ${form} turn ${n}: ${ours.header}`;
    assert.equal(plain[n].header, null, `${place}: the direct turn went through a proxy`);
    assert.equal(plain[n].transport, 'Chat', `${place}: the direct turn was not native`);
    assert.deepEqual(ours.answer, plain[n].answer, `${place}: answered otherwise than direct`);
    assert.equal(ours.transport, expect === 'native' ? 'Chat' : 'WebSocket', place);
    if (expect === 'native') return;
    const header = told(ours.header);
    assert.equal(header.plan, n ? 'delta' : 'full', place);
    if (n) assert.ok(['visible', 'exact'].includes(header.grade), place);
    assert.equal(header.items, ours.items, place);
    if (header.plan === 'delta') deltas += 1;
    for (const k of Object.keys(sums)) sums[k] += Number(header[k]);
  });
  const line = `node   ${kind.padEnd(9)} chat ${form.padEnd(6)}  ${proxied.length} turns, `;
  if (expect === 'native') return console.log(`${line}all native, the same through both`);
  const saved = (100 * (1 - sums.wire / sums.received)).toFixed(1);
  console.log(
    `${line}${deltas} deltas, received ${sums.received}, sent ${sums.sent}, wire ${sums.wire} bytes, saved ${saved} %`,
  );
}

const [flag, expect, ...urls] = process.argv.slice(2);
if (flag !== '--expect' || !['delta', 'native'].includes(expect) || urls.length !== 2) {
  throw new Error('usage: chat.mjs --expect delta|native DIRECT_BASE_URL PROXY_BASE_URL');
}
setTimeout(() => {
  console.error('out of patience');
  process.exit(1);
}, PATIENCE).unref();
const [direct, proxy] = urls.map((url) => new Base(url));
for (const [Agent, form] of [[Sdk, 'json'], [Sdk, 'stream'], [Vercel, 'json'], [Vercel, 'stream']]) {
  judge(Agent.kind, form, await loop(new Agent(direct, form), direct), await loop(new Agent(proxy, form), proxy));
}
