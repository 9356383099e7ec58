"""The OpenAPI 3.1 document, made from the table of routes and the shapes that the handlers are checked against."""

import re
from typing import Any

from pydantic import TypeAdapter

from pluralis_lab import __version__
from pluralis_lab.server.handlers import PREFIX
from pluralis_lab.server.route import Parameter, Route
from pluralis_lab.server.shapes.base import ApiError

REFUSALS = {
    400: "A parameter or the body is not what it must be; nothing was done.",
    403: "Not signed in, not authorized, a wrong XSRF token, or forbidden by the server's settings.",
    404: "No such run under this server's roots.",
    409: "It cannot be done in the state that the run is in, or the run is damaged.",
    413: "The body is too large.",
    503: "As many as the server's limits allow are at work, or a process failed; try again.",
}
PATHS = {
    "id": ("^[0-9a-f]{64}$", "a run's id"),
    "process": (r"^(supervisor|forkserver|worker-[0-9]{1,6})$", "whose log"),
}
LIVE = "runs/{id}/live"
_REF = "#/components/schemas/{model}"


def document(routes: tuple[Route, ...]) -> dict[str, Any]:
    """Return the document for `routes` and the live socket."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(f"/{PREFIX}/{route.path}", {})[route.method.lower()] = _operation(route, schemas)
    paths[f"/{PREFIX}/{LIVE}"] = {"get": _live(schemas)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "pluralis_lab server extension", "version": __version__},
        "servers": [{"url": ".", "description": "below the Jupyter server's base URL"}],
        "security": [{"token": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "Authorization", "description": "token TOKEN"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": "username", "description": "with X-XSRFToken"},
            },
        },
    }


def _operation(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    content = {} if route.status == 204 else {"content": {route.media: {"schema": _reply_schema(route, schemas)}}}
    statuses = {400, 403, *route.refusals}
    if "{" in route.path:
        statuses.add(404)
    if route.body is not None:
        statuses.add(413)
    responses: dict[str, Any] = {str(route.status): {"description": route.summary, **content}}
    for status in sorted(statuses):
        responses[str(status)] = _refusal(status, schemas)
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": (route.operation.__doc__ or "").strip(),
        "parameters": [*_path_parameters(route.path), *(_parameter(parameter) for parameter in route.query)],
        "responses": responses,
        "x-changes": route.changes,
    }
    if route.body is not None:
        schema = _schema(route.body, schemas)
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _reply_schema(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"type": "string"} if route.reply is None else _schema(route.reply, schemas)


def _schema(shape: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of `shape`, its named parts put among `schemas`."""
    mode: Any = "validation"
    schema = TypeAdapter(shape).json_schema(ref_template=_REF, mode=mode)
    schemas.update(schema.pop("$defs", {}))
    name = getattr(shape, "__name__", "")
    if "properties" not in schema or not re.fullmatch(r"[A-Z]\w+", name):
        return schema
    schemas[name] = schema
    return {"$ref": _REF.format(model=name)}


def _refusal(status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"description": REFUSALS[status], "content": {"application/json": {"schema": _schema(ApiError, schemas)}}}


def _path_parameters(path: str) -> list[dict[str, Any]]:
    found = []
    for name in re.findall(r"{(\w+)}", path):
        form, description = PATHS[name]
        schema = {"type": "string", "pattern": form}
        found.append({"name": name, "in": "path", "required": True, "description": description, "schema": schema})
    return found


def _parameter(parameter: Parameter) -> dict[str, Any]:
    if parameter.pattern is not None:
        schema: dict[str, Any] = {"type": "string", "pattern": f"^{parameter.pattern}$"}
    else:
        schema = {"type": "integer", "minimum": parameter.minimum, "maximum": parameter.maximum}
    if parameter.default is not None:
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.is_required,
        "description": parameter.description,
        "schema": schema,
    }


def _live(schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": "live",
        "summary": "The live socket of a run",
        "description": "A web socket: pictures, each after an ack of the last; pulses; and progress while a long run is read.",
        "parameters": [
            *_path_parameters(LIVE),
            {
                "name": "since",
                "in": "query",
                "required": False,
                "description": "no picture until there is one newer than this event",
                "schema": {"type": "integer", "minimum": -1, "maximum": 2**53, "default": -1},
            },
        ],
        "responses": {
            "101": {"description": "The socket is open."},
            **{str(status): _refusal(status, schemas) for status in (400, 403, 404, 503)},
        },
        "x-websocket": True,
        "x-changes": False,
    }
