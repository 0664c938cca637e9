"""Prometheus and Grafana: promtool judges the files; then a real Prometheus scrapes the real program, and every query of the
board must find something there."""

import json
import re
import urllib.parse
from pathlib import Path

import yaml
from house import converse, fetch, folder, free_port, run, started, tailwire, until

PROMETHEUS = Path("deploy/prometheus")
BOARD = Path("deploy/grafana/tailwire.json")
# What Grafana puts in place of its variables.
VARIABLES = {"$__rate_interval": "5m", "$__range": "5m", "$instance": ".*"}


def prometheus_accepts_configuration_and_alerts(_binary):
    # promtool looks for the rules beside the configuration.
    run(["promtool", "check", "config", PROMETHEUS / "prometheus.yaml"])
    with folder() as scratch:
        # Debian's is built without the discovery of pods; what is done with what it finds can be judged all the same.
        inside = yaml.safe_load((PROMETHEUS / "kubernetes.yaml").read_text())
        job = inside["scrape_configs"][0]
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        job["static_configs"] = [{"targets": ["10.0.0.1:8485"]}]
        inside["rule_files"] = [str((PROMETHEUS / file).resolve()) for file in inside["rule_files"]]
        (scratch / "kubernetes.yaml").write_text(yaml.safe_dump(inside))
        run(["promtool", "check", "config", scratch / "kubernetes.yaml"])
    run(["promtool", "check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "alerts.yaml"])
    run(["promtool", "test", "rules", PROMETHEUS / "alerts_test.yaml"])
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    firing = {case["alertname"] for case in cases if case["exp_alerts"]}
    names = {rule["alert"] for rule in alerts()}
    assert names == silent == firing, f"not shown silent: {names - silent}; not shown firing: {names - firing}"
    return f"{len(names)} alerts, each silent and firing"


def prometheus_answers_every_query_of_the_board(binary):
    board = json.loads(BOARD.read_text())
    queries = {f"{panel['title']}, {target['refId']}": target["expr"] for panel in board["panels"] for target in panel["targets"]}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    port = free_port()
    with tailwire([binary, "sim", "--listen", "127.0.0.1:0"]) as (provider, _):
        arguments = ["serve", "--listen", "127.0.0.1:0", "--upstream", f"{provider}/v1"]
        admin = {"TAILWIRE_ADMIN_LISTEN": f"127.0.0.1:{port}"}
        with tailwire([binary, *arguments], admin) as (origin, _), folder() as scratch:
            exposed = page(port)
            said = run(["promtool", "check", "metrics"], input=exposed)
            assert not said.strip(), said
            with prometheus(scratch, port) as ask:
                until("a first scrape", lambda: ask("tailwire_build_info"))
                converse(origin, calls=5)
                until("a scrape after that", lambda: ask('sum(increase(tailwire_turns_total{plan="delta"}[5m])) > 0'))
                for name, query in queries.items():
                    for variable, value in VARIABLES.items():
                        query = query.replace(variable, value)
                    # A series that began with a turn has no rate before its second scrape.
                    until(f"{name}: anything of {query}", lambda query=query: ask(query))
                for rule in alerts():
                    for metric in re.findall(r"\b(?:tailwire|process)_\w+", rule["expr"]):
                        assert ask(metric), f"{rule['alert']}: there is no {metric}"
                variable = board["templating"]["list"][1]["query"]["query"]
                assert ask(re.fullmatch(r"label_values\((\w+), instance\)", variable).group(1))
    return f"{len(queries)} queries, {len(alerts())} alerts"


def page(port):
    status, text = fetch(f"http://127.0.0.1:{port}/metrics")
    assert status == 200, text
    return text


class prometheus:
    """A real one that scrapes `port` at every second, as the configuration that ships but for that and the address."""

    def __init__(self, scratch, port):
        self.scratch, self.own = scratch, free_port()
        config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
        job = config["scrape_configs"][0]
        job["scrape_interval"] = "1s"
        job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
        config["rule_files"] = [str((PROMETHEUS / "alerts.yaml").resolve())]
        (scratch / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def __enter__(self):
        command = ["prometheus", f"--config.file={self.scratch}/prometheus.yaml", f"--storage.tsdb.path={self.scratch}/data"]
        log = open(self.scratch / "log", "w")
        self.process = started([*command, f"--web.listen-address=127.0.0.1:{self.own}"], stdout=log, stderr=log)
        self.process.__enter__()
        until("Prometheus", self.is_ready)
        return self.ask

    def __exit__(self, *reason):
        return self.process.__exit__(*reason)

    def is_ready(self):
        try:
            return fetch(f"http://127.0.0.1:{self.own}/-/ready")[0] == 200
        except OSError:
            return False

    def ask(self, query):
        status, text = fetch(f"http://127.0.0.1:{self.own}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
        assert status == 200, f"{query}: {text}"
        return json.loads(text)["data"]["result"]


def alerts():
    groups = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]
