"""Proxies whose control plane is gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from demo.processes import free_ports
from kuma.agent.contact.guard import OUT_OF_CONTACT
from kuma.base import aio
from tests.fakes.control_plane import ALLOW_ALL, MTLS, running
from tests.fakes.patience import PATIENCE
from tests.integration.sidecars import Sidecars, children_of, until


async def is_served(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError, ConnectionResetError):  # reset: its listener closes just now
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        return True
    return False


async def is_gone(port: int) -> bool:
    return not await is_served(port)


async def test_a_proxy_serves_no_longer_without_the_control_plane_than_it_may(tmp_path: Path) -> None:
    """Without a limit it goes on."""
    async with running(tmp_path) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh = Sidecars(cp, tmp_path)
        web = await mesh.start("web", calls=("backend",), protocol="tcp")
        mesh.options = ("--contact-timeout=20s",)
        backend = await mesh.start("backend", protocol="tcp")
        await until("web reaches backend", lambda: web.reaches("backend"))
    try:
        assert await web.talk("backend") == b"backend:hello"
        assert await backend.running.wait() == OUT_OF_CONTACT
        assert "out of contact for too long" in backend.log.read_text()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", backend.port)
        assert web.running.returncode is None
    finally:
        await mesh.close()


async def test_a_proxy_that_was_stopped_with_its_kuma_dp_comes_back_to_a_control_plane_that_is_there(
    tmp_path: Path,
) -> None:
    """A container is frozen for longer than a proxy may serve alone, and the control plane restarts meanwhile."""
    api, xds = free_ports(2)
    dp_server, xds_server = {"port": api}, {"port": xds}
    async with running(tmp_path, dp_server=dp_server, xds_server=xds_server) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh = Sidecars(cp, tmp_path)
        mesh.options = ("--contact-timeout=4s",)
        backend = await mesh.start("backend", protocol="tcp")
        processes = (backend.running.pid, *children_of(backend.running.pid))
        assert len(processes) == 3
        for process in processes:
            os.kill(process, signal.SIGSTOP)
    try:
        await asyncio.sleep(7)  # what is tried is time that passes beside a process that does not see it
        async with running(tmp_path, dp_server=dp_server, xds_server=xds_server) as cp:
            for process in processes:
                os.kill(process, signal.SIGCONT)

            async def back() -> bool:
                assert backend.running.returncode is None, backend.log.read_text()
                return any(proxy.converged for proxy in cp.parts.proxies)

            await until("backend is back", back)
            assert "out of contact" not in backend.log.read_text()
    finally:
        await mesh.close()


async def test_a_control_plane_that_takes_connections_and_says_nothing_is_no_contact(tmp_path: Path) -> None:
    """A network that swallows what is sent: Envoy has asked for a stream, and waits."""
    api, xds = free_ports(2)
    async with running(tmp_path, dp_server={"port": api}, xds_server={"port": xds}) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh = Sidecars(cp, tmp_path)
        mesh.options = ("--contact-timeout=4s", "--drain-time=1s")
        backend = await mesh.start("backend", protocol="tcp")
    held = []
    silent = [await asyncio.start_server(lambda *one: held.append(one), "127.0.0.1", port) for port in (api, xds)]
    try:
        async with asyncio.timeout(PATIENCE):
            assert await backend.running.wait() == OUT_OF_CONTACT
        assert held
        assert "out of contact for too long" in backend.log.read_text()
    finally:
        for server in silent:
            server.close()
        for _, writer in held:
            writer.close()
        await mesh.close()


async def test_an_envoy_that_is_left_alone_serves_no_longer_either(tmp_path: Path) -> None:
    """Whatever was started beside it is stopped, and a control plane that comes back has it serve again."""
    api, xds = free_ports(2)
    dp_server, xds_server = {"port": api}, {"port": xds}
    async with running(tmp_path, dp_server=dp_server, xds_server=xds_server) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh = Sidecars(cp, tmp_path)
        mesh.options = ("--contact-timeout=3s",)
        backend = await mesh.start("backend", protocol="tcp")
        stopped = [backend.running.pid, *(set(children_of(backend.running.pid)) - set(backend.envoys))]
        assert len(stopped) == 2
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
    try:
        await until("it is served", lambda: is_served(backend.port))
        await until("nothing is served", lambda: is_gone(backend.port))
        async with running(tmp_path, dp_server=dp_server, xds_server=xds_server):
            await until("it is served again", lambda: is_served(backend.port))
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
        await mesh.close()


async def test_a_proxy_whose_kuma_dp_is_stopped_alone_serves_no_longer_either(tmp_path: Path) -> None:
    """It is stopped at the first moment at which there is an Envoy."""
    async with running(tmp_path) as cp:
        await cp.apply(MTLS, ALLOW_ALL)
        mesh = Sidecars(cp, tmp_path)
        mesh.options = ("--contact-timeout=2s", "--drain-time=1s")
        starting = aio.spawn(mesh.start("backend", protocol="tcp"), name="backend")

        async def envoy() -> bool:
            return bool(mesh.started and mesh.started[0].process and mesh.started[0].envoys)

        await until("there is an Envoy", envoy)
        os.kill(mesh.started[0].running.pid, signal.SIGSTOP)
        backend = await starting
    try:
        await until("it is served", lambda: is_served(backend.port))
        await until("nothing is served", lambda: is_gone(backend.port))
        os.kill(backend.running.pid, signal.SIGCONT)
        assert await backend.running.wait() == OUT_OF_CONTACT
        assert "kuma-dp is stopped, and the control plane out of contact" in backend.log.read_text()
    finally:
        await mesh.close()
