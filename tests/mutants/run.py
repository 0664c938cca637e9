#!/usr/bin/env python3
"""Runs the mutants: each patch beside this file breaks one promise, and the tests it names must notice.

A patch begins with two lines:
    # promise: what the broken code no longer keeps
    # tests: arguments of `cargo test` that must fail, such as `--lib proto::index`

A mutant is caught when those tests pass without the patch and fail (or never end) with it. One that survives, does
not apply, does not compile, or names tests that do not exist, fails the run. The tree is copied to target/mutants/tree;
your files are never touched. Builds share the ordinary target directory, so that each mutant costs one crate.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TREE = ROOT / "target" / "mutants" / "tree"
TIMEOUT = 300  # seconds for one run of the named tests; a mutant that hangs is noticed by anyone
ENVIRONMENT = os.environ | {"CARGO_TARGET_DIR": str(ROOT / "target"), "CARGO_TERM_COLOR": "never", "RUST_BACKTRACE": "0"}


def main(names):
    patches = sorted(Path(__file__).parent.glob("*.patch"))
    unknown = set(names) - {patch.stem for patch in patches}
    if unknown or not patches:
        sys.exit(f"mutants: no patch named {' '.join(sorted(unknown))}" if unknown else "mutants: no patches")
    patches = [patch for patch in patches if not names or patch.stem in names]
    baselines = {}
    rows = []
    for patch in patches:
        started = time.monotonic()
        promise, tests = header(patch, "promise"), header(patch, "tests")
        verdict = judge(patch, tests, baselines) if promise and tests else "has no `# promise:` or no `# tests:` line"
        rows.append((patch.stem, verdict, time.monotonic() - started, promise or ""))
        print(f"{patch.stem}: {verdict}", flush=True)
    sync()
    table(rows)
    missed = [name for name, verdict, _, _ in rows if not verdict.startswith("caught")]
    if missed:
        sys.exit(f"mutants: {len(missed)} of {len(rows)} not caught: {' '.join(missed)}")
    print(f"mutants: all {len(rows)} caught")


def judge(patch, tests, baselines):
    """One mutant's verdict; begins with `caught` or says what went wrong."""
    sync()
    if tests not in baselines:
        baselines[tests] = baseline(tests)
    if baselines[tests]:
        return baselines[tests]
    applied = run(["git", "apply", f"--directory={TREE.relative_to(ROOT)}", str(patch)], cwd=ROOT)
    if applied.returncode:
        return f"does not apply: {last_line(applied.stdout)}"
    built = cargo(["--no-run"], tests)
    if built.returncode:
        return f"does not compile: {first_error(built.stdout)}"
    tested = cargo([], tests)
    if tested.returncode is None:
        return "caught (never ends)"
    failed = sum(map(int, re.findall(r"(\d+) failed;", tested.stdout)))
    if tested.returncode and failed:
        return f"caught by {failed} of {count(tested.stdout)}"
    # The scanner of the log ends a test binary at once, before it can name a test.
    if tested.returncode and re.search(r"^LEAK: ", tested.stdout, re.MULTILINE):
        return "caught (a leak ended it)"
    return "SURVIVED" if not tested.returncode else f"failed without a failing test: {last_line(tested.stdout)}"


def baseline(tests):
    """What is wrong with the named tests on the unchanged tree; empty when nothing is."""
    tested = cargo([], tests)
    if tested.returncode != 0:
        return f"`{tests}` fails without the mutant: {first_error(tested.stdout)}"
    return "" if count(tested.stdout) else f"`{tests}` names no test"


def cargo(extra, tests):
    # All test binaries run, although the first fails: the count says how many tests notice.
    return run(["cargo", "test", "--locked", "--offline", "--no-fail-fast", *extra, *shlex.split(tests)], cwd=TREE)


def run(command, cwd):
    """Runs to the end or the time-out; `returncode` is then None. Output is one text."""
    limit = None if "--no-run" in command else TIMEOUT
    process = subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    try:
        output, _ = process.communicate(timeout=limit)
        return subprocess.CompletedProcess(command, process.returncode, output)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        return subprocess.CompletedProcess(command, None, output)


def sync():
    """Makes the tree equal to the checkout. Files that are equal keep their time, so that cargo keeps its builds."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    if listed.returncode:
        sys.exit(f"mutants: {last_line(listed.stdout)}")
    wanted = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    for path in list(TREE.rglob("*")):
        if path.is_file() and str(path.relative_to(TREE)) not in wanted:
            path.unlink()
    for name in wanted:
        content, copy = (ROOT / name).read_bytes(), TREE / name
        if not copy.is_file() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
    # What stands beside the checkout stands beside the copy, for tests that read recordings there.
    beside, link = ROOT.parent / "shared", TREE.parent / "shared"
    if beside.is_dir() and not link.is_symlink():
        link.symlink_to(beside)


def header(patch, key):
    found = re.search(rf"^# {key}: (.+)$", patch.read_text(), re.MULTILINE)
    return found.group(1).strip() if found else None


def count(output):
    return sum(map(int, re.findall(r"^running (\d+) tests?$", output, re.MULTILINE)))


def first_error(output):
    lines = output.splitlines()
    return next((line for line in lines if line.startswith(("error", "test ")) and not line.endswith("ok")), last_line(output))


def last_line(output):
    return (output.strip().splitlines() or ["no output"])[-1]


def table(rows):
    width = max(len(name) for name, *_ in rows)
    middle = max(len(verdict) for _, verdict, *_ in rows)
    print()
    for name, verdict, seconds, promise in rows:
        print(f"{name:{width}}  {verdict:{middle}}  {seconds:5.0f} s  {promise}")


if __name__ == "__main__":
    main(sys.argv[1:])
