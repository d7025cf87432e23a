"""Bootstraps for proxies: `/bootstrap`, as the original's `kuma-dp` asks for it, with whatever method."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from kuma.api.http import errors, hosts, request_limits
from kuma.api.http.bodies import BodyTooLarge, BodyTooSlow, json_answer, parse_object, read_body
from kuma.api.http.request_limits import RequestLimits
from kuma.api.routes import withdrawal
from kuma.api.routes.withdrawal import Withdraw
from kuma.base.audit import Audit, Refusals
from kuma.base.clock import Clock
from kuma.base.errors import AccessDenied, InvalidResource, NotFound, Unauthenticated
from kuma.base.values import strict_json
from kuma.resources import codec, keys, kinds, parsing
from kuma.resources.models.dataplane import DataplaneSpec
from kuma.resources.resource import Resource
from kuma.xds.bootstrap.server_names import Unverifiable
from kuma.xds.bootstrap.service import AnsweredBootstrap, AskingProxy

LARGEST_BODY = 1 << 20
_MOST_VALUES = 20_000
"""Of a Dataplane that is brought along: some 2,000 inbounds and outbounds. It is looked at before the token is."""
_MOST_TOLD = 10
"""Fields of the wrong type that are named."""
TOKEN_REQUIRED = (
    "Dataplane Token is required. Generate token using 'kumactl generate dataplane-token > /path/file' "  # noqa: S105
    "and provide it via --dataplane-token-file=/path/file argument to Kuma DP"
)


class BootstrapRequest(BaseModel):
    """The used fields of a bootstrap request. Other versions of the client send more, which is passed over."""

    model_config = ConfigDict(alias_generator=to_camel, hide_input_in_errors=True)

    mesh: str = ""
    name: str = ""
    proxy_type: str = ""
    dataplane_token: str = ""
    dataplane_resource: str = ""
    version: dict[str, Any] = {}
    ca_cert: str = ""
    dynamic_metadata: dict[str, str] = {}
    features: list[str] = []
    workdir: str = ""
    readiness_port: int = 0

    @property
    def said(self) -> dict[str, Any]:
        """Returns what becomes part of Envoy's node unchanged."""
        port = str(self.readiness_port) if 0 < self.readiness_port < 1 << 16 else ""
        found = {
            "dynamicMetadata": self.dynamic_metadata,
            "features": self.features,
            "workdir": self.workdir,
            "dataplane.readinessReporter.port": port,
        }
        return {name: value for name, value in found.items() if value}


Answer = Callable[[AskingProxy], Awaitable[AnsweredBootstrap]]
"""Makes the bootstrap of a proxy; see `kuma.xds.bootstrap.service`."""


class Refused(Exception):
    """The request cannot be answered; the client prints the text and does not try again."""


class MalformedRequest(Exception):
    """The request is not what it should be; the client prints the text and does not try again."""


def create_bootstrap_app(
    answer: Answer, withdraw: Withdraw, limit: RequestLimits, clock: Clock, audit: Audit
) -> FastAPI:
    """The application of the data plane server."""
    app = FastAPI(title="Kuma data plane server", docs_url=None, redoc_url=None, openapi_url=None)
    errors.install(app)
    request_limits.install(app, limit, clock)
    hosts.install(app)
    refusals = Refusals(audit, clock)

    def refused(request: Request, error: Exception) -> None:
        address = request.client.host if request.client else ""
        refusals.record(address, server="data plane", path=request.scope["path"], reason=str(error))

    withdrawal.install(app, withdraw, refused)

    @app.api_route("/bootstrap", methods=["GET", "POST", "PUT", "PATCH", "DELETE"])  # the original looks at none
    async def bootstrap(request: Request) -> Response:
        try:
            asked, brought = _parse(await read_body(request, LARGEST_BODY))
            mesh, name = (brought.mesh, brought.name) if brought else (asked.mesh, asked.name)
            proxy = AskingProxy(
                mesh=mesh,
                name=name,
                brought=brought,
                token=asked.dataplane_token.strip(),
                host=hosts.host_of(request) or "localhost",
                version=_bounded(asked.version),
                said=asked.said,
                ca_pem=asked.ca_cert,
            )
            made = await answer(proxy)
        except BodyTooLarge:
            return Response(f"the request is longer than {LARGEST_BODY} bytes", 413, media_type="text/plain")
        except BodyTooSlow:
            return Response("the request did not come in time", 408, media_type="text/plain")
        except (MalformedRequest, Unverifiable) as error:
            return Response(str(error), 400, media_type="text/plain")
        except NotFound as error:
            return Response(str(error), 404, media_type="text/plain")
        except (Refused, InvalidResource, Unauthenticated, AccessDenied) as error:
            if isinstance(error, Unauthenticated | AccessDenied):
                refused(request, error)
            return Response(str(error), 422, media_type="text/plain")
        return _answer(request, made)

    return app


def _parse(body: bytes) -> tuple[BootstrapRequest, Resource[DataplaneSpec] | None]:
    try:
        given = {name: value for name, value in parse_object(body).items() if value is not None}
        asked = BootstrapRequest.model_validate(given)
    except InvalidResource as error:
        raise MalformedRequest(f"the request {error}") from None
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_context=False, include_input=False)
        fields = ", ".join(parsing.path_of(details["loc"]) for details in wrong[:_MOST_TOLD])
        more = f" and {len(wrong) - _MOST_TOLD} more" if len(wrong) > _MOST_TOLD else ""
        raise MalformedRequest(f"{fields}{more} of the wrong type") from None
    if asked.proxy_type not in ("", "dataplane"):
        raise Refused(f'proxyType: "{asked.proxy_type}" is not supported; only dataplane is')
    if not asked.dataplane_token.strip():
        raise Refused(TOKEN_REQUIRED)
    if not asked.dataplane_resource:
        keys.check(kinds.DATAPLANE.key(asked.name, asked.mesh))
        return asked, None
    try:
        brought = codec.parse(strict_json.loads(asked.dataplane_resource, _MOST_VALUES))
    except ValueError as error:
        raise Refused(f"dataplaneResource: is not a Dataplane in JSON: {error}") from None
    except (AttributeError, TypeError):
        raise Refused("dataplaneResource: is not a Dataplane in JSON") from None
    if brought.key.kind != kinds.DATAPLANE.name:
        raise Refused(f"dataplaneResource: is a {brought.key.kind}, not a Dataplane")
    return asked, brought


_LONGEST_WORD, _MOST_WORDS, _DEEPEST = 200, 50, 4


def _bounded(version: Any, depth: int = 0) -> Any:
    """Checks that a client's versions are maps of short texts, because people are shown them."""
    if isinstance(version, str):
        return version[:_LONGEST_WORD]
    if isinstance(version, dict) and depth < _DEEPEST:
        known = {name[:_LONGEST_WORD]: _bounded(value, depth + 1) for name, value in version.items()}
        return {name: known[name] for name in list(known)[:_MOST_WORDS] if known[name] is not None}
    return version if isinstance(version, bool) else None


def _answer(request: Request, made: AnsweredBootstrap) -> Response:
    """JSON for the original's client; the bare bootstrap for everybody else."""
    if "application/json" not in request.headers.get("accept", ""):
        return Response(made.bootstrap, media_type="text/x-yaml")
    networking = {
        "isUsingTransparentProxy": False,
        "corefileTemplate": None,
        "address": made.address,
    }
    sidecar = {"networking": networking, "metrics": {"aggregate": []}}
    encoded = base64.b64encode(made.bootstrap.encode()).decode()
    return json_answer({"bootstrap": encoded, "kumaSidecarConfiguration": sidecar})
