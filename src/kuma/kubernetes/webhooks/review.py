"""AdmissionReview, as the API server sends it and wants it answered (admission.k8s.io/v1)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kuma.base.errors import InvalidResource, Violation

Object = Mapping[str, Any]
_LONGEST_WARNING = 256
"""Characters; kubectl is told to show what is longer only in part."""


@dataclass(frozen=True, slots=True)
class Review:
    """A request to judge one change of one object. `new` is None for a deletion, `old` for a creation."""

    uid: str
    operation: str
    kind: str
    name: str
    namespace: str
    user: str
    new: Object | None
    old: Object | None
    dry_run: bool = False

    @classmethod
    def of(cls, body: object) -> Review:
        """The request in a body.

        Raises:
            ValueError: it is something else.
        """
        try:
            request = body["request"]  # type: ignore[index]
            return cls(
                uid=_text(request["uid"]),
                operation=_text(request["operation"]),
                kind=_text(request["kind"]["kind"]),
                name=_text(request.get("name")),
                namespace=_text(request.get("namespace")),
                user=_text(request["userInfo"].get("username")),
                new=_object(request.get("object")),
                old=_object(request.get("oldObject")),
                dry_run=bool(request.get("dryRun")),
            )
        except (KeyError, TypeError, AttributeError):
            raise ValueError("this is no AdmissionReview of admission.k8s.io/v1") from None


def _text(found: object) -> str:
    if not isinstance(found, str | None):
        raise TypeError
    return found or ""


def _object(found: Any) -> Object | None:
    """Returns an object whose metadata has the form that the API server sees to, for all kinds."""
    if found is None:
        return None
    metadata = found["metadata"]
    maps = [metadata.get(name) or {} for name in ("labels", "annotations")]
    texts = [metadata.get(name) for name in ("name", "namespace", "generateName")]
    for text in (*texts, *(text for named in maps for text in named.values())):
        _text(text)
    return dict(found)


def allowed(review: Review, warnings: Sequence[str] = (), patch: Sequence[Object] = ()) -> dict[str, Any]:
    """The answer that lets a change be made; with `patch` (RFC 6902), changed before."""
    response: dict[str, Any] = {"uid": review.uid, "allowed": True}
    if warnings:
        response["warnings"] = [_short(warning) for warning in warnings]
    if patch:
        encoded = base64.b64encode(json.dumps(list(patch)).encode()).decode()
        response |= {"patchType": "JSONPatch", "patch": encoded}
    return _answer(response)


def invalid(review: Review, error: InvalidResource) -> dict[str, Any]:
    """The answer to content that breaks rules: 422 with every violation, as the API server's own validation has it."""
    causes = [{"reason": "FieldValueInvalid", "message": v.reason, "field": v.field} for v in error.violations]
    status = {
        "status": "Failure", "reason": "Invalid", "code": 422, "message": str(error),
        "details": {"name": review.name, "kind": review.kind, "causes": causes},
    }  # fmt: skip
    return _answer({"uid": review.uid, "allowed": False, "status": status})


def forbidden(review: Review, message: str) -> dict[str, Any]:
    """The answer to what the sender may not do: 403."""
    return _answer({"uid": review.uid, "allowed": False, "status": _status(403, "Forbidden", message)})


def unreadable(review: Review) -> dict[str, Any]:
    """The answer to what is not of the form that its kind has: 400."""
    message = "this cannot be judged: it has not the form that its kind has; the control plane's log has more"
    return _answer({"uid": review.uid, "allowed": False, "status": _status(400, "BadRequest", message)})


def unavailable(review: Review, message: str) -> dict[str, Any]:
    """The answer while the control plane cannot judge: 503."""
    return _answer({"uid": review.uid, "allowed": False, "status": _status(503, "ServiceUnavailable", message)})


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"status": "Failure", "reason": reason, "code": code, "message": message}


def _answer(response: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def _short(warning: str) -> str:
    text = " ".join(warning.split())
    return text if len(text) <= _LONGEST_WARNING else f"{text[: _LONGEST_WARNING - 1]}…"


def placed(violations: Sequence[Violation], places: Mapping[str, str], within: str) -> InvalidResource:
    """Violations at their paths in the object: `places` has fields of the resource that are elsewhere in it, the rest
    is `within` something such as `spec`.
    """

    def place(field: str) -> str:
        for known, path in places.items():
            if field == known or field.startswith((f"{known}[", f"{known}.")):
                return path + field.removeprefix(known)
        if not field or not within or field == within or field.startswith(f"{within}."):
            return field or within
        return f"{within}.{field}"

    return InvalidResource(Violation(place(v.field), v.reason) for v in violations)
