"""The OpenAPI document is true: every route is in it, every reply is of its shape, and nothing else comes back."""

import json
import re
import shutil
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pluralis_lab.server.handlers import ApiHandler, NoSuchRoute, make_handlers
from pluralis_lab.server.live_handler import LiveHandler
from pluralis_lab.server.openapi import document
from pluralis_lab.server.routes import ROUTES
from pluralis_lab.store import RunDirectory
from tests.server.asking import RUN, Api

DOCUMENT = document(ROUTES)
OPERATIONS = [
    (path.removeprefix("/pluralis-lab/api/"), method.upper(), operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if not operation.get("x-websocket")
]


def check_reply(operation: dict[str, Any], status: int, reply: Any) -> None:
    """Check that `reply` is what the document says of this status."""
    assert str(status) in operation["responses"], (operation["operationId"], status, reply)
    content = operation["responses"][str(status)].get("content", {})
    for media, described in content.items():
        if media == "application/json":
            schema = {**described["schema"], "components": DOCUMENT["components"]}
            jsonschema.validate(reply, schema, cls=jsonschema.Draft202012Validator)
        else:
            assert isinstance(reply, str)


async def test_the_document_is_served_and_is_a_document(api: Api) -> None:
    status, served = await api.get("openapi.json")
    assert status == 200
    assert served == json.loads(json.dumps(DOCUMENT))
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(set(names)) == len(names)
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(DOCUMENT)):
        assert reference in DOCUMENT["components"]["schemas"]


def test_every_handler_is_in_the_document(jp_serverapp: Any, lab: Any) -> None:
    documented = {(path, method) for path, method, _ in OPERATIONS}
    served = set()
    for rule in jp_serverapp.web_app.wildcard_router.rules + [
        inner for outer in jp_serverapp.web_app.default_router.rules for inner in getattr(outer.target, "rules", [])
    ]:
        handler = rule.target
        if isinstance(handler, type) and issubclass(handler, ApiHandler) and handler is not NoSuchRoute:
            served |= {(route.path, method) for method, route in handler.routes.items()}
        elif handler is LiveHandler:
            assert "/pluralis-lab/api/runs/{id}/live" in DOCUMENT["paths"]
    assert served == documented
    assert len(make_handlers(ROUTES)) == len({path for path, _ in documented})


async def test_every_reply_is_of_its_shape(api: Api, finished: RunDirectory) -> None:
    for path, method, operation in sorted(OPERATIONS, key=lambda entry: entry[1] == "DELETE"):
        place = path.replace("{id}", RUN).replace("{process}", "worker-0")
        body = {"spec": {"stages": 2}} if path == "spec/check" else {}
        if path.endswith(("kill", "detach")):
            body = {"worker": "worker-0"}
        if path.endswith("pay"):
            body = {"amount_eth": "0.5"}
        if (path, method) == ("runs", "POST"):
            body = {"spec": {"stages": 99}}
        params = {"worker": "worker-0"} if path.endswith("receipts") else {}
        status, reply = await api.ask(method, place, body if method == "POST" else None, **params)
        check_reply(operation, status, reply)
        if method == "GET":
            assert status == 200, path
    assert not finished.path.exists()


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT, lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4)
), max_leaves=8)  # fmt: skip
_ODD = st.sampled_from(["", "0", "-1", "1e9", "9" * 30, "../..", "%00", "\u2028", "worker-0", "null", RUN, RUN.upper()])


def _value(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema, and values that are not."""
    if "anyOf" in schema:
        return st.one_of([_value(choice) for choice in schema["anyOf"]]) | _JSON
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True).filter(lambda text: len(text) < 200) | _TEXT | _ODD
    if schema.get("type") == "integer":
        return st.integers(schema.get("minimum"), schema.get("maximum")) | _JSON
    return _JSON


@st.composite
def _requests(draw: st.DrawFn) -> tuple[int, str, dict[str, str], bytes | None]:
    number = draw(st.integers(0, len(OPERATIONS) - 1))
    path, method, operation = OPERATIONS[number]
    query = {}
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            good = RUN if parameter["name"] == "id" else "worker-0"
            value = draw(st.sampled_from([good, good, good, ""]) | _TEXT | _ODD)
            path = path.replace("{" + parameter["name"] + "}", value or good)
        elif draw(st.booleans()) or parameter["required"]:
            query[parameter["name"]] = str(draw(_value(parameter["schema"])))
    body = b"" if method == "POST" else None
    if "requestBody" in operation:
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        properties = DOCUMENT["components"]["schemas"][reference].get("properties", {})
        fields = {name: draw(_value(schema)) for name, schema in properties.items() if draw(st.integers(0, 5))}
        if draw(st.integers(0, 9)) == 0:
            fields[draw(_TEXT)] = draw(_JSON)
        text = json.dumps(fields).encode()
        body = draw(st.sampled_from([text] * 8 + [text[:-1], b"\xff" + text, json.dumps([fields]).encode()]))
    return number, path, query, body


def _fuzz(api: Api, loop: Any, finished: RunDirectory, wanted: st.SearchStrategy[Any], count: int) -> set[int]:
    """Send `count` drawn requests, check each reply against the document, and return the statuses seen."""
    backup = finished.path.with_name("backup")
    shutil.copytree(finished.path, backup)
    seen: set[int] = set()

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(wanted)
    def fuzz(request: tuple[int, str, dict[str, str], bytes | None]) -> None:
        number, path, query, body = request
        pattern, method, operation = OPERATIONS[number]
        status, reply = loop.run_until_complete(api.ask(method, path, raw=body, **query))
        seen.add(status)
        parts = path.split("/")
        if len(parts) == len(pattern.split("/")) and all(part not in ("", ".", "..") for part in parts):
            check_reply(operation, status, reply)
        else:
            assert status in (200, 400, 404, 405, 301, 302), (path, status)
        if not finished.path.exists():
            assert method == "DELETE"
            shutil.copytree(backup, finished.path)

    fuzz()
    shutil.rmtree(backup)
    return seen


def test_no_request_that_can_be_made_from_the_document_breaks_the_server(
    api: Api, jp_asyncio_loop: Any, finished: RunDirectory, lab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process for each of hundreds of made-up requests would take minutes: the next test has real ones for a few.
    async def answer(op: str, *_: Any, **__: Any) -> dict[str, Any]:
        raise lab.children.unpacked(op, {"kind": "RunError", "error": "made up"})

    monkeypatch.setattr(lab.children, "once", answer)
    seen = _fuzz(api, jp_asyncio_loop, finished, _requests(), 400)
    assert {200, 204, 400, 404, 409} <= seen
    assert 500 not in seen


@pytest.mark.parametrize(
    ("operation", "body"), [("audit", {}), ("tokenize", {}), ("pay", {"amount_eth": "0.5"}), ("claim", {"account": "lab-a"})]
)
async def test_what_is_refused_with_real_processes_is_in_the_document_too(
    api: Api, finished: RunDirectory, operation: str, body: dict[str, str]
) -> None:
    """The made-up run has nothing to audit, and no chain to pay on; what a real one answers is in test_runs."""
    (described,) = [one for path, _, one in OPERATIONS if path.endswith(f"/{operation}")]
    status, reply = await api.ask("POST", f"runs/{RUN}/{operation}", body)
    assert status in (409, 503), reply
    check_reply(described, status, reply)
    assert reply["message"]
