"""An agent of the standard library alone: posts its whole history to OPENAI_BASE_URL, answers calls, posts again.

Prints what it sent, so that a test can compare. Knows nothing of a proxy.
"""

import json
import os
import sys
import urllib.request

turns, stream = int(sys.argv[1]), sys.argv[2] == "stream"
history = [{"role": "user", "content": "Begin, please. " * 40}]
sent = 0


def output_of(text):
    if not stream:
        return json.loads(text)["output"]
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    return next(event for event in events if event["type"] == "response.completed")["response"]["output"]


for turn in range(turns):
    body = {"model": "gpt-sim", "store": False, "stream": stream, "instructions": "Be brief.", "input": history}
    data = json.dumps(body).encode()
    sent += len(data)
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/responses",
        data,
        {"content-type": "application/json", "authorization": "Bearer sk-agent"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        output = output_of(answer.read().decode())
    history += output
    calls = [item for item in output if item["type"] == "function_call"]
    history += [{"type": "function_call_output", "call_id": call["call_id"], "output": "done " * 50} for call in calls]
    if not calls:
        history.append({"role": "user", "content": f"Go on with step {turn}."})

print(json.dumps({"turns": turns, "sent": sent}))
