"""A year in a minute under a real systemd: start, sandbox, watchdog, reload, restart, stop, and settings that cannot be used."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from house import PATIENCE, folder, run, started, until

HERE = Path(__file__).parent


def systemd_runs_the_system_units(binary):
    if os.geteuid():
        return "NOT RUN: booting a systemd in namespaces takes root"
    with booted(binary) as machine:
        until("the service", lambda: machine.state("ActiveState") == "active")
        first = machine.state("MainPID")
        sandboxed(machine, first)
        assert machine.state("StatusText").startswith("listening on http://127.0.0.1:8484/v1 -> ")
        assert machine.converse() == "ok", "turns through the socket that systemd holds"

        machine.systemctl("reload", "tailwire.service")
        assert machine.state("MainPID") == first and machine.converse() == "ok", "a reload is no end"
        beat = machine.state("WatchdogTimestampMonotonic")
        until("two signs of life", lambda: machine.state("WatchdogTimestampMonotonic") not in ("0", beat))

        machine.inside("kill", "-STOP", first)
        until("the watchdog", lambda: machine.state("NRestarts") == "1" and machine.state("ActiveState") == "active")
        assert machine.state("MainPID") != first

        lost = busy(machine, lambda: machine.systemctl("restart", "tailwire.service"))
        assert not lost, f"turns lost over three restarts: {lost}"

        machine.systemctl("stop", "tailwire.socket", "tailwire.service")
        assert machine.state("Result") == "success" and machine.state("ExecMainStatus") == "0"
        machine.inside("sh", "-c", "echo nonsense = 1 >> /etc/tailwire/proxy.toml")
        machine.systemctl("start", "tailwire.service", expect=1)
        assert (machine.state("ExecMainStatus"), machine.state("ActiveState")) == ("78", "failed"), "no restart mends this"
        return "start, sandbox, reload, watchdog, three restarts under load, stop, exit code 78"


def sandboxed(machine, process):
    """What the kernel says of the process is what the unit promised."""
    status = machine.inside("cat", f"/proc/{process}/status")
    fields = dict(re.findall(r"(?m)^(\w+):\s+(.*)$", status))
    assert fields["Uid"].split()[0] != "0", fields["Uid"]
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2", status
    assert all(int(fields[name], 16) == 0 for name in ("CapBnd", "CapEff", "CapAmb")), status
    limits = machine.inside("cat", f"/proc/{process}/limits")
    assert re.search(r"Max open files\s+16384\s+16384", limits), limits
    user, group = fields["Uid"].split()[0], fields["Gid"].split()[0]
    enter = ["nsenter", f"--target={process}", "--mount", f"--setuid={user}", f"--setgid={group}"]
    found = machine.inside(*enter, *"find / -path /proc -prune -o -type d -writable -print".split(), expect=None)
    writable = {line for line in found.splitlines() if not line.startswith(("/dev/", "find:"))}
    assert writable == {"/tmp", "/var/tmp"}, f"its own temporary folders, and nothing else: {sorted(writable)}"


def busy(machine, happens):
    """The turns that fail while something happens three times under an agent that does not stop."""
    done, answers = threading.Event(), []

    def agent():
        while not done.is_set():
            answers.append(machine.converse())

    agents = [threading.Thread(target=agent) for _ in range(4)]
    for each in agents:
        each.start()
    try:
        for _ in range(3):
            before = len(answers)
            happens()
            until("turns after it", lambda before=before: len(answers) >= before + 8)
    finally:
        done.set()
        for each in agents:
            each.join(PATIENCE)
    return [answer for answer in answers if answer != "ok"]


class Machine:
    """The inside of the namespaces, by their first process."""

    def __init__(self, first):
        self.first = first

    def inside(self, *command, expect=0):
        variables = {"PATH": "/usr/sbin:/usr/bin"}
        return run(["nsenter", f"--target={self.first}", "--all", *command], expect=expect, env=variables)

    def systemctl(self, *words, expect=0):
        return self.inside("systemctl", *words, expect=expect)

    def state(self, name):
        return self.inside("systemctl", "show", f"--property={name}", "--value", "tailwire.service").strip()

    def converse(self):
        """An agent's three calls, from the network in there but with the Python out here."""
        code = f"import sys; sys.path.insert(0, {str(HERE)!r}); import house; house.converse('http://127.0.0.1:8484')"
        command = ["nsenter", f"--target={self.first}", "--net", sys.executable, "-c", code]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
        return "ok" if done.returncode == 0 else done.stdout.splitlines()[-1]


@contextlib.contextmanager
def booted(binary):
    with folder() as scratch, open(scratch / "log", "w") as log:
        ready = scratch / "first"
        with started(["bash", HERE / "boot.sh", binary, ready], stdout=log, stderr=log) as process:
            def up():
                assert process.poll() is None, (scratch / "log").read_text()
                return ready.exists()

            until("the namespaces", up)
            machine = Machine(ready.read_text().strip())
            until("systemd", lambda: "tailwire" in machine.inside("systemctl", "list-units", "--all", "--no-legend", expect=None))
            try:
                yield machine
            except AssertionError as error:
                said = machine.inside("systemctl", "status", "--no-pager", "tailwire.service", "tailwire.socket", expect=None)
                raise AssertionError(f"{error}\n{said}\n{(scratch / 'log').read_text()}") from None
