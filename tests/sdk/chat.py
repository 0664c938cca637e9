#!/usr/bin/env python3
"""Judges Chat Completions by the official Python SDK and by LangChain: the same tool loop direct and through tailwire.

An ordinary agent appends the assistant's message as its SDK has it, answers every call and posts the whole history
again. Each turn through the proxy must be answered as the provider's own Chat endpoint answers it. Chat has no place
for what the simulated provider saw, so that is looked up by the answer's id: the visible context and the settings
must agree. With `--expect delta` every turn after the first must have been sent as one and say so in `x-tailwire`;
with `--expect native` the proxy must have passed all turns on to the provider's own Chat endpoint.
It starts no server and knows nothing of WebSockets: see `run.sh`. `chat.mjs` is its twin in JavaScript.

usage: chat.py --expect delta|native DIRECT_BASE_URL PROXY_BASE_URL
"""
import json
import re
import signal
import sys
import urllib.request

import openai
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

CALLS = 12
MODEL = "gpt-5.2"
# The directive to the simulated provider; what follows makes each conversation one of its own.
QUESTION = f"[sim calls={CALLS} reasoning=1 text=120] Look the keys up one after the other, from Python Chat, "
TOOL = {
    "type": "function",
    "function": {
        "name": "lookup",
        "description": "Looks a key up.",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
    },
}
# Seconds for the whole judgement; a hang must end by itself.
PATIENCE = 120


class Base:
    """A base URL whose last response is kept: its headers, and its body as far as it was read."""

    def __init__(self, url):
        self.url, self.headers, self.body = url, None, b""
        self.http = openai.DefaultHttpxClient(event_hooks={"response": [self.remember]})

    def remember(self, response):
        self.headers, self.body = response.headers, b""
        base, inner = self, response.stream

        class Tee(type(inner)):
            def __init__(self):
                pass

            def __iter__(self):
                for part in inner:
                    base.body += part
                    yield part

            def close(self):
                inner.close()

        response.stream = Tee()

    def answer_id(self):
        """The id that the last reply gives itself, for a framework that keeps it to itself."""
        return re.search(rb'"id":"(chatcmpl-[^"]+)"', self.body)[1].decode()


class Sdk:
    """An agent on the official SDK: `json`, `stream` (the assistant's message added up by hand) or `helper`."""

    name = "openai"

    def __init__(self, base, form):
        self.form, self.messages = form, [{"role": "user", "content": f"{QUESTION}{form} SDK."}]
        self.client = openai.OpenAI(
            api_key="sk-test", base_url=base.url, max_retries=0, timeout=20, http_client=base.http
        )

    def ask(self):
        """One turn: (id, text, calls as (id, name, arguments))."""
        body = {"model": MODEL, "messages": self.messages, "tools": [TOOL]}
        completions = self.client.chat.completions
        if self.form == "stream":
            stream = completions.create(**body, stream=True, stream_options={"include_usage": True})
            answer_id, self.said = added_up(stream)
        else:
            if self.form == "helper":
                with completions.stream(**body) as stream:
                    reply = stream.get_final_completion()
            else:
                reply = completions.create(**body)
            answer_id, self.said = reply.id, reply.choices[0].message
        # The message goes back as it is; this is only what is compared.
        message = self.said if isinstance(self.said, dict) else self.said.model_dump()
        functions = [(c["id"], c["function"]) for c in message.get("tool_calls") or []]
        return answer_id, message["content"], [(i, f["name"], f["arguments"]) for i, f in functions]

    def answer(self, results):
        self.messages = [*self.messages, self.said]
        self.messages += [{"role": "tool", "tool_call_id": i, "content": found} for i, found in results]


def added_up(chunks):
    """(id, message): the message that the chunks of a stream add up to."""
    answer_id, text, calls, reason, usage = None, "", [], None, None
    for chunk in chunks:
        answer_id, usage = chunk.id, chunk.usage or usage
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            text += choice.delta.content or ""
            for piece in choice.delta.tool_calls or []:
                if piece.index == len(calls):
                    function = {"name": piece.function.name, "arguments": ""}
                    calls.append({"id": piece.id, "type": "function", "function": function})
                calls[piece.index]["function"]["arguments"] += piece.function.arguments or ""
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert reason == ("tool_calls" if calls else "stop"), reason
    message = {"role": "assistant", "content": text or None}
    return answer_id, {**message, "tool_calls": calls} if calls else message


class LangChain:
    """An agent on LangChain's model class: `invoke` or `stream`."""

    name = "langchain"

    def __init__(self, base, form):
        self.base, self.form, self.messages = base, form, [HumanMessage(f"{QUESTION}{form} LangChain.")]
        self.model = ChatOpenAI(
            model=MODEL, api_key="sk-test", base_url=base.url, max_retries=0, timeout=20, http_client=base.http,
            use_responses_api=False,
        ).bind_tools([TOOL])

    def ask(self):
        if self.form == "invoke":
            self.said = self.model.invoke(self.messages)
        else:
            self.said = AIMessageChunk("")
            for chunk in self.model.stream(self.messages):
                self.said = self.said + chunk
        calls = [(c["id"], c["name"], json.dumps(c["args"], sort_keys=True)) for c in self.said.tool_calls]
        assert not self.said.invalid_tool_calls
        return self.base.answer_id(), self.said.content or None, calls

    def answer(self, results):
        self.messages = [*self.messages, self.said, *(ToolMessage(found, tool_call_id=i) for i, found in results)]


def loop(agent, base, lookup):
    """The whole conversation, as a list of what was seen in each turn."""
    fresh, items, turns = 1, 1, []
    while True:
        answer_id, text, calls = agent.ask()
        seen = lookup(answer_id)
        turns.append({
            "answer": (text, calls, seen["visible"], seen["settings"]),
            "transport": seen["transport"],
            "header": base.headers.get("x-tailwire"),
            "items": (fresh, items),
        })
        if not calls:
            return turns
        assert len(turns) <= CALLS, "the model never stops calling"
        agent.answer([(i, found(len(turns), name, arguments)) for i, name, arguments in calls])
        fresh, items = len(calls), items + 2 * len(calls)


def found(round_, name, arguments):
    """What the tool says: about 1 KB that depends on the call alone."""
    line = f"{round_} {name} {arguments} is as long as a small page of text\n"
    return (line * 20)[:1024]


def told(header):
    """The members of an x-tailwire header."""
    return dict(member.strip().split("=", 1) for member in header.split(";"))


def judge(kind, form, expect, direct, proxied):
    """Compares both conversations and prints the mode's line."""
    assert len(direct) == len(proxied) == CALLS + 1, f"{len(direct)} and {len(proxied)} turns"
    sums, deltas = dict.fromkeys(("received", "sent", "wire"), 0), 0
    for n, (plain, ours) in enumerate(zip(direct, proxied)):
        place = f"{kind.name} {form} turn {n}: {ours['header']}"
        assert plain["header"] is None and plain["transport"] == "Chat", f"{place}: the direct turn was not native"
        assert plain["answer"] == ours["answer"], f"{place}: {plain['answer']} became {ours['answer']}"
        if expect == "native":
            assert ours["transport"] == "Chat", f"{place}: went over {ours['transport']}"
            continue
        assert ours["transport"] == "WebSocket", f"{place}: went over {ours['transport']}"
        header = told(ours["header"])
        assert header["plan"] == ("delta" if n else "full"), place
        assert n == 0 or header["grade"] in ("visible", "exact"), place
        assert header["items"] == "%d/%d" % ours["items"], f"{place}: should be {ours['items']}"
        deltas += header["plan"] == "delta"
        for k in sums:
            sums[k] += int(header[k])
    line = f"python {kind.name:9} chat {form:6}  {len(proxied)} turns, "
    if expect == "native":
        print(f"{line}all native, the same through both")
        return
    print(
        f"{line}{deltas} deltas, received {sums['received']}, sent {sums['sent']}, wire {sums['wire']} bytes, "
        f"saved {100 * (1 - sums['wire'] / sums['received']):.1f} %"
    )


def failure(base, **wrong):
    """How the SDK reports a request that the provider refuses."""
    client = openai.OpenAI(api_key="sk-test", base_url=base.url, max_retries=0, timeout=20, http_client=base.http)
    try:
        client.chat.completions.create(model=MODEL, **wrong)
    except openai.APIStatusError as error:
        return type(error).__name__, error.status_code, error.message, error.code
    raise AssertionError(f"the provider accepted {wrong}")


def judge_failures(direct, proxy):
    orphan = {"role": "tool", "tool_call_id": "call_nowhere", "content": "?"}
    for wrong in ({"messages": [orphan]}, {"messages": [{"role": "robot", "content": "?"}]}, {"messages": []}):
        for stream in (False, True):
            plain, ours = (failure(base, **wrong, stream=stream) for base in (direct, proxy))
            assert plain == ours and 400 <= plain[1] < 500, f"{wrong}: {plain} became {ours}"
    print(f"python error     chat         {plain[0]} {plain[1]}, the same through both")


def main():
    if len(sys.argv) != 5 or sys.argv[1] != "--expect" or sys.argv[2] not in ("delta", "native"):
        sys.exit(__doc__)
    signal.alarm(PATIENCE)
    expect, direct, proxy = sys.argv[2], *map(Base, sys.argv[3:])

    def lookup(answer_id):
        """What the simulated provider knows of an answer."""
        where, key = f"{direct.url}/sim/answers/{answer_id}", {"authorization": "Bearer judge"}
        request = urllib.request.Request(where, headers=key)
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.load(reply)

    for kind, form in ((Sdk, "json"), (Sdk, "stream"), (Sdk, "helper"), (LangChain, "invoke"), (LangChain, "stream")):
        judge(kind, form, expect, *(loop(kind(base, form), base, lookup) for base in (direct, proxy)))
    judge_failures(direct, proxy)


if __name__ == "__main__":
    main()
