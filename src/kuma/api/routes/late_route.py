"""Routes of the REST API that FastAPI looks at when they are first needed, and not all of them at every start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi.routing import APIRoute
from starlette.routing import compile_path


class LateRoute(APIRoute):
    """A route of FastAPI that knows its path and methods, and finds the rest out when that is first asked for.

    What FastAPI finds out about the parameters and the answers of a hundred routes took a third of the time that a
    control plane needs to start. A request needs one of them, and the API's document all.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        self._options: dict[str, Any] | None = options
        self.path, self.endpoint = path, endpoint
        self.methods = set(options["methods"])
        self.path_regex, self.path_format, self.param_convertors = compile_path(path)

    def __getattr__(self, name: str) -> Any:
        """Completes the route, if it is not complete yet: only then does it lack something."""
        options = self.__dict__.get("_options")
        if options is None:
            raise AttributeError(name)
        self._options = None
        super().__init__(self.path, self.endpoint, **options)
        return getattr(self, name)
