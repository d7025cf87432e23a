"""Real reverse proxies before the API, on its machine and with the least configuration: nobody is its administrator.

They run as a user of their own, as their Debian packages have it, and add no header that says that they are there.
"""

import asyncio
import contextlib
import os
import shutil
import socket
from pathlib import Path

import httpx

from demo.processes import Processes, free_ports
from kuma.app.serving.servers import HTTPS
from kuma.base.tls.trust import NOBODY
from tests.fakes.control_plane import running
from tests.fakes.patience import PATIENCE

NGINX = """
daemon off; user www-data; pid {directory}/nginx.pid; worker_processes 1; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{plain}; listen unix:{directory}/plain.sock;
    location / {{ proxy_pass http://127.0.0.1:{http}; }}
  }}
  server {{
    listen 127.0.0.1:{tls}; listen unix:{directory}/tls.sock;
    location / {{ proxy_pass https://127.0.0.1:{https}; }}
  }}
}}
"""
HAPROXY = """
global
    user haproxy
defaults
    mode http
    timeout connect 60s
    timeout client 60s
    timeout server 60s
listen plain
    bind 127.0.0.1:{plain}
    bind unix@{directory}/plain.sock
    server cp 127.0.0.1:{http}
listen tls
    bind 127.0.0.1:{tls}
    bind unix@{directory}/tls.sock
    server cp 127.0.0.1:{https} ssl verify none
"""
PROXIES = {"nginx": (NGINX, ("-c",)), "haproxy": (HAPROXY, ("-db", "-f"))}


async def listening(port: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                return
            await asyncio.sleep(0.05)


async def test_whoever_calls_through_a_reverse_proxy_is_nobody(tmp_path: Path) -> None:
    assert os.geteuid() == 0, "only root has a proxy take another user than ours"
    async with running(tmp_path / "cp") as cp:
        ports = {"http": await cp.api_port(), "https": await cp.parts.api[HTTPS].port()}
        with Processes(tmp_path) as processes:
            for name, (configuration, arguments) in PROXIES.items():
                program, directory = shutil.which(name), tmp_path / name
                assert program is not None, f"{name} is missing: make packages"
                directory.mkdir()
                plain, tls = free_ports(2)
                file = directory / "proxy.conf"
                file.write_text(configuration.format(directory=directory, plain=plain, tls=tls, **ports))
                processes.start(name, [program, *arguments, file], {})
                await listening(tls)
                for port, path in ((plain, None), (tls, None), (plain, "plain.sock"), (tls, "tls.sock")):
                    await is_nobody(port, str(directory / path) if path else None)
        async with httpx.AsyncClient(
            verify=NOBODY, base_url=f"http://localhost:{ports['http']}", timeout=PATIENCE
        ) as client:
            assert (await client.get("/who-am-i")).json()["name"] == "mesh-system:admin", "without a proxy"


async def is_nobody(port: int, path: str | None) -> None:
    """See that nobody is anything special at a port, or at the Unix socket of a path."""
    transport = httpx.AsyncHTTPTransport(uds=path) if path else None
    async with httpx.AsyncClient(transport=transport, base_url=f"http://localhost:{port}", timeout=PATIENCE) as client:
        assert (await client.get("/who-am-i")).json()["name"] == "mesh-system:anonymous"
        for method, where in (("GET", "/global-secrets"), ("GET", "/meshes"), ("DELETE", "/meshes/default")):
            refused = await client.request(method, where)
            assert refused.status_code == 403, (where, refused.text)
        assert "mesh-system:admin" not in (await client.get("/gui/", follow_redirects=True)).text
