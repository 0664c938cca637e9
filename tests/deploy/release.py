"""The scripts of a release, and what a dry run of it packs."""

import hashlib
import json
import os
import subprocess
import tarfile

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from house import environment, folder, run

# A release holds crates that only this names: the program, its TLS, its allocator; and none that only tests need.
SHIPPED = {"tokio", "rustls", "aws-lc-rs", "tikv-jemallocator", "yawc"}
TESTS_ONLY = {"proptest", "criterion", "rcgen", "async-openai", "tokio-tungstenite"}
CONTENTS = {
    "bin/tailwire": 0o755,
    "proxy.toml": 0o644,
    "LICENSE": 0o644,
    "README.md": 0o644,
    "share/man/man1/tailwire.1": 0o644,
    "share/completions/tailwire.bash": 0o644,
    "share/completions/tailwire.zsh": 0o644,
    "share/completions/tailwire.fish": 0o644,
    "share/systemd/system/tailwire.service": 0o644,
    "share/systemd/user/tailwire.socket": 0o644,
    "share/launchd/local.tailwire.plist": 0o644,
    "share/prometheus/alerts.yaml": 0o644,
    "share/grafana/tailwire.json": 0o644,
}


def scripts_are_clean(_binary):
    scripts = ["deploy/static.sh", "deploy/release.sh", "tests/deploy/run.sh", "tests/deploy/static.sh"]
    said = run(["shellcheck", "--severity=style", *scripts])
    assert not said, said


def a_dry_run_packs_what_a_release_holds(binary):
    with folder() as scratch:
        # As the profile that ships has it; packing a debug build's symbols would take a minute.
        run(["strip", "-o", scratch / "program", binary])
        digests = []
        for name in ("first", "second"):
            done = subprocess.run(
                ["bash", "deploy/release.sh", "--dry-run", scratch / "program", scratch / name],
                capture_output=True, text=True, timeout=300, env=dict(os.environ),
            )
            assert done.returncode == 0, done.stderr
            digests.append(done.stdout)
        assert digests[0] == digests[1], f"two runs differ\n{digests[0]}{digests[1]}"
        files = {path.name: path for path in (scratch / "first").iterdir()}
        for line in files.pop("SHA256SUMS").read_text().splitlines():
            digest, name = line.split()
            assert hashlib.sha256(files[name].read_bytes()).hexdigest() == digest, name
        assert len(files) == len(digests[0].splitlines()), f"without a checksum: {sorted(files)}"
        [program] = [path for name, path in files.items() if name.endswith(".tar.gz")]
        with tarfile.open(program) as archive:
            held = {member.name.split("/", 1)[-1]: member for member in archive.getmembers()}
            for name, mode in CONTENTS.items():
                assert name in held and held[name].mode == mode and held[name].size, f"{name}: missing, empty or of another mode"
            archive.extractall(scratch, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(scratch)
        [unpacked] = [path for path in scratch.iterdir() if path.name.startswith("tailwire-")]
        assert run([unpacked / "bin" / "tailwire", "--version"], env=environment()).startswith("tailwire ")
        [bill] = [path for name, path in files.items() if name.endswith(".cdx.json")]
        trouble = JsonStrictValidator(SchemaVersion.V1_5).validate_str(bill.read_text())
        assert not trouble, trouble
        names = {component["name"] for component in json.loads(bill.read_text())["components"]}
        assert SHIPPED <= names and not TESTS_ONLY & names, f"missing {SHIPPED - names}, too many {TESTS_ONLY & names}"
        run(["helm", "lint", next(path for name, path in files.items() if name.endswith(".tgz"))], env=environment())
    return f"{len(files)} files, {len(names)} crates in the bill"
