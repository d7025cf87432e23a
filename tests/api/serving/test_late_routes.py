"""A route that is completed when it is first needed answers, and is documented, as one of FastAPI."""

from typing import Any

import httpx
from fastapi import APIRouter, FastAPI, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from kuma.api.routes.late_route import LateRoute


def app(route_class: type[APIRoute]) -> FastAPI:
    router = APIRouter(tags=["Things"], route_class=route_class)

    @router.get("/meshes/{mesh}/things/{name}", summary="A thing")
    async def read(request: Request, mesh: str, name: str) -> Response:
        return JSONResponse([mesh, name, dict(request.query_params)])

    @router.get("/things", summary="Things of a mesh, or of all", openapi_extra={"x-of": "test"})
    async def things(request: Request, mesh: str = "every", size: int = 3) -> Response:
        return JSONResponse([mesh, size])

    @router.post("/things", include_in_schema=False)
    async def make(request: Request) -> dict[str, Any]:
        return {"made": await request.json()}

    found = FastAPI()
    found.router.routes += router.routes
    return found


REQUESTS = (
    ("GET", "/meshes/default/things/one?a=b"),
    ("GET", "/things"),
    ("GET", "/things?mesh=other&size=7"),
    ("GET", "/things?size=seven"),
    ("POST", "/things"),
    ("HEAD", "/things"),
    ("PUT", "/things"),
    ("DELETE", "/meshes/default/things/one"),
    ("GET", "/nothing"),
)


async def test_it_answers_and_is_documented_as_one_that_is_complete_from_the_beginning() -> None:
    late, complete = app(LateRoute), app(APIRoute)
    for method, path in REQUESTS:
        answers = [await ask(each, method, path) for each in (late, complete)]
        assert answers[0] == answers[1], (method, path)
    assert app(LateRoute).openapi() == complete.openapi() == late.openapi()


async def ask(found: FastAPI, method: str, path: str) -> tuple[int, httpx.Headers, bytes]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(found), base_url="http://things") as client:
        answer = await client.request(method, path, json={"a": 1} if method == "POST" else None)
        return answer.status_code, answer.headers, answer.content


async def test_only_what_is_asked_for_is_completed() -> None:
    found = app(LateRoute)
    assert completed(found) == []
    await ask(found, "GET", "/things")
    assert completed(found) == ["things"]


def completed(found: FastAPI) -> list[str]:
    return [route.endpoint.__name__ for route in found.routes if isinstance(route, LateRoute) and "app" in vars(route)]
