"""`docs/configuration.md` lists every setting, as the code has it. Write it anew with `pytest --bless`."""

from pathlib import Path
from typing import Any

import pytest
from pydantic.alias_generators import to_camel

from kuma.app.configuration import setting_names, settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
HEAD = """# Configuration of the control plane

Settings come from defaults, then from a YAML file (`kuma-cp run -c FILE`), then from the environment. Unknown settings
are refused.

| In the file | In the environment | Default | Meaning |
|---|---|---|---|
"""


FIXED = """
## Variables of the original that go without saying

They may be set, to the one value that this control plane has; other values are refused. The original's
`KUMA_API_SERVER_HTTPS_TLS_CERT_FILE`, `KUMA_DP_SERVER_TLS_CERT_FILE` and their `…_KEY_FILE` set `general.tlsCertFile`
and `general.tlsKeyFile`; `KUMA_DP_SERVER_READ_HEADER_TIMEOUT` sets `dpServer.limits.headTimeout`.

| In the environment | Value |
|---|---|
"""
PASSED_OVER = """
## Settings of the original that have no effect here

They may stand in the file and in the environment. `kuma-cp` says in its log which of them are set; with
`general.strict` it does not start. `…_TLS_MAX_VERSION` of all servers is among them; `…_TLS_CIPHER_SUITES` is refused
unless it is empty.

| In the environment | What that means |
|---|---|
"""


def table() -> str:
    rows = []
    for variable, path in setting_names.variables():
        section: Any = settings.Settings
        for part in path[:-1]:
            section = section.model_fields[part].annotation
        info = section.model_fields[path[-1]]
        default = "" if info.default in (None, ()) else f"`{info.default}`"
        name = ".".join(to_camel(part) for part in path)
        rows.append(f"| `{name}` | `{variable}` | {default} | {info.description} |\n")
    fixed = "".join(
        f"| `{name}` | {' or '.join(f'`{v}`' for v in values)} |\n" for name, values in setting_names.FIXED.items()
    )
    passed_over = "".join(
        f"| `{name}{'…' if name.endswith('_') else ''}` | {meaning} |\n"
        for name, meaning in setting_names.PASSED_OVER.items()
    )
    return HEAD + "".join(rows) + FIXED + fixed + PASSED_OVER + passed_over


def test_every_setting_is_described(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--bless"):
        PAGE.write_text(table())
    assert PAGE.read_text() == table()
