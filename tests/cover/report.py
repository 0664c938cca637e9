"""Lines that tests reach, of the files below a folder: `report.py LCOV FOLDER PERCENT`. Unit tests are not counted."""

import os
import sys

report, folder, wanted = sys.argv[1], sys.argv[2], float(sys.argv[3])
hits = {}
for line in open(report):
    tag, _, rest = line.strip().partition(":")
    if tag == "SF":
        path = os.path.relpath(rest)
        ours = path.startswith(folder) and "tests" not in path.split(".rs")[0].split("/")
        text = open(path).read().split("#[cfg(test)]")[0] if ours else ""
        # What stands below is tests.
        last = text.count("\n")
    elif tag == "DA" and ours:
        number, count = (int(part) for part in rest.split(",")[:2])
        if number <= last:
            lines = hits.setdefault(path, {})
            lines[number] = lines.get(number, 0) + count

total = reached = 0
for path, lines in sorted(hits.items()):
    missed = [number for number, count in sorted(lines.items()) if not count]
    total += len(lines)
    reached += len(lines) - len(missed)
    print(f"{100 * (len(lines) - len(missed)) / len(lines):6.1f} %  {path}  {' '.join(map(str, missed))}".rstrip())
percent = 100 * reached / max(total, 1)
print(f"{percent:6.2f} %  of {total} lines of {folder}")
sys.exit(not total or percent < wanted)
