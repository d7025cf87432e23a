"""What is added to objects as they are created: their mesh, if they do not say, and that they go with it.

Owner references are what Kubernetes deletes by: a policy goes with its Mesh.
"""

from __future__ import annotations

from typing import Any

from kuma.kubernetes.api.client import ApiClient, ApiError
from kuma.kubernetes.objects.forms import Form, Forms, Object
from kuma.kubernetes.webhooks import answers
from kuma.kubernetes.webhooks import review as reviews
from kuma.kubernetes.webhooks.review import Review
from kuma.resources import kinds
from kuma.resources.codec import GROUP_VERSION, MESH_LABEL

_DEFAULT_MESH = "default"


class Defaults:
    """Completes objects."""

    def __init__(self, client: ApiClient, forms: Forms) -> None:
        self._client = client
        self._forms = forms

    async def answer(self, review: Review) -> dict[str, Any]:
        """The answer to a request: that the object may come, as it has to be, if it has the form of one."""
        return await answers.answered(review, self._completed)

    async def _completed(self, review: Review) -> dict[str, Any]:
        form = self._forms.of_object(review.new or {})
        if form is None or review.new is None or not form.kind.in_mesh:
            return reviews.allowed(review)
        patch = [*_label(form, review.new)]
        if review.operation == "CREATE" and form.content == "spec" and form.kind is not kinds.DATAPLANE:
            patch += await self._owner(form, review.new)
        return reviews.allowed(review, patch=patch)

    async def _owner(self, form: Form, new: Object) -> list[dict[str, Any]]:
        key = form.key(new)
        if key is None or new["metadata"].get("ownerReferences"):
            return []
        try:
            mesh = await self._client.get(self._forms.of(kinds.MESH.name).path(kinds.MESH.key(key.mesh)))
        except ApiError:
            return []  # of a mesh that is not there: validation says so
        metadata = mesh["metadata"]
        owner = {"apiVersion": GROUP_VERSION, "kind": "Mesh", "name": metadata["name"], "uid": metadata["uid"]}
        return [{"op": "add", "path": "/metadata/ownerReferences", "value": [owner]}]


def _label(form: Form, new: Object) -> list[dict[str, Any]]:
    labels = new["metadata"].get("labels") or {}
    if form.mesh != "label" or MESH_LABEL in labels:
        return []
    return [{"op": "add", "path": "/metadata/labels", "value": {**labels, MESH_LABEL: _DEFAULT_MESH}}]
