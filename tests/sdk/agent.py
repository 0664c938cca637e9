#!/usr/bin/env python3
"""Judges the proxy by the official Python SDK: the same tool loop direct and through tailwire.

An ordinary agent appends `response.output` unchanged, answers every call and posts the whole history again.
Each turn through the proxy must be answered as the direct one is, be sent as a delta, and say so in its
`x-tailwire` header. The simulated provider adds digests of what the model saw; they must agree too.
It starts no server and knows nothing of WebSockets: see `run.sh`. `agent.mjs` is its twin in JavaScript.

usage: agent.py DIRECT_BASE_URL PROXY_BASE_URL
"""
import signal
import sys

import openai

CALLS = 12
# The directive to the simulated provider; what follows makes each conversation one of its own.
QUESTION = f"[sim calls={CALLS} reasoning=1 text=120] Look the keys up one after the other, from Python, "
TOOL = {
    "type": "function",
    "name": "lookup",
    "description": "Looks a key up.",
    "parameters": {
        "type": "object",
        "properties": {"key": {"type": "string"}},
        "required": ["key"],
        "additionalProperties": False,
    },
    "strict": True,
}
# Seconds for the whole judgement; a hang must end by itself.
PATIENCE = 180


class Agent:
    """A client of one base URL that keeps the headers of the last response."""

    def __init__(self, base_url):
        hooks = {"response": [self.remember]}
        self.headers = None
        self.client = openai.OpenAI(
            api_key="sk-test",
            base_url=base_url,
            max_retries=0,
            timeout=20,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks),
        )

    def remember(self, response):
        self.headers = response.headers

    def ask(self, mode, items):
        """One turn: the final response and the types of its events (none without a stream)."""
        form, store = mode
        body = {"model": "gpt-5.2", "input": items, "tools": [TOOL], "store": store}
        if not store:
            body["include"] = ["reasoning.encrypted_content"]
        if form == "json":
            return self.client.responses.create(**body), []
        if form == "helper":
            with self.client.responses.stream(**body) as stream:
                events = list(stream)
                return stream.get_final_response(), [e.type for e in events]
        events = list(self.client.responses.create(**body, stream=True))
        assert [e.sequence_number for e in events] == list(range(len(events))), "a gap in the stream"
        return events[-1].response, [e.type for e in events]


def loop(agent, mode):
    """The whole conversation, as a list of what was seen in each turn."""
    items, fresh, turns = [{"role": "user", "content": f"{QUESTION}{mode}."}], 1, []
    while True:
        response, events = agent.ask(mode, items)
        calls = [o for o in response.output if o.type == "function_call"]
        assert response.status == "completed" and response.previous_response_id is None
        turns.append({
            "answer": (response.output_text, [(c.name, c.arguments) for c in calls], events, response.sim),
            "header": agent.headers.get("x-tailwire"),
            "items": (fresh, len(items)),
        })
        if not calls:
            return turns
        assert len(turns) <= CALLS, "the model never stops calling"
        items = items + list(response.output)
        items += [{"type": "function_call_output", "call_id": c.call_id, "output": found(len(turns), c)} for c in calls]
        fresh = len(calls)


def found(round_, call):
    """What the tool says: about 1 KB that depends on the call alone."""
    line = f"{round_} {call.name} {call.arguments} is as long as a small page of text\n"
    return (line * 20)[:1024]


def told(header):
    """The members of an x-tailwire header."""
    return dict(member.strip().split("=", 1) for member in header.split(";"))


def judge(mode, direct, proxied):
    """Compares both conversations and prints the mode's line."""
    assert len(direct) == len(proxied) == CALLS + 1, f"{len(direct)} and {len(proxied)} turns"
    sums, deltas = dict.fromkeys(("received", "sent", "wire"), 0), 0
    for n, (plain, ours) in enumerate(zip(direct, proxied)):
        place = f"{mode} turn {n}: {ours['header']}"
        assert plain["header"] is None, f"{place}: the direct turn went through a proxy"
        assert plain["answer"] == ours["answer"], f"{place}: {plain['answer']} became {ours['answer']}"
        header = told(ours["header"])
        assert header["plan"] == ("delta" if n else "full"), place
        assert n == 0 or header["grade"] == "exact", place
        assert header["items"] == "%d/%d" % ours["items"], f"{place}: should be {ours['items']}"
        deltas += header["plan"] == "delta"
        for k in sums:
            sums[k] += int(header[k])
    form, store = mode
    print(
        f"python {form:6} store={str(store).lower():5}  {len(proxied)} turns, {deltas} deltas, "
        f"received {sums['received']}, sent {sums['sent']}, wire {sums['wire']} bytes, "
        f"saved {100 * (1 - sums['wire'] / sums['received']):.1f} %"
    )


def failure(agent, **wrong):
    """How the SDK reports a request that the provider refuses."""
    body = {"model": "gpt-5.2", "input": [{"role": "user", "content": "hello"}], **wrong}
    try:
        agent.client.responses.create(**body)
    except openai.APIStatusError as error:
        return type(error).__name__, error.status_code, error.message, error.code
    raise AssertionError(f"the provider accepted {wrong}")


def judge_failures(direct, proxy):
    orphan = {"type": "function_call_output", "call_id": "call_nowhere", "output": "?"}
    for wrong in ({"input": [orphan]}, {"input": 7}):
        for stream in (False, True):
            plain, ours = (failure(a, **wrong, stream=stream) for a in (direct, proxy))
            assert plain == ours and 400 <= plain[1] < 500, f"{wrong}: {plain} became {ours}"
            print(f"python error  stream={str(stream).lower():5} {plain[0]} {plain[1]}, the same through both")


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    signal.alarm(PATIENCE)
    direct, proxy = map(Agent, sys.argv[1:])
    for mode in (("json", True), ("json", False), ("stream", True), ("stream", False), ("helper", False)):
        judge(mode, loop(direct, mode), loop(proxy, mode))
    judge_failures(direct, proxy)


if __name__ == "__main__":
    main()
