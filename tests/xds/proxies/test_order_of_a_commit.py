"""In which order one commit reaches views, meshes, proxies and whoever listens: nobody decides by half of the news."""

from pathlib import Path

from kuma.base import aio
from kuma.base.clock import SystemClock
from kuma.base.turns import Turns
from kuma.resources import kinds
from kuma.store.protocol import Create
from kuma.store.sql.embedded.sqlite import open_sqlite
from kuma.store.views import Views
from kuma.xds.proxies.meshes import Meshes
from tests.fakes.control_plane import dataplane, resource


async def test_states_come_before_proxies_and_both_before_listeners_whoever_subscribed_first(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "kuma.db", SystemClock())
    views, heard = Views(store), list[tuple[str, bool]]()

    def is_current(mesh: str) -> bool:
        return meshes.state(mesh).config.view is views.view(mesh)

    meshes = Meshes(
        views,
        lambda mesh, names: heard.append((f"proxies of {mesh}: {sorted(names)}", is_current(mesh))),
        Turns(),
    )
    meshes.on_change(lambda changed: heard.append((f"listeners of {sorted(changed)}", all(map(is_current, changed)))))
    task = aio.spawn(views.run(), name="views")
    try:
        await views.until(lambda: True)
        heard.clear()
        one, two = (resource(f"{{type: Mesh, name: {name}}}") for name in ("one", "two"))
        first = dataplane("web-01", "web")
        key = kinds.DATAPLANE.key("web-01", "one")
        stored = await store.transact([Create(one), Create(two), Create(type(first)(key, first.spec), one.key)])
        await views.until(lambda: all(views.holds(each) for each in stored))
    finally:
        await aio.stop([task])
        await store.close()
    assert heard[-1] == ("listeners of ['one', 'two']", True), "one notification for the whole commit, and the last"
    assert ("proxies of one: ['web-01']", True) in heard[:-1]
    assert all(current for _, current in heard)
