"""`kumactl apply`: everything is checked here before anything is sent."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml

from kuma.base.errors import InvalidResource, KumaError, Misconfigured, Violation
from kuma.cli.session import Session
from kuma.resources import codec
from kuma.resources.resource import Resource

_VARIABLE = re.compile(r"\{\{\s*([\w.]+)\s*}}")
_FETCH_TIMEOUT = 30.0


def apply(
    context: typer.Context,
    file: Annotated[list[str], typer.Option("--file", "-f", help="File, directory, URL, or `-` for standard input.")],
    var: Annotated[list[str] | None, typer.Option("--var", "-v", help="name=value for {{ name }} in the text.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and print what would be sent; send nothing.")
    ] = False,
) -> None:
    """Create or replace the resources in files.

    Both forms are understood: `type:`, `name:`, `mesh:`, and Kubernetes' `apiVersion:`, `kind:`, `metadata:`, `spec:`.

    Example: kumactl apply -f mesh.yaml    or: cat mesh.yaml | kumactl apply -f -
    """
    variables = _pairs(var or ())
    resources = [resource for name in file for resource in _parse(name, _filled(_text, name, variables))]
    if not resources:
        raise Misconfigured(f"there is no resource in {', '.join(file)}")
    if dry_run:
        documents = [codec.to_universal(resource) for resource in resources]
        typer.echo(yaml.safe_dump_all(documents, sort_keys=False), nl=False)
        return
    session: Session = context.obj
    with session.client() as client:
        for resource in resources:
            created, said = client.put(resource)
            for warning in said.get("warnings", ()):
                typer.echo(f"Warning: {warning}", err=True)
            typer.echo(f"{resource.key} {'created' if created else 'configured'}")
            if said.get("stagedChange"):
                mesh = resource.mesh or resource.name
                typer.echo(f"A staged change has begun; follow it with: kumactl inspect meshes --watch {mesh}")


def _text(name: str) -> Iterator[str]:
    """The texts behind a name: of a file, of all YAML files of a directory, of a URL, or of standard input."""
    try:
        if name == "-":
            yield sys.stdin.read()
        elif name.startswith(("http://", "https://")):
            yield httpx.get(name, timeout=_FETCH_TIMEOUT, follow_redirects=True).raise_for_status().text
        elif Path(name).is_dir():
            for path in sorted(p for p in Path(name).iterdir() if p.suffix in (".yaml", ".yml", ".json")):
                yield path.read_text()
        else:
            yield Path(name).read_text()
    except OSError as error:
        raise Misconfigured(f"cannot read {error.filename or name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{name} is no text") from None
    except httpx.HTTPError as error:
        raise Misconfigured(f"cannot fetch {name}: {error}") from None


def _filled(read: Any, name: str, variables: Mapping[str, str]) -> Iterator[str]:
    for text in read(name):
        if variables:
            missing = sorted(set(_VARIABLE.findall(text)) - set(variables))
            if missing:
                raise Misconfigured(f"{name} has no value for {', '.join(missing)}; give --var name=value")
        yield _VARIABLE.sub(lambda match: variables[match[1]], text) if variables else text


def _parse(name: str, texts: Iterator[str]) -> Sequence[Resource[Any]]:
    found: list[Resource[Any]] = []
    for text in texts:
        try:
            found += [codec.parse(document) for document in codec.documents(text)]
        except InvalidResource as error:
            raise _Invalid(name, error.violations) from None
    return found


class _Invalid(KumaError):
    """A file holds something that is no valid resource."""

    def __init__(self, name: str, violations: Sequence[Violation]) -> None:
        source = "standard input" if name == "-" else name
        super().__init__("\n".join([f"{source} is not valid", *(f"* {violation}" for violation in violations)]))


def _pairs(variables: Sequence[str]) -> Mapping[str, str]:
    pairs = [variable.partition("=") for variable in variables]
    for name, equals, _ in pairs:
        if not equals:
            raise Misconfigured(f"--var {name}: has to be name=value")
    return {name: value for name, _, value in pairs}
