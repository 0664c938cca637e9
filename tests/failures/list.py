#!/usr/bin/env python3
"""Prints F1 to F83, each with the tests that show it or the reason why it cannot happen here.

Tests are the functions under `#[test]` or `#[tokio::test]` whose names begin with `fNN_`; reasons are the lines of
docs/decisions.md that begin with `**FNN**`. Exits 1 if a number has neither, or a reason names a test that is not there.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def tests():
    """Yields number, name and file of every numbered test."""
    for folder in ("src", "tests"):
        for path in sorted((ROOT / folder).rglob("*.rs")):
            marked = False
            for line in path.read_text(encoding="utf-8").splitlines():
                line = line.strip()
                function = re.match(r"(?:async )?fn (\w+)", line)
                if function and marked:
                    name = function[1]
                    for number in re.findall(r"f(\d\d)_", re.match(r"(?:f\d\d_)*", name)[0]):
                        yield int(number), name, path.relative_to(ROOT)
                if line.startswith("#["):
                    marked |= line.startswith(("#[test]", "#[tokio::test"))
                elif line:
                    marked = False


def module(path):
    """The path of a test as `cargo test` prints it, with its target."""
    parts = list(path.with_suffix("").parts)
    if parts[0] == "src":
        inner = [part for part in parts[1:] if part not in ("lib", "main")]
        return "lib", inner if inner[-1:] == ["tests"] else inner + ["tests"]
    return parts[1], parts[2:] if parts[-1] != "main" else []


def main():
    catalogue = dict(
        line.split("\t") for line in (ROOT / "tests/failures/catalogue.tsv").read_text(encoding="utf-8").splitlines()
    )
    found, names = {}, set()
    for number, name, path in tests():
        names.add(name)
        found.setdefault(number, []).append((name, path))
    decisions = (ROOT / "docs/decisions.md").read_text(encoding="utf-8")
    reasons = {int(number): text for number, text in re.findall(r"^\*\*F(\d+)\*\* (.+)$", decisions, re.M)}
    faults = []
    for number in range(1, 84):
        print(f"F{number}: {catalogue[str(number)]}")
        for name, path in found.get(number, []):
            target, inner = module(path)
            print(f"    {target} {'::'.join([*inner, name])}  ({path})")
        if number in reasons:
            print(f"    reason: {reasons[number]}")
            faults += [
                f"F{number}: its reason names `{name}`, which is no test"
                for name in re.findall(r"`(f\d\d_\w+)`", reasons[number])
                if name not in names
            ]
        if number not in found and number not in reasons:
            faults.append(f"F{number} has neither a test nor a reason")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
