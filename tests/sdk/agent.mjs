// Judges the proxy by the official JavaScript SDK: the same tool loop direct and through tailwire.
//
// An ordinary agent appends `response.output` unchanged, answers every call and posts the whole history again.
// Each turn through the proxy must be answered as the direct one is, be sent as a delta, and say so in its
// `x-tailwire` header. The simulated provider adds digests of what the model saw; they must agree too.
// It starts no server and knows nothing of WebSockets: see `run.sh`. `agent.py` is its twin in Python.
//
// usage: agent.mjs DIRECT_BASE_URL PROXY_BASE_URL

import assert from 'node:assert/strict';
import OpenAI from 'openai';

const CALLS = 12;
// The directive to the simulated provider; what follows makes each conversation one of its own.
const QUESTION = `[sim calls=${CALLS} reasoning=1 text=120] Look the keys up one after the other, from JavaScript, `;
const TOOL = {
  type: 'function',
  name: 'lookup',
  description: 'Looks a key up.',
  parameters: {
    type: 'object',
    properties: { key: { type: 'string' } },
    required: ['key'],
    additionalProperties: false,
  },
  strict: true,
};
// Milliseconds for the whole judgement; a hang must end by itself.
const PATIENCE = 180_000;

/** A client of one base URL that keeps the headers of the last response. */
class Agent {
  constructor(baseURL) {
    const remembering = async (...request) => {
      const response = await fetch(...request);
      this.headers = response.headers;
      return response;
    };
    this.client = new OpenAI({ apiKey: 'sk-test', baseURL, maxRetries: 0, timeout: 20_000, fetch: remembering });
  }

  /** One turn: the final response and the types of its events (none without a stream). */
  async ask([form, store], items) {
    const body = { model: 'gpt-5.2', input: items, tools: [TOOL], store };
    if (!store) body.include = ['reasoning.encrypted_content'];
    if (form === 'json') return [await this.client.responses.create(body), []];
    const events = [];
    if (form === 'helper') {
      const stream = this.client.responses.stream(body);
      for await (const event of stream) events.push(event);
      return [await stream.finalResponse(), events.map((e) => e.type)];
    }
    for await (const event of await this.client.responses.create({ ...body, stream: true })) events.push(event);
    assert.deepEqual(events.map((e) => e.sequence_number), [...events.keys()], 'a gap in the stream');
    return [events.at(-1).response, events.map((e) => e.type)];
  }
}

/** The whole conversation, as a list of what was seen in each turn. */
async function loop(agent, mode) {
  let items = [{ role: 'user', content: `${QUESTION}${mode}.` }];
  let fresh = 1;
  const turns = [];
  for (;;) {
    const [response, events] = await agent.ask(mode, items);
    const calls = response.output.filter((o) => o.type === 'function_call');
    assert.equal(response.status, 'completed');
    assert.equal(response.previous_response_id, null);
    turns.push({
      answer: [text(response), calls.map((c) => [c.name, c.arguments]), events, response.sim],
      header: agent.headers.get('x-tailwire'),
      items: `${fresh}/${items.length}`,
    });
    if (calls.length === 0) return turns;
    assert.ok(turns.length <= CALLS, 'the model never stops calling');
    const answers = calls.map((c) => ({
      type: 'function_call_output',
      call_id: c.call_id,
      output: found(turns.length, c),
    }));
    items = [...items, ...response.output, ...answers];
    fresh = answers.length;
  }
}

/** `output_text` is there only for responses that did not come as a stream. */
function text(response) {
  const parts = response.output.filter((o) => o.type === 'message').flatMap((o) => o.content);
  return parts.map((p) => p.text).join('');
}

/** What the tool says: about 1 KB that depends on the call alone. */
function found(round, call) {
  const line = `${round} ${call.name} ${call.arguments} is as long as a small page of text\n`;
  return line.repeat(20).slice(0, 1024);
}

/** The members of an x-tailwire header. */
function told(header) {
  return Object.fromEntries(header.split(';').map((member) => member.trim().split('=')));
}

/** Compares both conversations and prints the mode's line. */
function judge([form, store], direct, proxied) {
  assert.deepEqual([direct.length, proxied.length], [CALLS + 1, CALLS + 1], 'the number of turns');
  const sums = { received: 0, sent: 0, wire: 0 };
  let deltas = 0;
  proxied.forEach((ours, n) => {
    const place = `${form} store=${store} turn ${n}: ${ours.header}`;
    assert.equal(direct[n].header, null, `${place}: the direct turn went through a proxy`);
    assert.deepEqual(ours.answer, direct[n].answer, `${place}: answered otherwise than direct`);
    const header = told(ours.header);
    assert.equal(header.plan, n ? 'delta' : 'full', place);
    if (n) assert.equal(header.grade, 'exact', place);
    assert.equal(header.items, ours.items, place);
    if (header.plan === 'delta') deltas += 1;
    for (const k of Object.keys(sums)) sums[k] += Number(header[k]);
  });
  const saved = (100 * (1 - sums.wire / sums.received)).toFixed(1);
  console.log(
    `node   ${form.padEnd(6)} store=${String(store).padEnd(5)}  ${proxied.length} turns, ${deltas} deltas, ` +
      `received ${sums.received}, sent ${sums.sent}, wire ${sums.wire} bytes, saved ${saved} %`,
  );
}

/** How the SDK reports a request that the provider refuses. */
async function failure(agent, wrong) {
  const body = { model: 'gpt-5.2', input: [{ role: 'user', content: 'hello' }], ...wrong };
  try {
    await agent.client.responses.create(body);
  } catch (error) {
    assert.ok(error instanceof OpenAI.APIError, `not the SDK's error: ${error}`);
    return [error.constructor.name, error.status, error.message, error.code];
  }
  throw new Error(`the provider accepted ${JSON.stringify(wrong)}`);
}

async function judgeFailures(direct, proxy) {
  const orphan = { type: 'function_call_output', call_id: 'call_nowhere', output: '?' };
  for (const wrong of [{ input: [orphan] }, { input: 7 }]) {
    for (const stream of [false, true]) {
      const plain = await failure(direct, { ...wrong, stream });
      const ours = await failure(proxy, { ...wrong, stream });
      assert.deepEqual(ours, plain, `${JSON.stringify(wrong)} was refused otherwise`);
      assert.ok(plain[1] >= 400 && plain[1] < 500, `an odd refusal: ${plain}`);
      console.log(`node   error  stream=${String(stream).padEnd(5)} ${plain[0]} ${plain[1]}, the same through both`);
    }
  }
}

if (process.argv.length !== 4) throw new Error('usage: agent.mjs DIRECT_BASE_URL PROXY_BASE_URL');
setTimeout(() => {
  console.error('out of patience');
  process.exit(1);
}, PATIENCE).unref();
const [direct, proxy] = process.argv.slice(2).map((url) => new Agent(url));
for (const mode of [['json', true], ['json', false], ['stream', true], ['stream', false], ['helper', false]]) {
  judge(mode, await loop(direct, mode), await loop(proxy, mode));
}
await judgeFailures(direct, proxy);
