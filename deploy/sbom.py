#!/usr/bin/env python3
"""Prints a CycloneDX 1.5 bill of materials of the shipped program for one target: every crate that is linked or runs in its build,
with version, licence, checksum and who needs whom. From `cargo metadata` and Cargo.lock; needs nothing but Python."""

import datetime
import json
import os
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "tailwire"


def main(target):
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version=1", "--locked", "--features=dist", f"--filter-platform={target}"],
            cwd=ROOT, check=True, stdout=subprocess.PIPE,
        ).stdout
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock}

    def needs(node):
        """What a release needs: not what only tests do."""
        return sorted(dep["pkg"] for dep in node["deps"] if any(kind["kind"] != "dev" for kind in dep["dep_kinds"]))

    root = metadata["resolve"]["root"]
    reached, waiting = set(), [root]
    while waiting:
        each = waiting.pop()
        if each not in reached:
            reached.add(each)
            waiting.extend(needs(nodes[each]))
    order = sorted(reached, key=lambda each: (packages[each]["name"], packages[each]["version"]))

    def purl(each):
        return f"pkg:cargo/{packages[each]['name']}@{packages[each]['version']}"

    def component(each):
        package = packages[each]
        entry = {
            "type": "application" if each == root else "library",
            "bom-ref": purl(each),
            "name": package["name"],
            "version": package["version"],
            "purl": purl(each),
        }
        if package.get("license"):
            # Cargo's old way to write OR.
            entry["licenses"] = [{"expression": package["license"].replace(" / ", " OR ").replace("/", " OR ")}]
        if checksums.get((package["name"], package["version"])):
            entry["hashes"] = [{"alg": "SHA-256", "content": checksums[package["name"], package["version"]]}]
        if package.get("repository"):
            entry["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return entry

    seconds = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        # The same bill from the same sources.
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, purl(root) + target + ''.join(map(purl, order)))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": component(root),
            "properties": [{"name": "cargo:target", "value": target}],
        },
        "components": [component(each) for each in order if each != root],
        "dependencies": [{"ref": purl(each), "dependsOn": sorted({purl(dep) for dep in needs(nodes[each])})} for each in order],
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main(sys.argv[1])
