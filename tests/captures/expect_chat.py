#!/usr/bin/env python3
"""The independent judge of Chat continuations: writes tests/fixtures/captures-chat.tsv from the recorded captures.

For every Chat Completions turn it says which earlier turn a proxy may continue once both are translated, and where
the new items start (an assistant message is an item for its words and one for each call, any other message is one);
or that the turn has a field without a counterpart and must go untranslated. Reasoning never comes back in Chat, so
every continuation is of the grade `visible`. It shares no code with the proxy, on purpose, and no rule of
translation but the count of items. `expect.py` beside it is its twin for Responses.

usage: expect_chat.py CAPTURES_FOLDER > tests/fixtures/captures-chat.tsv
"""
import json
import sys
from pathlib import Path

from expect import COLUMNS, PER_TURN, arguments, stored, text, without_null

SCOPE = ("model", "user", "safety_identifier")


class Turn:
    """One recorded request and what was answered."""

    def __init__(self, head, number):
        meta = json.loads(stored(head, "headers.json"))
        self.number = number
        self.judged = meta["method"] == "POST" and meta["path"].split("?")[0].endswith("/chat/completions")
        if not self.judged:
            return
        body = json.loads(stored(head, "request.json"))
        self.messages = body["messages"]
        # Neither a name nor the model's thoughts have a counterpart.
        without = ("name", "reasoning_content", "reasoning", "reasoning_details")
        self.native = any(m.get(k) not in (None, "", []) for m in self.messages for k in without)
        headers = sorted((k.lower(), v) for k, v in meta["headers"] if not PER_TURN.match(k.lower()))
        self.scope = (headers, [body.get(k) for k in SCOPE])
        self.answer = answer(head)


def answer(head):
    """The assistant's message of a completed reply, or None."""
    plain = stored(head, "response.json")
    if plain is not None:
        choice = json.loads(plain)["choices"][0]
        return choice["message"] if choice["finish_reason"] in ("stop", "tool_calls") else None
    message, reason = {"role": "assistant", "content": "", "tool_calls": []}, None
    for line in stored(head, "response.sse").decode().split("\n"):
        data = line.removeprefix("data:").strip()
        chunk = json.loads(data) if line.startswith("data:") and data != "[DONE]" else {}
        for choice in chunk.get("choices", []):
            reason = choice["finish_reason"] or reason
            add(message, choice["delta"])
    return message if reason in ("stop", "tool_calls") else None


def add(message, delta):
    message["content"] += delta.get("content") or ""
    for piece in delta.get("tool_calls") or []:
        calls = message["tool_calls"]
        if piece["index"] == len(calls):
            calls.append({"id": piece["id"], "type": "function", "function": {"name": "", "arguments": ""}})
        for k in ("name", "arguments"):
            calls[piece["index"]]["function"][k] += piece.get("function", {}).get(k) or ""


def meaning(message):
    """What of a message counts: of an assistant's its words and calls, of any other all."""
    if message["role"] != "assistant":
        message = without_null(message)
        if isinstance(message["content"], str):
            message["content"] = [{"type": "text", "text": message["content"]}]
        return message
    calls = [
        (c["id"], c["function"]["name"], arguments(c["function"]["arguments"])) for c in message.get("tool_calls") or []
    ]
    return text(message.get("content"))[0], message.get("refusal"), calls


def size(message):
    """Items that a message becomes."""
    if message["role"] != "assistant":
        return 1
    words, refusal, calls = meaning(message)
    return len(calls) + bool(words or refusal or not calls)


def first_new(turn, head):
    """The index of the first new message, or None."""
    old = len(head.messages)
    if head.native or head.answer is None or head.scope != turn.scope or len(turn.messages) < old + 2:
        return None
    echo, new = turn.messages[old], turn.messages[old + 1:]
    same = [meaning(m) for m in head.messages] == [meaning(m) for m in turn.messages[:old]]
    if not same or echo["role"] != "assistant" or meaning(echo) != meaning(head.answer):
        return None
    answered = {m.get("tool_call_id") for m in new}
    whole = all(c["id"] in answered for c in echo.get("tool_calls") or [])
    return old + 1 if whole and all(m["role"] != "assistant" for m in new) else None


def rows(folder):
    heads = []
    for file in sorted(folder.glob("*.headers.json")):
        turn = Turn(folder / file.name[:3], int(file.name[:3]))
        if not turn.judged:
            continue
        items = sum(map(size, turn.messages))
        if turn.native:
            yield folder.name, turn.number, "-", 0, items, "native"
            continue
        found = [(at, h.number) for h in heads if (at := first_new(turn, h))]
        heads.append(turn)
        at, parent = max(found, default=(0, "-"))
        yield folder.name, turn.number, parent, sum(map(size, turn.messages[:at])), items, "visible" if at else "-"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("# Written by tests/captures/expect_chat.py; `-` where only a full request is right, `native` where none is.")
    print("\t".join(COLUMNS))
    for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
        for row in rows(folder):
            print("\t".join(map(str, row)))


if __name__ == "__main__":
    main()
