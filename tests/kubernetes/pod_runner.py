"""Runs the containers of Pods as processes, in the kubelet's place: a network namespace and an address for each Pod.

The image of a container stands for a local command; init containers come first, variables and arguments are filled in,
tokens are asked of the API server, probes are asked, and the status of the Pod is written. What a container sees of
files is this machine's; paths of the volumes of its Pod stand for directories.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.processes import BIN, Processes, until
from tests.fakes import hosts
from tests.fakes.hosts import Host
from tools.kubernetes.cluster import Cluster

Object = dict[str, Any]
_REFERENCE = re.compile(r"\$\(([A-Za-z0-9_]+)\)")


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replaces `$(NAME)` as the kubelet does: what is not known stays as it is written."""
    return _REFERENCE.sub(lambda found: values.get(found[1], found[0]), text)


@dataclass
class Running:
    """A Pod that runs."""

    found: Object
    host: Host
    ending: contextlib.ExitStack

    @property
    def address(self) -> str:
        return self.host.address


@dataclass
class PodRunner:
    """A node: Pods are on one bridge with it. The first address of its network is the node's own."""

    cluster: Cluster
    directory: Path
    switch: Host
    prefix: str
    names: Path
    commands: Mapping[str, Sequence[str | Path]]
    """By the last part of an image's name: what runs in its place, before the container's own arguments."""
    token: Callable[[Object], str]
    """Returns the token of the Pod's sidecar."""
    overrides: Mapping[str, str]
    """Variables that have another value here, because ports are not the usual ones."""
    pods: dict[str, Running] = field(default_factory=dict)
    addresses: int = 1

    @contextlib.contextmanager
    def host(self) -> Iterator[Host]:
        """A further host on the bridge, by its next address."""
        self.addresses += 1
        number = self.addresses
        with hosts.host(f"{self.prefix}.{number}", names=self.names) as made:
            hosts.plug(made, self.switch, number)
            yield made

    def run(self, name: str, namespace: str) -> Running:
        """Start a Pod that is in the API, and return once it is ready."""
        with contextlib.ExitStack() as stack:
            found = self._get(name, namespace)
            host = stack.enter_context(self.host())
            processes = stack.enter_context(Processes(self._place(found)))
            found["status"]["podIP"] = host.address
            self._report(found, {})
            ready: dict[str, bool] = {}
            for container in found["spec"].get("initContainers", ()):
                if container.get("restartPolicy") == "Always":
                    self._start(found, container, host, processes)
                    self._answers(container, "startupProbe", host, processes)
                else:
                    argv, environment, uid = self._command(found, container, host)
                    host.run(*argv, uid=uid, env={**os.environ, **environment})
            for container in found["spec"]["containers"]:
                self._start(found, container, host, processes)
            for container in (*found["spec"].get("initContainers", ()), *found["spec"]["containers"]):
                if "readinessProbe" in container:
                    self._answers(container, "readinessProbe", host, processes)
                ready[container["name"]] = True
            self._report(found, ready)
            made = self.pods[name] = Running(found, host, stack.pop_all())
            return made

    def kill(self, name: str) -> None:
        """End all processes of a Pod at once, and delete it."""
        gone = self.pods.pop(name)
        gone.ending.close()
        namespace = gone.found["metadata"]["namespace"]
        self.cluster.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force")

    def close(self) -> None:
        """End all Pods."""
        for name in list(self.pods):
            self.pods.pop(name).ending.close()

    def _get(self, name: str, namespace: str) -> Object:
        found: Object = json.loads(self.cluster.kubectl("get", "pod", name, "-n", namespace, "-o", "json").stdout)
        return found

    def _place(self, found: Object) -> Path:
        place = self.directory / f"{found['metadata']['name']}-{found['metadata']['uid'][:8]}"
        place.mkdir(mode=0o755, exist_ok=True)
        return place

    def _start(self, found: Object, container: Object, host: Host, processes: Processes) -> None:
        argv, environment, uid = self._command(found, container, host)
        processes.start(container["name"], host.command(*argv, uid=uid), environment)

    def _command(self, found: Object, container: Object, host: Host) -> tuple[list[str], Mapping[str, str], int]:
        """Returns the command of a container, its variables, and the user that it runs as."""
        uid = int(container.get("securityContext", {}).get("runAsUser", 1000))
        volumes = {
            mount["mountPath"]: self._volume(found, mount["name"], uid) for mount in container.get("volumeMounts", ())
        }
        values: dict[str, str] = {"TMPDIR": str(volumes.get("/tmp", self._place(found)))}
        fields = {
            "status.podIP": host.address,
            **{f"metadata.{n}": found["metadata"][n] for n in ("name", "namespace")},
        }
        for variable in container.get("env", ()):
            source = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
            text = fields[source] if source else filled(variable.get("value", ""), values)
            mounted = next((path for path in volumes if f"{text}/".startswith(f"{path}/")), None)
            text = text.replace(mounted, str(volumes[mounted]), 1) if mounted else text
            values[variable["name"]] = self.overrides.get(variable["name"], text)
        image = container["image"].rpartition("/")[2].partition(":")[0]
        given = [*container.get("command", ()), *container.get("args", ())]
        program = [str(part) for part in self.commands[image]]
        if given and given[0] == "kumactl":
            given[0] = str(BIN / "kumactl")
        return [*program, *(filled(text, values) for text in given)], values, uid

    def _volume(self, found: Object, name: str, uid: int) -> Path:
        """Returns the directory of a volume. One that has a token has that of the sidecar."""
        place = self._place(found) / name
        if not place.exists():
            place.mkdir(mode=0o755)
            (volume,) = (one for one in found["spec"]["volumes"] if one["name"] == name)
            for source in volume.get("projected", {}).get("sources", ()):
                if "audience" in source.get("serviceAccountToken", {}):
                    (place / source["serviceAccountToken"]["path"]).write_text(self.token(found))
            for one in (place, *place.iterdir()):
                os.chown(one, uid, uid)
        return place

    def _answers(self, container: Object, probe: str, host: Host, processes: Processes) -> None:
        """Returns once a probe is answered, as the node asks it."""
        asked = container[probe]["httpGet"]
        url = f"http://{host.address}:{asked['port']}{asked['path']}"
        command = ("timeout", "20", "curl", "-sf", "-o", "/dev/null", "-w", "%{http_code}", url)
        what = f"{container['name']} answers its {probe}"
        until(what, lambda: self._ask(*command) == "200" or None, processes)

    @staticmethod
    def _ask(*command: str) -> str:
        """Runs a command on the node itself, which is this machine."""
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def _report(self, found: Object, ready: Mapping[str, bool]) -> None:
        def statuses(kind: str) -> list[Object]:
            return [
                {
                    "name": one["name"], "image": one["image"], "imageID": "", "restartCount": 0,
                    "ready": ready.get(one["name"], False), "started": True,
                    "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }
                for one in found["spec"].get(kind, ())
            ]  # fmt: skip

        is_ready = "True" if ready else "False"
        status = {
            "phase": "Running", "podIP": found["status"]["podIP"], "podIPs": [{"ip": found["status"]["podIP"]}],
            "containerStatuses": statuses("containers"), "initContainerStatuses": statuses("initContainers"),
            "conditions": [{"type": kind, "status": is_ready} for kind in ("ContainersReady", "Ready")],
        }  # fmt: skip
        where = (found["metadata"]["name"], "-n", found["metadata"]["namespace"], "--subresource=status")
        self.cluster.kubectl("patch", "pod", *where, "--type=merge", "-p", json.dumps({"status": status}))
