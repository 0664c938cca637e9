// The same agent for Node, on its own fetch: posts its whole history to OPENAI_BASE_URL, answers calls, posts again.

const [turns, mode] = [Number(process.argv[2]), process.argv[3]];
const stream = mode === "stream";
const history = [{ role: "user", content: "Begin, please. ".repeat(40) }];
let sent = 0;

function outputOf(text) {
  if (!stream) return JSON.parse(text).output;
  const events = text.split("\n").filter((line) => line.startsWith("data: ")).map((line) => JSON.parse(line.slice(6)));
  return events.find((event) => event.type === "response.completed").response.output;
}

for (let turn = 0; turn < turns; turn++) {
  const body = JSON.stringify({ model: "gpt-sim", store: false, stream, instructions: "Be brief.", input: history });
  sent += Buffer.byteLength(body);
  const answer = await fetch(`${process.env.OPENAI_BASE_URL}/responses`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: "Bearer sk-agent" },
    body,
  });
  const output = outputOf(await answer.text());
  history.push(...output);
  const calls = output.filter((item) => item.type === "function_call");
  history.push(...calls.map((call) => ({ type: "function_call_output", call_id: call.call_id, output: "done ".repeat(50) })));
  if (calls.length === 0) history.push({ role: "user", content: `Go on with step ${turn}.` });
}

console.log(JSON.stringify({ turns, sent }));
