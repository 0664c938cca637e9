"""Dockerfile, compose, Kubernetes and helm: linters and schemas first, then what they cannot know."""

import fnmatch
import re
from pathlib import Path

import kubernetes_validate
import yaml
from house import environment, folder, run

DEPLOY = Path("deploy")
DRAIN = 30  # seconds: the default of `timeouts.drain`
KUBERNETES = ("1.30.0", "1.37.0")  # the chart's oldest, and the newest whose schemas there are
CHART = DEPLOY / "helm" / "tailwire"
# Values of the chart, by name; what must come of each.
RENDERED = {
    "defaults": [],
    "guarded": ["clientKeysSecret=clients", "upstreamKeySecret=key", "tlsSecret=cert", "replicas=3", "image.tag=sha256:00ff"],
    "reached": ["clients[0].matchLabels.app=agent", "scrapers[0].namespaceSelector.matchLabels.name=monitoring"],
    "settings": [r"settings=reasoning = \"strict\""],
}
REFUSED = {
    "upstreamKeySecret=key": "whoever reaches the port could spend that key",
    "replicsa=2": "additional properties 'replicsa' not allowed",
    "replicas=0": "minimum: got 0, want 1",
}


def the_dockerfile_is_clean(_binary):
    path = DEPLOY / "container" / "Dockerfile"
    said = run(["hadolint", "--failure-threshold", "style", path])
    assert not said, said
    stages = re.split(r"(?m)^FROM ", path.read_text())[1:]
    last = stages[-1]
    assert last.startswith("scratch\n"), "the image holds more than the program"
    user = re.search(r"(?m)^USER (\d+):(\d+)$", last)
    assert user and "0" not in user.groups(), "it does not run as nobody"
    assert not re.search(r"(?m)^RUN ", last), "there is no shell in the image"
    ignored = (DEPLOY / "container" / "Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for line in re.findall(r"(?m)^COPY (?!--from)(.+)$", "".join(stages[:-1])):
        for source in line.split()[:-1]:
            assert Path(source).exists(), f"COPY {source}: no such file"
            assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), f"COPY {source}: left out by .dockerignore"
    rust = re.search(r'(?m)^rust-version = "(.+)"$', Path("Cargo.toml").read_text()).group(1)
    assert stages[0].startswith(f"rust:{rust}-"), f"the toolchain is not {rust}"


def compose_keeps_the_port_on_this_machine(_binary):
    path = DEPLOY / "container" / "compose.yaml"
    run(["check-jsonschema", "--builtin-schema", "vendor.compose-spec", path])
    service = yaml.safe_load(path.read_text())["services"]["tailwire"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "without keys the port must not leave this machine"
    assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN, "the engine would cut the drain"
    assert (path.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def kubernetes_accepts_the_sidecar(_binary):
    path = DEPLOY / "kubernetes" / "sidecar.yaml"
    accepted(path.read_text(), ("1.33.0", KUBERNETES[-1]))
    deployment = next(each for each in yaml.safe_load_all(path.read_text()) if each["kind"] == "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    sidecar = pod["initContainers"][0]
    assert sidecar["restartPolicy"] == "Always", "it would have to end before the agent begins"
    hardened(pod, sidecar)


def helm_renders_what_kubernetes_accepts(_binary):
    said = run(["helm", "lint", "--strict", CHART], env=helm_environment())
    assert "1 chart(s) linted, 0 chart(s) failed" in said, said
    kinds = set()
    for values in RENDERED.values():
        text = render(values)
        accepted(text, KUBERNETES)
        objects = {each["kind"]: each for each in yaml.safe_load_all(text)}
        kinds |= set(objects)
        pod = objects["Deployment"]["spec"]["template"]["spec"]
        hardened(pod, pod["containers"][0])
        labels = objects["Deployment"]["spec"]["template"]["metadata"]["labels"]
        for selector in (
            objects["Service"]["spec"]["selector"],
            objects["Deployment"]["spec"]["selector"]["matchLabels"],
            objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
        ):
            assert selector.items() <= labels.items(), f"{selector} selects other pods"
        mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
        assert mounts == {volume["name"] for volume in pod["volumes"]}
    for value, complaint in REFUSED.items():
        said = run(["helm", "template", "t", CHART, "--set", value], expect=1, env=helm_environment())
        assert complaint in said, f"{value}: {said}"
    return f"{', '.join(sorted(kinds))} by {len(RENDERED)} sets of values, {len(REFUSED)} refused"


def the_program_accepts_every_environment(binary):
    """The settings of every container, given to the real program, which would not start with one it does not know. And it does
    not start without what allows it to be reached."""
    containers = {"compose": compose_container(), "sidecar": sidecar_container()}
    for name, values in RENDERED.items():
        pod = next(each for each in yaml.safe_load_all(render(values)) if each["kind"] == "Deployment")["spec"]["template"]["spec"]
        container = pod["containers"][0]
        containers[f"helm, {name}"] = (container.get("args", ["serve"]), variables(container))
    for name, (arguments, given) in containers.items():
        with folder() as scratch:
            here = given | {"TAILWIRE_UPSTREAM": "http://127.0.0.1:9/v1", "TAILWIRE_TIMEOUTS_CONNECT": "1s"}
            for key in [key for key in here if key.endswith(("_FILE", "_CERTIFICATE", "_KEY")) and here[key].startswith("/")]:
                here[key] = str(scratch / Path(here[key]).name)
            for file in ("client_keys", "upstream_key"):
                (scratch / file).write_text("sk-planted-0123456789abcdef\n")
            (scratch / "proxy.toml").write_text("")
            if "TAILWIRE_TLS_KEY" in here:
                run(SELF_SIGNED, cwd=scratch)
            arguments = [str(scratch / Path(each).name) if each.startswith("/") else each for each in arguments]
            assert arguments[0] == "serve", f"{name}: {arguments}"
            # `check` reads the same settings, and ends: 69, as nobody is at that address.
            command = [binary, "check", *arguments[1:]]
            run(command, expect=69, env=environment(here))
            opened = {key: "false" for key in here if key.endswith("ALLOW_REMOTE") and here[key] == "true"}
            for key, value in opened.items():
                if key == "TAILWIRE_ALLOW_REMOTE" or "TAILWIRE_ADMIN_LISTEN" in here:
                    run(command, expect=78, env=environment(here | {key: value}))
    return f"{len(containers)} containers"


SELF_SIGNED = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=t -keyout tls.key -out tls.crt"
).split()


def hardened(pod, container):
    """What every pod of ours promises."""
    everybody, own = pod["securityContext"], container["securityContext"]
    assert everybody["runAsNonRoot"] and everybody["runAsUser"] and everybody["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["readOnlyRootFilesystem"] and not own["allowPrivilegeEscalation"] and own["capabilities"] == {"drop": ["ALL"]}
    assert not pod["automountServiceAccountToken"]
    assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]
    ports = {port["name"] for port in container["ports"]}
    for probe, path in (("startupProbe", "/live"), ("livenessProbe", "/live"), ("readinessProbe", "/ready")):
        asked = container[probe]["httpGet"]
        assert (asked["path"], asked["port"]) == (path, "admin") and "admin" in ports, f"{probe}: {asked}"
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > pause + DRAIN + 10, "the kubelet would cut the drain"


def accepted(text, versions):
    for each in yaml.safe_load_all(text):
        for version in versions:
            try:
                kubernetes_validate.validate(each, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise AssertionError(f"{each['kind']} in Kubernetes {version}: {error.message} at {list(error.path)}") from None


def render(values):
    sets = [part for value in values for part in ("--set", value)]
    return run(["helm", "template", "t", CHART, *sets], env=helm_environment())


def helm_environment():
    return environment({"HOME": "/nonexistent", "HELM_NO_PLUGINS": "1"})


def compose_container():
    service = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())["services"]["tailwire"]
    return ["serve"], service["environment"]


def sidecar_container():
    objects = yaml.safe_load_all((DEPLOY / "kubernetes" / "sidecar.yaml").read_text())
    pod = next(each for each in objects if each["kind"] == "Deployment")["spec"]["template"]["spec"]
    return ["serve"], variables(pod["initContainers"][0])


def variables(container):
    return {each["name"]: each["value"] for each in container["env"]}
