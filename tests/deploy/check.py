"""The checks of `run.sh`, one function each; a module for each neighbourhood of `deploy`. `check.py BINARY [NAME…]`."""

import sys
import time
from pathlib import Path

import boot
import containers
import metrics
import release
import units

CHECKS = {
    check.__name__.replace("_", "-"): check
    for check in (
        units.systemd_accepts_the_units,
        units.the_program_keeps_to_the_system_calls_it_may_use,
        units.systemd_hands_the_socket_over,
        boot.systemd_runs_the_system_units,
        units.launchd_knows_every_key,
        containers.the_dockerfile_is_clean,
        containers.compose_keeps_the_port_on_this_machine,
        containers.kubernetes_accepts_the_sidecar,
        containers.helm_renders_what_kubernetes_accepts,
        containers.the_program_accepts_every_environment,
        metrics.prometheus_accepts_configuration_and_alerts,
        metrics.prometheus_answers_every_query_of_the_board,
        release.scripts_are_clean,
        release.a_dry_run_packs_what_a_release_holds,
    )
}


def main(binary, names):
    if names == ["list"]:
        print("\n".join(CHECKS))
        return
    unknown = set(names) - set(CHECKS)
    if unknown:
        sys.exit(f"deploy: no check named {' '.join(sorted(unknown))}")
    failed = []
    for name in names or CHECKS:
        begun = time.monotonic()
        try:
            said = CHECKS[name](binary) or "ok"
        except AssertionError as error:
            failed.append(name)
            said = f"FAILED\n{error}"
        print(f"{name}: {said} ({time.monotonic() - begun:.1f} s)", flush=True)
    if failed:
        sys.exit(f"deploy: {len(failed)} of {len(names or CHECKS)} checks failed: {' '.join(failed)}")
    print(f"deploy: all {len(names or CHECKS)} checks passed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
