"""Runs the containers of Pods as processes, in the kubelet's place: a network namespace and an address for each Pod.

The image of a container stands for a local command; init containers come first, variables and arguments are filled in,
tokens are asked of the API server, probes are asked, and the status of the Pod is written. A Pod ends as the kubelet
ends it: hooks, then its containers, and native sidecars after them. What a container sees of files is this machine's;
paths of the volumes of its Pod stand for directories.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.processes import BIN, Processes, until
from tools import hosts
from tools.hosts import Host
from tools.kubernetes.cluster import Cluster

Object = dict[str, Any]
_NODE, _TIME = "node", "2026-01-01T00:00:00Z"
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
    place: Path
    containers: Mapping[str, subprocess.Popen[bytes]]

    @property
    def address(self) -> str:
        return self.host.address

    def log(self, container: str) -> Path:
        """The file with what a container has printed."""
        return self.place / f"{container}.log"


@dataclass
class PodRunner:
    """A node: Pods are on one bridge with it. The first address of its network is the node's own."""

    cluster: Cluster
    directory: Path
    switch: Host
    prefix: str
    prefix6: str
    """Of second addresses, which Pods have as in a dual-stack cluster."""
    names: Path
    commands: Mapping[str, Sequence[str | Path]]
    """By the last part of an image's name: what runs in its place, before the container's own arguments."""
    token: Callable[[Object], str]
    """Returns the token of the Pod's sidecar."""
    overrides: Mapping[str, str]
    """Variables that have another value here, because ports are not the usual ones."""
    pods: dict[str, Running] = field(default_factory=dict)
    hook: Callable[[Running, int], object] = lambda pod, seconds: time.sleep(seconds)
    """What is done for a hook that sleeps; a test may wait for what is to have come to pass by then."""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(2))

    @contextlib.contextmanager
    def host(self) -> Iterator[Host]:
        """A further host on the bridge, by its next address."""
        number = next(self._numbers)
        with hosts.host(f"{self.prefix}.{number}", f"{self.prefix6}{number}", names=self.names) as made:
            hosts.plug(made, self.switch, number)
            yield made

    def run(self, name: str, namespace: str) -> Running:
        """Start a Pod that is in the API, and return once it is ready."""
        with contextlib.ExitStack() as stack:
            found = self._get(name, namespace)
            host = stack.enter_context(self.host())
            processes = stack.enter_context(Processes(self._place(found)))
            found["status"] |= {"podIP": host.address, "podIPs": [{"ip": host.address}, {"ip": host.address6}]}
            self._report(found, {})
            running: dict[str, subprocess.Popen[bytes]] = {}
            for container in found["spec"].get("initContainers", ()):
                if container.get("restartPolicy") == "Always":
                    running[container["name"]] = self._start(found, container, host, processes)
                    self._answers(container, "startupProbe", host, processes)
                else:
                    argv, environment, uid = self._command(found, container, host)
                    host.run(*argv, uid=uid, env={**os.environ, **environment})
            for container in found["spec"]["containers"]:
                running[container["name"]] = self._start(found, container, host, processes)
                if found["spec"]["restartPolicy"] != "Always":
                    processes.forget(running[container["name"]])  # it may end by itself
                    stack.callback(running[container["name"]].kill)
            for container in (*found["spec"].get("initContainers", ()), *found["spec"]["containers"]):
                if "readinessProbe" in container:
                    self._answers(container, "readinessProbe", host, processes)
            made = self.pods[name] = Running(found, host, stack.pop_all(), self._place(found), running)
            self._report(found, running)
            return made

    @contextlib.contextmanager
    def following(self, namespace: str) -> Iterator[None]:
        """Runs the Pods of a namespace as they come, until they have ended or are deleted, while the block lasts.

        Each has a thread of its own that lasts as long: its processes would end with the thread that started them.
        """
        self.cluster.ask("POST", "/api/v1/nodes", {"kind": "Node", "apiVersion": "v1", "metadata": {"name": _NODE}})
        done, errors = threading.Event(), list[BaseException]()
        alive: dict[str, tuple[threading.Thread, list[Object]]] = {}

        def live(name: str, seen: list[Object]) -> None:
            try:
                self._live(name, namespace, seen, done)
            except BaseException as error:
                errors.append(error)
                raise

        def follow() -> None:
            while not done.is_set():
                with contextlib.suppress(OSError):  # the API server may be away
                    for found in self.cluster.ask("GET", f"/api/v1/namespaces/{namespace}/pods")["items"]:
                        named = found["metadata"]
                        if named["uid"] in alive:
                            alive[named["uid"]][1].append(found)
                        elif named["name"] not in self.pods and "deletionTimestamp" not in named:
                            seen = [found]
                            thread = threading.Thread(target=live, args=(named["name"], seen), name=named["name"])
                            alive[named["uid"]] = thread, seen
                            thread.start()
                time.sleep(0.1)

        watching = threading.Thread(target=follow, name=f"Pods of {namespace}")
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()
            for thread, _ in alive.values():
                thread.join()
            self.cluster.ask("DELETE", f"/api/v1/nodes/{_NODE}")
        assert not errors, errors

    def _live(self, name: str, namespace: str, seen: Sequence[Object], done: threading.Event) -> None:
        """The life of a Pod."""
        target = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": {"name": _NODE}}
        self.cluster.ask("POST", f"/api/v1/namespaces/{namespace}/pods/{name}/binding", target)
        pod = self.run(name, namespace)
        ended = 0
        while not done.is_set() and "deletionTimestamp" not in seen[-1]["metadata"]:
            now = sum(process.poll() is not None for process in pod.containers.values())
            if now > ended:
                ended = now
                self._report(pod.found, pod.containers)
                if self._is_over(pod):
                    break
            time.sleep(0.1)
        if self._is_over(pod) or not done.is_set():
            self.stop(pod)
        else:
            self.pods.pop(name).ending.close()

    @staticmethod
    def _is_over(pod: Running) -> bool:
        return all(pod.containers[one["name"]].poll() is not None for one in pod.found["spec"]["containers"])

    def stop(self, pod: Running) -> None:
        """Ends a Pod as the kubelet does. One that is deleted is gone then; one that is over has ended well, or not."""
        name, namespace = (pod.found["metadata"][part] for part in ("name", "namespace"))
        is_over = self._is_over(pod)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda container: self._end(pod, container), pod.found["spec"]["containers"]))
        for container in reversed(pod.found["spec"].get("initContainers", ())):
            if container["name"] in pod.containers:
                self._end(pod, container)
        del self.pods[name]
        if is_over:
            self._report(pod.found, pod.containers)
        else:
            self.cluster.kubectl("delete", "pod", name, "-n", namespace, "--grace-period=0", "--force")
        pod.ending.close()

    def _end(self, pod: Running, container: Object) -> None:
        process = pod.containers[container["name"]]
        hook = container.get("lifecycle", {}).get("preStop", {})
        if process.poll() is None and hook:
            self.hook(pod, hook["sleep"]["seconds"])
        process.terminate()
        process.wait()

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
        return self.cluster.ask("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")

    def _place(self, found: Object) -> Path:
        place = self.directory / f"{found['metadata']['name']}-{found['metadata']['uid'][:8]}"
        place.mkdir(mode=0o755, exist_ok=True)
        return place

    def _start(self, found: Object, container: Object, host: Host, processes: Processes) -> subprocess.Popen[bytes]:
        argv, environment, uid = self._command(found, container, host)
        return processes.start(container["name"], host.command(*argv, uid=uid), environment)

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

    def _report(self, found: Object, running: Mapping[str, subprocess.Popen[bytes]]) -> None:
        """Writes the status of a Pod; those of its containers that run are ready. None does as long as it starts."""

        def state(name: str) -> Object:
            code = running[name].poll() if name in running else None
            ended = {"terminated": {"exitCode": abs(code), "reason": "Ended"}} if code is not None else None
            return ended or {"running": {"startedAt": _TIME}}

        def statuses(kind: str) -> list[Object]:
            return [
                {
                    "name": one["name"], "image": one["image"], "imageID": "", "restartCount": 0, "started": True,
                    "ready": bool(running) and "running" in state(one["name"]), "state": state(one["name"]),
                }
                for one in found["spec"].get(kind, ())
            ]  # fmt: skip

        containers = statuses("containers")
        codes = [one["state"].get("terminated", {}).get("exitCode") for one in containers]
        phase = "Running" if None in codes else "Failed" if any(codes) else "Succeeded"
        is_ready = str(all(one["ready"] for one in containers))
        status = {
            "phase": phase, "podIP": found["status"]["podIP"], "podIPs": found["status"]["podIPs"],
            "containerStatuses": containers, "initContainerStatuses": statuses("initContainers"),
            "conditions": [{"type": kind, "status": is_ready} for kind in ("ContainersReady", "Ready")],
        }  # fmt: skip
        name, namespace = (found["metadata"][part] for part in ("name", "namespace"))
        self.cluster.ask("PATCH", f"/api/v1/namespaces/{namespace}/pods/{name}/status", {"status": status})
