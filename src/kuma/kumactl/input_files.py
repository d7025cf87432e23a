"""Reads resources from files, standard input and URLs, and reports every mistake in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuma.base import texts
from kuma.base.errors import InvalidResource, KumaError, Misconfigured, NotForUs
from kuma.base.tls import handshakes
from kuma.base.values.variables import filled, names_in
from kuma.resources import codec
from kuma.resources.resource import Resource

VARIABLE = "--var"
"""The option that gives values to what stands in the texts."""
_DOCUMENT = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_FETCH_TIMEOUT = 30.0
_LARGEST_DOCUMENT = 2 << 20
"""Bytes. The control plane takes a resource of 1 MiB, without comments; reading much more would take minutes."""


@dataclass(frozen=True, slots=True)
class DeclaredResource:
    """A resource and where it was read."""

    resource: Resource[Any]
    source: str


@dataclass(frozen=True, slots=True)
class Contents:
    """The resources in files, and a line for each document that is for another system and was left out."""

    resources: tuple[DeclaredResource, ...]
    left_out: tuple[str, ...]


class InvalidFiles(KumaError):
    """Files hold what is no valid resource; the text has every violation of every document."""


def read(names: Sequence[str], variables: Mapping[str, str], *, strict: bool = False) -> Contents:
    """The resources behind names of files, directories, URLs, and `-` for standard input.

    What is for another system is left out, or one of the mistakes if `strict`.

    Raises:
        Misconfigured: one cannot be read.
        InvalidFiles: they can, and do not hold what they should.
    """
    found: list[DeclaredResource] = []
    complaints: list[str] = []
    left_out: list[str] = []
    for source, text in (pair for name in names for pair in _texts(name)):
        _check_sizes(source, text)
        filled_in = filled(text, variables, what=source, option=VARIABLE) if variables else text
        resources, violations, foreign = _parsed(filled_in)
        violations += foreign if strict else []
        left_out += [] if strict else [f"{source}: left out: {line.removeprefix('* ')}" for line in foreign]
        unfilled = () if variables else names_in(text)
        if violations and unfilled:
            violations.append(f"* it has {{{{ {unfilled[0]} }}}}, and no variable is given; see {VARIABLE}")
        found += [DeclaredResource(resource, source) for resource in resources]
        complaints += [f"{source} is not valid", *violations] if violations else []
    if complaints:
        raise InvalidFiles("\n".join(complaints))
    return Contents(tuple(found), tuple(left_out))


def _texts(name: str) -> Iterator[tuple[str, str]]:
    """The texts behind a name, each with where it is from."""
    try:
        if name.startswith(("http://", "https://")):
            yield name, _fetched(name)
        elif Path(name).is_dir():
            for path in sorted(p for p in Path(name).iterdir() if p.suffix in (".yaml", ".yml", ".json")):
                name = str(path)
                yield name, texts.read(name)
        else:
            yield described(name), texts.read(name)
    except OSError as error:
        raise Misconfigured(f"cannot read {error.filename or described(name)}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"{described(name)} is no text in UTF-8") from None


def described(name: str) -> str:
    """Returns the name that people use for what `-f` names."""
    return "standard input" if name == texts.STANDARD_INPUT else name


def _fetched(url: str) -> str:
    import httpx  # follows redirects; most files are here

    try:
        answer = httpx.get(url, timeout=_FETCH_TIMEOUT, follow_redirects=True)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        untrusted = handshakes.untrusted(error)
        reason = f"its certificate is not trusted: {untrusted}" if untrusted else handshakes.words(error)
        raise Misconfigured(f"cannot fetch {url}: {reason}") from None
    if not answer.is_success:
        raise Misconfigured(f"cannot fetch {url}: {answer.status_code} {answer.reason_phrase}")
    return answer.text


def _check_sizes(source: str, text: str) -> None:
    for number, part in enumerate((part for part in _DOCUMENT.split(text) if part.strip()), 1):
        if len(part) > _LARGEST_DOCUMENT:
            size = len(part.encode(errors="replace"))
            raise Misconfigured(f"{source}: document {number} has {size:,} bytes; a resource has at most 1 MiB")


def _parsed(text: str) -> tuple[list[Resource[Any]], list[str], list[str]]:
    """The resources in a text, a line for each violation, and one for each document that is not for us.

    Lines name the document if there are several.
    """
    resources: list[Resource[Any]] = []
    wrong: list[str] = []
    foreign: list[str] = []
    documents = [(number, item) for number, found in codec.numbered(text) for item in _items(found)]
    for number, document in documents:
        try:
            if isinstance(document, InvalidResource):
                raise document
            resources.append(codec.parse(document))
        except InvalidResource as error:
            title = f"document {number}{_named(document)}: " if len(documents) > 1 else ""
            lines = foreign if isinstance(error, NotForUs) else wrong
            lines += [f"* {title}{violation}" for violation in error.violations]
    return resources, wrong, foreign


def _items(document: Mapping[str, Any] | InvalidResource) -> Iterator[Mapping[str, Any] | InvalidResource]:
    """Yields what a list holds that `kumactl get -o yaml` or `kubectl get -o yaml` has printed; else the document."""
    items = document.get("items") if isinstance(document, Mapping) else None
    is_list = isinstance(document, Mapping) and (document.get("kind") == "List" or "type" not in document)
    if not isinstance(items, list) or not is_list:
        yield document
        return
    for item in items:
        yield item if isinstance(item, Mapping) else InvalidResource.of("items", "each has to be a resource")


def _named(document: Mapping[str, Any] | InvalidResource) -> str:
    """Kind and name of a document, as far as it says them."""
    if isinstance(document, InvalidResource):
        return ""
    metadata = document.get("metadata")
    kind = document.get("kind") or document.get("type")
    name = document.get("name") or (metadata.get("name") if isinstance(metadata, Mapping) else None)
    words = [str(kind)[:100] if kind else "", f'"{str(name)[:100]}"' if name else ""]
    said = " ".join(word for word in words if word)
    return f" ({said})" if said else ""
