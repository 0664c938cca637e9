#!/usr/bin/env python3
"""The independent judge of continuations: writes tests/fixtures/captures.tsv from the recorded captures.

For every Responses turn it says which earlier turn a proxy may continue, where the new items start, and
with which grade, by the rules of the design (scope, old input, echo, reasoning, lookup). It shares no code
with the proxy, on purpose: the table judges the proxy. It does not send anything, measures no bytes, and
does not look at Chat captures.

usage: expect.py CAPTURES_FOLDER > tests/fixtures/captures.tsv
"""
import gzip
import json
import re
import sys
from pathlib import Path

# Headers that differ from turn to turn of one conversation, so they cannot be part of its identity.
PER_TURN = re.compile(r"accept|content-|x-stainless-|(user-agent|host|connection|x-codex-turn-metadata)$")
# Settings a turn may change and still continue; any other difference at the top level forbids it.
MAY_CHANGE = {"client_metadata"}
# Compared as part of the scope, not as a setting.
SCOPE = ("model", "store", "user", "safety_identifier")
CALLS = {"function_call": "arguments", "custom_tool_call": "input"}
COLUMNS = ("capture", "turn", "parent", "first_new", "items", "grade")


# ---------------------------------------------------------------- captures

class Turn:
    """One recorded request and what was answered."""

    def __init__(self, head, number):
        meta = json.loads(stored(head, "headers.json"))
        path = meta["path"].split("?")[0]
        self.number = number
        self.judged = meta["method"] == "POST" and path.endswith("/responses")
        if not self.judged:
            return
        body = json.loads(stored(head, "request.json"))
        given = body.pop("input")
        self.items = given if isinstance(given, list) else [{"role": "user", "content": given}]
        headers = sorted((k.lower(), v) for k, v in meta["headers"] if not PER_TURN.match(k.lower()))
        self.scope = (headers, [body.get(k) for k in SCOPE])
        self.settings = without_null({k: v for k, v in body.items() if k not in MAY_CHANGE})
        self.output, self.copies = answer(head)
        self.chain = []


def stored(head, ending):
    """The bytes of one recorded file, packed or not; None when there is none."""
    plain, packed = Path(f"{head}.{ending}"), Path(f"{head}.{ending}.gz")
    if plain.exists():
        return plain.read_bytes()
    return gzip.decompress(packed.read_bytes()) if packed.exists() else None


def answer(head):
    """(output items of a completed response or None, every relayed copy of each output item by index)"""
    plain = stored(head, "response.json")
    if plain is not None:
        response = json.loads(plain)
        return (response["output"], {}) if response.get("status") == "completed" else (None, {})
    output, copies = None, {}
    for block in (stored(head, "response.sse") or b"").decode().split("\n\n"):
        data = "".join(line[5:] for line in block.split("\n") if line.startswith("data:")).strip()
        event = json.loads(data) if data.startswith("{") else {}
        if "item" in event:
            copies.setdefault(event["output_index"], []).append(event["item"])
        if event.get("type") == "response.completed":
            output = event["response"]["output"]
    return output, copies


# ---------------------------------------------------------------- what counts as equal

def without_null(value):
    if isinstance(value, dict):
        return {k: without_null(v) for k, v in value.items() if v is not None}
    return [without_null(v) for v in value] if isinstance(value, list) else value


def kind(item):
    return item.get("type") or "message"


def arguments(text):
    """Call arguments as a value: numbers are doubles, nothing is an empty object, no JSON is itself."""
    try:
        return json.loads(text or "{}", parse_int=float)
    except ValueError:
        return text


def text(content):
    """Joined text of a message, and the parts that are no text."""
    if isinstance(content, str) or content is None:
        return content or "", []
    spoken = [p for p in content if p["type"] in ("text", "output_text")]
    return "".join(p["text"] for p in spoken), [without_null(p) for p in content if p not in spoken]


def old(item):
    """An item of an earlier request: everything counts but id, status, null and the shape of plain text."""
    item = without_null(item)
    item["type"] = kind(item)
    if item["type"] != "item_reference":
        item.pop("id", None)
        item.pop("status", None)
    if isinstance(item.get("content"), str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        item["content"] = [{"type": part, "text": item["content"]}]
    if item["type"] == "function_call":
        item["arguments"] = arguments(item["arguments"])
    return item


def echoes(output, item):
    """Does the client's item repeat this output item (never a reasoning item)?"""
    if kind(item) == "item_reference":
        return item["id"] == output["id"] and output["type"] not in CALLS
    if kind(item) != output["type"]:
        return False
    if output["type"] == "message":
        return item["role"] == "assistant" and text(item.get("content")) == text(output["content"])
    if output["type"] in CALLS:
        field = CALLS[output["type"]]
        value = arguments if field == "arguments" else str
        same = [item.get(k) == output.get(k) for k in ("call_id", "name")]
        return all(same) and value(item.get(field)) == value(output.get(field))
    return old(item) == old(output)


# ---------------------------------------------------------------- reasoning

def thought(copies):
    """A link of the reasoning chain: the ids and the encrypted texts under which it may come back."""
    return {c["id"] for c in copies if c.get("id")}, {c["encrypted_content"] for c in copies if c.get("encrypted_content")}


def is_thought(item, chain):
    reference = kind(item) == "item_reference" and any(item["id"] in ids for ids, _ in chain)
    return kind(item) == "reasoning" or reference


def recalls(item, link):
    ids, sealed = link
    if item.get("encrypted_content") and sealed:
        return item["encrypted_content"] in sealed
    return item.get("id") in ids


def missing(thoughts, chain):
    """How many links the request left out; None when its reasoning is no in-order subset of the chain."""
    left = iter(chain)
    for item in thoughts:
        if not any(recalls(item, link) for link in left):
            return None
    return len(chain) - len(thoughts)


# ---------------------------------------------------------------- the judgement

def continuation(turn, head):
    """(items of the turn that are the head's input, first new item, grade), or None."""
    if head.output is None or head.scope != turn.scope or head.settings != turn.settings:
        return None
    visible = [i for i in head.items if not is_thought(i, head.chain)]
    at = 0
    for item in visible:
        while at < len(turn.items) and is_thought(turn.items[at], head.chain):
            at += 1
        if at == len(turn.items) or old(item) != old(turn.items[at]):
            return None
        at += 1
    first_new = after_echo(turn.items, at, head)
    if first_new is None or first_new == len(turn.items):
        return None
    lost = missing([i for i in turn.items[:first_new] if is_thought(i, head.chain)], head.chain)
    if lost is None:
        return None
    return at, first_new, "visible" if lost else "exact"


def after_echo(items, at, head):
    """Index of the first new item, or None when the echo is not the head's whole output, answered."""
    wanted = [o for o in head.output if o["type"] != "reasoning"]
    while at < len(items):
        hit = next((o for o in wanted if echoes(o, items[at])), None)
        if hit:
            wanted.remove(hit)
        elif not is_thought(items[at], head.chain):
            break
        at += 1
    new = items[at:]
    answered = {i.get("call_id") for i in new if kind(i).endswith("_call_output")}
    calls = {o["call_id"] for o in head.output if o["type"] in CALLS}
    emitted = any(i.get("role") == "assistant" or kind(i) in (*CALLS, "reasoning", "item_reference") for i in new)
    return None if wanted or emitted or calls - answered else at


def judge(turn, heads):
    """The best (continuation, head) for the turn, or None; lets the turn's own reasoning chain begin."""
    found = [(c, h) for h in heads if (c := continuation(turn, h))]
    best = max(found, key=lambda f: (f[0][0], f[0][2] == "exact", f[1].number), default=None)
    begun = best[1].chain if best else [thought([i]) for i in turn.items if kind(i) == "reasoning"]
    said = [thought([o, *turn.copies.get(n, [])]) for n, o in enumerate(turn.output or []) if o["type"] == "reasoning"]
    turn.chain = begun + said
    return best


def rows(folder):
    heads = []
    for file in sorted(folder.glob("*.headers.json")):
        turn = Turn(folder / file.name[:3], int(file.name[:3]))
        if not turn.judged:
            continue
        best = judge(turn, heads)
        heads.append(turn)
        parent, first_new, grade = (best[1].number, best[0][1], best[0][2]) if best else ("-", 0, "-")
        yield folder.name, turn.number, parent, first_new, len(turn.items), grade


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("# Written by tests/captures/expect.py; `parent` and `grade` are `-` where only a full request is right.")
    print("\t".join(COLUMNS))
    for folder in sorted(p for p in Path(sys.argv[1]).iterdir() if p.is_dir()):
        for row in rows(folder):
            print("\t".join(map(str, row)))


if __name__ == "__main__":
    main()
