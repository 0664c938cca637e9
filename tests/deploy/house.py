"""What the checks start: the simulated provider, the proxy before it, agents. Ends only what it started."""

import contextlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 60  # seconds for anything


def environment(variables=None):
    """Nothing of the caller's shell but the path: its proxies and settings must not change what is judged."""
    return {"PATH": os.environ["PATH"], "HOME": "/nowhere"} | (variables or {})


def run(command, expect=0, **options):
    """Runs a command; its output. Anything but the expected exit code is a failure (None: any)."""
    options.setdefault("env", environment())
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10 * PATIENCE, **options)
    if expect is not None and done.returncode != expect:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}, not {expect}\n{done.stdout}")
    return done.stdout


@contextlib.contextmanager
def started(command, variables=None, **options):
    """A process, ended at the end: by SIGTERM, and after a while by force."""
    process = subprocess.Popen(command, env=environment(variables), start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextlib.contextmanager
def tailwire(command, variables=None):
    """`command` runs tailwire or something around it; the origin it says it listens on, and the process."""
    with tempfile.TemporaryFile("w+") as log, started(command, variables, stdout=subprocess.PIPE, stderr=log, text=True) as process:
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            line = process.stdout.readline() if selector.select(PATIENCE) else ""
        said = re.search(r"listening on (https?://[^/ ]+)/v1", line)
        if not said:
            log.seek(0)
            raise AssertionError(f"{command}: it did not say where it listens\n{log.read()}")
        yield said.group(1), process
        process.stdout.close()


def fetch(url, body=None, headers=None):
    """Status and text of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"} | (headers or {}))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def converse(origin, calls=3):
    """An agent's calls, each with the whole history; the last but the first go as deltas."""
    history = [{"role": "user", "content": "begin"}]
    for call in range(calls):
        body = {"model": "m", "input": history}
        status, text = fetch(f"{origin}/v1/responses", body, {"authorization": "Bearer sk-planted-deploy"})
        assert status == 200, (status, text)
        history = history + json.loads(text)["output"] + [{"role": "user", "content": f"go on {call}"}]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition):
    """The condition's first true value."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"waited in vain for {what}")


@contextlib.contextmanager
def folder():
    with tempfile.TemporaryDirectory(prefix="tailwire-deploy-") as path:
        yield Path(path)
