"""systemd and launchd: judged by systemd's own tools, and the sandbox held against what the program really does."""

import plistlib
import re
from pathlib import Path

from house import converse, fetch, folder, free_port, run, started, tailwire, until

DEPLOY = Path("deploy")
# systemd's exposure level times ten, as `systemd-analyze security` prints it, for the system unit. A user's manager cannot do more
# than a part of it, and this tool judges it as if it were the system's.
EXPOSURE = 12
# What `launchd.plist(5)` knows of what is used here.
LAUNCHD = {
    "Label": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "Umask": int,
    "SoftResourceLimits": dict,
    "HardResourceLimits": dict,
    "StandardOutPath": str,
    "StandardErrorPath": str,
}
DRAIN = 30  # seconds: the default of `timeouts.drain`


def systemd_accepts_the_units(binary):
    levels = []
    for kind in ("system", "user"):
        with folder() as scratch:
            for unit in (DEPLOY / "systemd" / kind).iterdir():
                text = re.sub(r"^ExecStart=\S+", f"ExecStart={binary}", unit.read_text(), flags=re.M)
                (scratch / unit.name).write_text(text)
            manager = ["systemd-analyze", f"--{kind}"]
            units = [scratch / "tailwire.service", scratch / "tailwire.socket"]
            variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": str(scratch)}
            said = run([*manager, "verify", "--man=no", *units], env=variables)
            assert not said.strip(), f"{kind}: {said}"
            security = [*manager, "security", "--offline=true", "--no-pager", units[0]]
            threshold = [f"--threshold={EXPOSURE}"] if kind == "system" else []
            said = run([*security, *threshold], env=variables)
            levels.append(f"{kind} {re.search(r'exposure level for [^:]*: ([0-9.]+)', said).group(1)}")
    return f"exposure {', '.join(levels)}"


def the_program_keeps_to_the_system_calls_it_may_use(binary):
    """A filter that is too narrow shows only where it is in force. Here strace sees a life: start, name look-up, turns, reload,
    drain; every call of it must be in the units' filter, every socket of an allowed family."""
    with folder() as scratch, tailwire([binary, "sim", "--listen", "127.0.0.1:0"]) as (provider, _):
        port = provider.rsplit(":", 1)[1]
        trace = scratch / "trace"
        command = ["strace", "--follow-forks", "--quiet=all", f"--output={trace}", "--trace=all", binary]
        arguments = ["serve", "--listen", "127.0.0.1:0", "--upstream", f"http://localhost:{port}/v1"]
        with tailwire([*command, *arguments], {"NOTIFY_SOCKET": "@nobody-listens", "WATCHDOG_USEC": "100000"}) as (origin, _):
            converse(origin)
            fetch(f"{origin}/v1/models")
        lines = trace.read_text().splitlines()
    used = {found.group(1) for line in lines if (found := re.match(r"\d+\s+(\w+)\(", line))} - {"execve"}
    families = {found.group(1) for line in lines if (found := re.search(r"\bsocket\((AF_\w+)", line))}
    assert {"futex", "connect", "accept4"} <= used, f"strace saw no life: {sorted(used)}"
    for kind in ("system", "user"):
        unit = (DEPLOY / "systemd" / kind / "tailwire.service").read_text()
        allowed = filtered(re.findall(r"^SystemCallFilter=(.+)$", unit, re.M))
        assert used <= allowed, f"{kind}: the filter would refuse {sorted(used - allowed)}"
        may = set(re.search(r"^RestrictAddressFamilies=(.+)$", unit, re.M).group(1).split())
        # glibc asks the kernel for this machine's addresses to sort what it found; refused, it sorts without.
        assert families - {"AF_NETLINK"} <= may, f"{kind}: sockets of {sorted(families - may)}"
    return f"{len(used)} system calls, sockets of {', '.join(sorted(families))}"


def filtered(filters):
    """The system calls that these lines of SystemCallFilter leave."""
    groups = {}
    for line in run(["systemd-analyze", "syscall-filter", "--no-pager"], env={"PATH": "/usr/bin:/bin"}).splitlines():
        line = line.split("#")[0].rstrip()
        if line.startswith("@"):
            current = groups.setdefault(line, set())
        elif line.strip():
            current.add(line.strip())

    def expand(name):
        return {name} if not name.startswith("@") else set().union(*(expand(member) for member in groups[name]))

    allowed = set()
    for line in filters:
        names = set().union(*(expand(name) for name in line.lstrip("~").split()))
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def systemd_hands_the_socket_over(binary):
    """systemd's own hand, where it is not the first process of the machine: the program starts with its first client."""
    with tailwire([binary, "sim", "--listen", "127.0.0.1:0"]) as (provider, _):
        address = f"127.0.0.1:{free_port()}"
        hand = ["systemd-socket-activate", f"--listen={address}", binary, "serve", "--upstream", f"{provider}/v1"]
        with folder() as scratch, open(scratch / "log", "w") as log, started(hand, stdout=log, stderr=log) as process:
            def connected():
                assert process.poll() is None, "systemd-socket-activate ended"
                try:
                    converse(f"http://{address}")
                    return True
                except OSError:
                    return False

            until("the socket", connected)


def launchd_knows_every_key(_binary):
    with open(DEPLOY / "launchd" / "local.tailwire.plist", "rb") as file:
        job = plistlib.load(file)
    for key, value in job.items():
        assert isinstance(value, LAUNCHD.get(key, ())), f"{key}: {value!r}"
    assert job["ExitTimeOut"] > DRAIN, "launchd would cut the drain"
    assert job["ProgramArguments"][1:] == ["serve"] and job["Label"] == "local.tailwire"
    assert job["KeepAlive"] == {"SuccessfulExit": False}
