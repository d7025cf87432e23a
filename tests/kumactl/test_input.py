"""What `kumactl apply` reads: files of every make, standard input, and what a web server answers."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from demo.processes import BIN
from tests.fakes.patience import PATIENCE
from tests.kumactl.fake_server import serving

NONE: Mapping[str, str] = {}
ASCII_ONLY = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
MESH = "type: Mesh\nname: x\n"


def dry_run(
    home: Path, *arguments: str, stdin: bytes = b"", locale: Mapping[str, str] = NONE
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [BIN / "kumactl", "apply", "--dry-run", *arguments], cwd=home, env={**os.environ, "HOME": str(home), **locale},
        input=stdin, capture_output=True, timeout=PATIENCE,
    )  # fmt: skip
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


MARKED = b"\xef\xbb\xbf" + MESH.replace("\n", "\r\n").encode()


@pytest.mark.parametrize("content", [MARKED, MARKED + b"---\r\n" + MARKED[3:]], ids=["one", "two"])
def test_files_of_windows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mesh.yaml").write_bytes(content)
    for done in (dry_run(tmp_path, "-f", "mesh.yaml"), dry_run(tmp_path, "-f", "-", stdin=content)):
        assert {document["name"] for document in yaml.safe_load_all(done.stdout)} == {"x"}, done.stderr


@pytest.mark.parametrize("content", [MESH.encode("utf-16"), b"type: Mesh\nname: caf\xe9\n"], ids=["utf-16", "latin"])
def test_what_is_not_utf_8(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mesh.yaml").write_bytes(content)
    assert dry_run(tmp_path, "-f", "mesh.yaml").stderr == "Error: mesh.yaml is no text in UTF-8\n"
    done = dry_run(tmp_path, "-f", "-", stdin=content, locale={"LC_ALL": "C"})
    assert done.stderr == "Error: standard input is no text in UTF-8\n"


def test_the_locale_says_nothing_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(f"# café\n{MESH}", "utf-8")
    assert dry_run(tmp_path, "-f", "mesh.yaml", locale=ASCII_ONLY).returncode == 0


@pytest.mark.parametrize(
    ("standard_input", "said"),
    [("< /dev/null", "there is no resource in standard input"), ("<&-", "cannot read standard input: ")],
)
def test_standard_input_that_holds_nothing(tmp_path: Path, standard_input: str, said: str) -> None:
    line = f"'{BIN / 'kumactl'}' apply -f - {standard_input}"
    done = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr.startswith(f"Error: {said}")) == (1, True), done.stderr


@pytest.mark.parametrize("head", ["", "apiVersion: v1\nkind: List\n"], ids=["kumactl", "kubectl"])
def test_lists_that_were_printed_can_be_applied(tmp_path: Path, head: str) -> None:
    (tmp_path / "list.yaml").write_text(f"{head}items:\n- {{type: Mesh, name: x}}\n- {{type: Mesh, name: y}}\n")
    done = dry_run(tmp_path, "-f", "list.yaml")
    assert [document["name"] for document in yaml.safe_load_all(done.stdout)] == ["x", "y"], done.stderr
    (tmp_path / "list.yaml").write_text(f"{head}items:\n- {{type: Mesh, name: x}}\n- {{type: Mash, name: y}}\n- 1\n")
    done = dry_run(tmp_path, "-f", "list.yaml")
    assert (done.returncode, 'Mash "y"' in done.stderr, "has to be a resource" in done.stderr) == (1, True, True)


def test_what_a_web_server_answers(tmp_path: Path) -> None:
    with serving({"/mesh.yaml": (200, MESH)}) as server:
        address = f"http://localhost:{server.port}"
        assert yaml.safe_load(dry_run(tmp_path, "-f", f"{address}/mesh.yaml").stdout)["name"] == "x"
        done = dry_run(tmp_path, "-f", f"{address}/typo.yaml")
    assert done.stderr == f"Error: cannot fetch {address}/typo.yaml: 404 Not Found\n"
    done = dry_run(tmp_path, "-f", f"{address}/mesh.yaml")
    assert done.stderr == f"Error: cannot fetch {address}/mesh.yaml: Connection refused\n"


def test_a_variable_that_nobody_gives_is_told_of_if_the_text_is_not_valid(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("type: Mesh\nname: {{ name }}\n")
    done = dry_run(tmp_path, "-f", "mesh.yaml")
    assert done.stderr.endswith("\n* it has {{ name }}, and no variable is given; see --var\n")
    assert dry_run(tmp_path, "-f", "mesh.yaml", "-v", "name=x").returncode == 0
