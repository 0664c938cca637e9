"""A terminal and a shell's job control around `tailwire run`, for one scene at a time; prints what was seen as JSON.

    terminal.py SCENE TAILWIRE [URL]

Every wait ends after a minute. Judges nothing: the test that called it does.
"""

import fcntl
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

# Who was started in the background was told to ignore these two, and what it starts inherits that; a terminal's shell does not.
for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)

scene, tailwire = sys.argv[1], sys.argv[2]
DEADLINE = time.monotonic() + 60

CHILD = """
import fcntl, os, signal, struct, sys, termios, time
size = struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\\0" * 8))[:2]
print("child", [os.isatty(n) for n in (0, 1, 2)], size, os.tcgetpgrp(0) == os.getpgrp(), flush=True)
heard = []
def note(number, frame):
    heard.append(signal.Signals(number).name)
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH):
    signal.signal(number, note)
print("ready", flush=True)
while True:
    line = sys.stdin.readline().strip()
    if line == "size":
        print("size", struct.unpack("HHHH", fcntl.ioctl(0, termios.TIOCGWINSZ, b"\\0" * 8))[:2], flush=True)
    elif line == "heard":
        print("heard", ",".join(heard), flush=True)
    else:
        print("bye", line, flush=True)
        sys.exit(9)
"""


def set_size(terminal, rows, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """One `tailwire run` as the foreground job of a terminal of its own, whose shell this process plays through a helper."""

    def __init__(self, arguments):
        # The helper is the session's leader, as a shell is; the job has a process group of its own.
        self.report, report = os.pipe()
        self.orders, self.order = os.pipe()
        self.helper, self.terminal = pty.fork()
        if self.helper == 0:
            self.shell(arguments, report)
        os.close(report)
        self.text = ""

    def shell(self, arguments, report):
        set_size(0, 33, 77)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.execv(tailwire, [tailwire, *arguments])
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if os.WIFSTOPPED(status):
                os.tcsetpgrp(0, os.getpgrp())
                os.write(report, b"stopped\n")
                os.read(self.orders, 1)
                os.tcsetpgrp(0, job)
                os.killpg(job, signal.SIGCONT)
                continue
            os.write(report, f"exit {os.waitstatus_to_exitcode(status)}\n".encode())
            if scene == "top":
                # The terminal is looked at before it goes with us.
                os.read(self.orders, 1)
            os._exit(0)

    def type(self, text):
        os.write(self.terminal, text.encode())

    def until(self, word):
        """Reads the screen until it shows a word that it did not show before."""
        seen = len(self.text)
        while word not in self.text[seen:]:
            self.text += self.read(self.terminal)
        return self.text

    def told(self):
        """The next word of the shell's."""
        return self.read(self.report).strip()

    @staticmethod
    def read(file):
        ready, _, _ = select.select([file], [], [], max(0, DEADLINE - time.monotonic()))
        if not ready:
            sys.exit("a minute has passed")
        return os.read(file, 4096).decode(errors="replace")

    def rest(self):
        try:
            while True:
                more = self.read(self.terminal)
                if not more:
                    break
                self.text += more
        except OSError:
            pass
        os.waitpid(self.helper, 0)
        return self.text


def session():
    """The child's view of the terminal, its signals, and its end."""
    job = Terminal(["run", "--", sys.executable, "-c", CHILD])
    job.until("ready")
    set_size(job.terminal, 40, 100)
    job.type("size\n")
    job.until("size (")
    job.type("\x03")
    job.type("\x1c")
    job.type("heard\n")
    job.until("heard S")
    job.type("\x1a")
    stopped = job.told()
    os.write(job.order, b"c")
    job.type("heard\n")
    job.until("heard S")
    job.type("end\n")
    exit_code = job.told()
    return {"screen": job.rest(), "stopped": stopped, "end": exit_code}


def interrupted():
    """Ctrl-C ends a child that does not catch it."""
    job = Terminal(["run", "--", "sh", "-c", "echo ready; exec sleep 60"])
    job.until("ready")
    job.type("\x03")
    exit_code = job.told()
    return {"screen": job.rest(), "end": exit_code}


def top():
    """The live screen, left by a key; the terminal is as it was."""
    job = Terminal(["top", sys.argv[3]])
    job.until("first-turn")
    job.type("q")
    exit_code = job.told()
    flags = termios.tcgetattr(job.terminal)[3]
    cooked = bool(flags & termios.ICANON and flags & termios.ECHO)
    os.write(job.order, b"c")
    return {"screen": job.rest(), "end": exit_code, "cooked": cooked}


print(json.dumps({"session": session, "interrupted": interrupted, "top": top}[scene]()))
