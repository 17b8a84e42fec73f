"""The application of the API. Loaded with the first request for it (``mount.py``)."""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from litestar import Litestar, Request, Response, Router, get
from litestar.di import Provide
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme

from roadstead.http.api import accounts, images, operations
from roadstead.http.api.call import Call
from roadstead.http.api.errors import ParametersInvalidError
from roadstead.http.routes import MethodUnknownError, PathUnknownError

_TYPE_IN_PATH = re.compile(r":\w+(?=\})")  # `{name:str}`, of which the document says `{name}`

MANY = frozenset({"group"})
"""Parameters that may be there several times."""

SECURITY: list[dict[str, list[str]]] = [{"basic": []}, {"bearer": []}, {"session": []}, {}]


@get("/schema", include_in_schema=False, media_type="application/vnd.oai.openapi+json")
async def schema(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Give the OpenAPI document: to everybody, it holds nothing of this registry."""
    document: dict[str, Any] = request.app.openapi_schema.to_schema()
    return document


def build_application() -> Litestar:
    """Return the application, its document made."""
    application = Litestar(
        route_handlers=[
            Router("/api", route_handlers=[schema]),
            Router("/api/v1", route_handlers=[*images.HANDLERS, *accounts.HANDLERS, *operations.HANDLERS]),
        ],
        dependencies={"call": Provide(_call, sync_to_thread=False)},
        exception_handlers={HTTPException: _keep, Exception: _keep},
        openapi_config=OpenAPIConfig(
            title="Roadstead",
            version=version("roadstead"),
            description="Images, who may do what with them, and what happened. Names of repositories hold slashes, so "
            "they are parameters, never a part of the path.",
            use_handler_docstrings=True,
            security=SECURITY,
            components=Components(
                security_schemes={
                    "basic": SecurityScheme(type="http", scheme="basic", description="A name with a password or key."),
                    "bearer": SecurityScheme(type="http", scheme="bearer", description="An API key, or a token."),
                    "session": SecurityScheme(
                        type="apiKey",
                        security_scheme_in="cookie",
                        name="__Host-roadstead-session",
                        description="Who is signed in with a browser (`/auth/login`); what changes something counts "
                        "only from a page of the registry's own.",
                    ),
                }
            ),
            render_plugins=(),
        ),
        logging_config=None,
    )
    document = application.openapi_schema.to_schema()  # now, in the thread that makes it
    application.state.parameters = _query_parameters(document)
    return application


def _query_parameters(document: Mapping[str, Any]) -> Mapping[tuple[str, str], Sequence[str]]:
    """Return what the query of each operation may hold, by method and path, as the document says. Pure."""
    return {
        (method.upper(), path): [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }


def _call(request: Request[Any, Any, Any]) -> Call:
    """Return what handlers work with.

    What is said twice isn't taken, for who asks may mean either; nor what isn't known, for they mean something by it.
    """
    said = [name for name, _ in request.query_params.multi_items()]
    twice = sorted({name for name in said if name not in MANY and said.count(name) > 1}) if len(said) > 1 else []
    if twice:
        raise ParametersInvalidError("said more than once", twice)
    if said:
        path = _TYPE_IN_PATH.sub("", request.scope["path_template"])
        known = request.app.state.parameters.get((request.method, path), ())
        unknown = sorted(set(said).difference(known))
        if unknown:
            told = f"; known are {', '.join(known)}" if known else "; nothing is asked by a query here"
            raise ParametersInvalidError(f"unknown parameters in the query: {', '.join(unknown)[:200]}{told}")
    state = request.scope["state"]
    return Call(state["request"], state["services"])


def _keep(request: Request[Any, Any, Any], error: Exception) -> Response[None]:
    """Keep what was raised for whoever handed the request over: one place answers for all of the server."""
    request.scope["state"]["failed"] = _as_ours(request, error)
    return Response(None, status_code=500)


def _as_ours(request: Request[Any, Any, Any], error: Exception) -> Exception:
    match error:
        case NotFoundException():
            return PathUnknownError(request.scope["path"])
        case MethodNotAllowedException(headers=headers):
            said = next((value for name, value in (headers or {}).items() if name.lower() == "allow"), "")
            return MethodUnknownError(request.method, sorted(word.strip() for word in said.split(",")))
        case HTTPException(status_code=status, detail=detail, extra=extra) if status < 500:
            found = extra if isinstance(extra, list) else []
            wrong = [f"{one.get('key', 'body')}: {one.get('message', '')}"[:200] for one in found[:10]]
            return ParametersInvalidError(detail.partition(" for ")[0], wrong)
        case _:
            return error
