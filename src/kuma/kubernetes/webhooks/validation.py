"""Judges what others than the control plane write to the Kubernetes API, by the rules of the REST API."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kuma.authorities import retained
from kuma.base.errors import (
    AccessDenied,
    AlreadyExists,
    Conflict,
    InvalidResource,
    NotFound,
    StoreCorrupt,
    Unavailable,
)
from kuma.kubernetes.install.admission import CLEANERS
from kuma.kubernetes.objects import content
from kuma.kubernetes.objects.forms import TLS_TYPE, Form, Forms, Object
from kuma.kubernetes.store import journal
from kuma.kubernetes.webhooks import answers
from kuma.kubernetes.webhooks import review as reviews
from kuma.kubernetes.webhooks.dataplanes import DataplaneRules
from kuma.kubernetes.webhooks.in_turn import InTurn
from kuma.kubernetes.webhooks.review import Review
from kuma.resources import codec, kinds
from kuma.resources.codec import MESH_LABEL
from kuma.resources.resource import Resource
from kuma.store.manager import ResourceManager
from kuma.store.protocol import Create, Operation, Update

ALLOW_WEAKENING = "kuma.io/allow-weakening"
"""Annotation of an object that may weaken a mesh that refuses that, as `--allow-weakening` of kumactl."""


class Validation:
    """Judges changes. What the control plane itself writes, as the user `own`, has been judged before."""

    def __init__(
        self, manager: ResourceManager, forms: Forms, own: str, dataplanes: DataplaneRules, order: InTurn
    ) -> None:
        self._manager = manager
        self._order = order
        self._forms = forms
        self._own = own
        self._dataplanes = dataplanes

    async def answer(self, review: Review) -> dict[str, Any]:
        """The answer to a request; it is always one."""
        return await answers.answered(review, self._allowed)

    async def _allowed(self, review: Review) -> dict[str, Any]:
        return reviews.allowed(review, await self.judge(review))

    async def judge(self, review: Review) -> Sequence[str]:
        """Judges a change, and returns warnings.

        Raises:
            InvalidResource: a rule is broken.
            AccessDenied: only the control plane may do this.
        """
        if review.user == self._own:
            return ()
        _check_not_own(review)
        if review.new is None:
            return () if review.user in CLEANERS else await self._judge_deletion(review)
        form = self._forms.of_object(review.new)
        self._check_still(review, form)
        if form is None:
            return ()  # a Secret of somebody else
        return await self._judge_put(review, form, review.new)

    async def _judge_put(self, review: Review, form: Form, new: Object) -> Sequence[str]:
        if form.kind.read_only:
            raise AccessDenied(f"{form.kind.name} is written by the control plane only")
        try:
            self._check_place(form, review.namespace)
            if form.kind is kinds.DATAPLANE:
                await self._dataplanes.check_not_of_a_pod(review)
            old = _decoded(form, review.old)
            resource = _parsed(form, new)
            if form.content == "spec" and form.kind.in_mesh:
                await self._check_mesh(resource.mesh)
            # Without what is stored: a mask stands for it, and kubectl is not given any.
            masked = resource.with_spec(form.kind.meant(resource.spec, None))
            async with self._turn(review, old, masked):
                # As in a rehearsal, which makes no keys: what follows from a Mesh is made once the Mesh is there.
                judged = await self._manager.rehearsal().judge(old, masked, allow_weakening=_may_weaken(new))
            if form.kind is kinds.DATAPLANE:
                await self._dataplanes.check_place(review, judged.resource)
        except InvalidResource as error:
            raise reviews.placed(error.violations, _places(form), _within(form)) from None
        if not review.dry_run:
            await self._note(judged.decision.operations)
        if old is not None and not review.dry_run:
            await self._keep(resource.mesh or resource.name, judged.decision.operations)
        return judged.warnings

    def _turn(
        self, review: Review, old: Resource[Any] | None, new: Resource[Any] | None
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """Returns what surrounds the judgement of a change. What stores nothing has no turn: nobody will see it."""
        found = new or old
        assert found is not None
        same = old is not None and new is not None and (old.spec, dict(old.labels)) == (new.spec, dict(new.labels))
        return contextlib.nullcontext() if review.dry_run or same else self._order.turn(found.key)

    async def _note(self, operations: Sequence[Operation]) -> None:
        """Notes what a permission was before it may be changed; that says nothing new if the change fails."""
        for operation in operations:
            if isinstance(operation, Create) and operation.resource.name.startswith(kinds.FORMER_PERMISSION):
                with contextlib.suppress(AlreadyExists, NotFound):
                    await self._manager.store.transact([operation])

    async def _keep(self, mesh: str, operations: Sequence[Operation]) -> None:
        """Keeps aside what issues until now, before a change may replace it; that hurts nobody if the change fails.

        Nothing else is written here: the API server asks again when the object has changed meanwhile, its status too.
        What follows from the change, the mesh controller makes once it is there.
        """
        kept = kinds.SECRET.key(retained.secret_name(mesh), mesh)
        for operation in [op for op in operations if isinstance(op, Create | Update) and op.resource.key == kept]:
            try:
                await self._manager.store.transact([operation])
            except (AlreadyExists, Conflict):
                raise Unavailable("the mesh has just changed; try again") from None

    async def _judge_deletion(self, review: Review) -> Sequence[str]:
        form = self._forms.of_object(review.old or {})
        if form is None or review.old is None:
            return ()
        if form.kind.read_only:
            raise AccessDenied(f"{form.kind.name} is written by the control plane only")
        if form.kind is kinds.DATAPLANE:
            await self._dataplanes.check_not_of_a_pod(review)
        old = _decoded(form, review.old)
        if old is None:
            return ()  # what nobody understands may go
        async with self._turn(review, old, None):
            decision, told = await self._manager.judge_deletion(old, allow_weakening=_may_weaken(review.old))
        if not review.dry_run:
            await self._note(decision.operations)
        return told.warnings

    def _check_place(self, form: Form, namespace: str) -> None:
        """Checks the namespace of a policy: it is about all of its mesh, so it has no place among what others own."""
        if form.kind.nested and namespace != self._forms.system:
            raise AccessDenied(f"policy can only be created in the system namespace:{self._forms.system}")

    async def _check_mesh(self, mesh: str) -> None:
        if await self._manager.find(kinds.MESH.key(mesh)) is None:
            raise InvalidResource.of("mesh", f'meshes.kuma.io "{mesh}" not found')

    def _check_still(self, review: Review, form: Form | None) -> None:
        """Checks that an object stays in its mesh: what depends on it there would lose it without a word."""
        if review.old is None or review.new is None:
            return
        before = self._forms.of_object(review.old)
        if before is None or not before.kind.in_mesh or before.content not in ("spec", "secret"):
            return
        if form is None or form.key(review.new) != before.key(review.old):
            what = "the Secret" if before.content == "secret" else f"a {before.kind.name}"
            field = "mesh" if before.mesh == "field" else f'metadata.labels["{MESH_LABEL}"]'
            article = what[0].upper() + what[1:] if what[0].isupper() else what
            raise InvalidResource.of(
                field, f"cannot change mesh of {article}. Delete the {before.kind.name} first and apply it again."
            )


def _check_not_own(review: Review) -> None:
    """Checks that nobody else writes what control planes keep for themselves. Notes that are set aside may go."""
    own = [found for found in (review.new, review.old) if found is not None and found.get("type") in journal.OWN_TYPES]
    is_cleaned = review.new is None and (
        review.user in CLEANERS or (review.old is not None and journal.is_set_aside(review.old))
    )
    if own and not is_cleaned:
        raise AccessDenied(f"Secrets of the type {own[0]['type']} are written by the control plane only")


def _parsed(form: Form, new: Object) -> Resource[Any]:
    """Reads an object as strictly as a file that is given to kumactl; its key is the object's own.

    Raises:
        InvalidResource: it breaks the rules of its kind.
    """
    key = form.key(new)
    if key is None:
        raise InvalidResource.of("type", "is of another kind")
    metadata = new["metadata"]
    labels = metadata.get("labels") or {}
    if form.content == "secret":
        return _secret(form, new, labels)
    if form.mesh == "field" and not new.get("mesh"):
        raise InvalidResource.of("mesh", "cannot be empty")
    document = {name: value for name, value in new.items() if name != "status"}
    named = {"name": metadata["name"], "labels": labels}
    found = codec.parse({**document, "metadata": named})
    return replace(found, key=key, labels=_own_labels(form, labels))


def _secret(form: Form, new: Object, labels: Mapping[str, str]) -> Resource[Any]:
    if form.kind is kinds.GLOBAL_SECRET and MESH_LABEL in labels:
        raise InvalidResource.of(f'metadata.labels["{MESH_LABEL}"]', "mesh cannot be set on global secret")
    if new.get("type") != TLS_TYPE and not (new.get("data") or {}).get("value"):
        raise InvalidResource.of("data.value", "cannot be empty.")
    try:
        found = content.decode(form, new)
    except StoreCorrupt:
        found = None
    if found is None:
        raise InvalidResource.of("data", "has to be base64")
    return found


def _own_labels(form: Form, labels: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if form.mesh != "label" or name != MESH_LABEL}


def _decoded(form: Form, old: Object | None) -> Resource[Any] | None:
    """Returns what was there; None if there was nothing, or nothing that is understood, which may be put right."""
    try:
        return content.decode(form, old) if old is not None else None
    except StoreCorrupt:
        return None


def _may_weaken(found: Object) -> bool:
    return (found["metadata"].get("annotations") or {}).get(ALLOW_WEAKENING) == "true"


def _within(form: Form) -> str:
    return "" if form.content == "secret" else form.content


def _places(form: Form) -> Mapping[str, str]:
    own = {"name": "metadata.name", "labels": "metadata.labels", "metadata": "metadata", "apiVersion": "apiVersion"}
    if form.content == "secret":
        return {**own, "data.value": "data.value", "data": "data.value"}
    if form.mesh == "field":
        own["mesh"] = "mesh"
    return own
