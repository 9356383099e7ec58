"""Who may ask what: tokens, XSRF, authorization, ids and paths, other people's runs, read-only servers, sizes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPClientError

from pluralis_lab.server.routes import ROUTES
from pluralis_lab.store import RunDirectory
from tests.server.asking import API, RUN, Api
from tests.views.made_up_run import make_run

OTHER = "ab" * 32
WORKER = {"worker": "worker-0"}
BODIES = {"kill": WORKER, "detach": WORKER, "generate": {"prompt": "a"}, "pay": {"amount_eth": "1"}}
"""Of the routes that take more than an empty body."""


def concrete(path: str) -> str:
    return path.replace("{id}", RUN).replace("{process}", "supervisor")


async def test_every_route_refuses_a_request_without_a_token(api: Api, finished: RunDirectory) -> None:
    for route in ROUTES:
        response = await api.plain(concrete(route.path), route.method)
        assert response.code in (401, 403), (route.method, route.path)
        assert set(json.loads(response.body)) == {"message", "reason"}
    for token in ("", "wrong"):
        response = await api.plain("runs", headers={"Authorization": f"token {token}"})
        assert response.code == 403
    assert (await api.plain("no/such/route")).code == 403


async def test_the_socket_refuses_a_viewer_without_a_token(
    api: Api, watch: Any, jp_ws_fetch: Any, finished: RunDirectory
) -> None:
    with pytest.raises(HTTPClientError) as refused:
        await jp_ws_fetch(*f"{API}/runs/{RUN}/live".split("/"), headers={"Authorization": "token wrong"})
    assert refused.value.code == 403
    response = await api.plain(
        f"runs/{RUN}/live", headers={"Authorization": f"token {api.token}", "Origin": "http://evil.example"}
    )
    assert response.code in (400, 403)


async def test_a_browser_with_its_cookie_needs_the_xsrf_token_too(api: Api, finished: RunDirectory) -> None:
    login = await api.plain(f"status?token={api.token}")
    cookies = [header.split(";")[0] for header in login.headers.get_list("Set-Cookie")]
    assert any("username" in cookie for cookie in cookies), cookies
    page = await api._client.fetch(f"{api.base_url}login", raise_error=False, follow_redirects=False)
    cookies += [header.split(";")[0] for header in page.headers.get_list("Set-Cookie") if header.startswith("_xsrf")]
    xsrf = next(cookie.removeprefix("_xsrf=") for cookie in cookies if cookie.startswith("_xsrf="))
    kept = {"Cookie": "; ".join(cookies)}
    assert (await api.plain("runs", headers=kept)).code == 200
    for headers in (kept, {**kept, "X-XSRFToken": "2|wrong"}):
        for route in ROUTES:
            if route.method != "GET":
                response = await api.plain(concrete(route.path), route.method, headers=headers)
                assert response.code == 403, route.path
    assert (await api.plain(f"runs/{RUN}/stop", "POST", headers={**kept, "X-XSRFToken": xsrf})).code == 409


async def test_an_authorizer_that_denies_is_obeyed(api: Api, jp_serverapp: Any, jp_ws_fetch: Any, finished: RunDirectory) -> None:
    asked: list[tuple[str, str]] = []

    def deny(handler: Any, user: Any, action: str, resource: str) -> bool:
        asked.append((action, resource))
        return False

    jp_serverapp.authorizer.is_authorized = deny
    for route in ROUTES:
        status, _ = await api.ask(route.method, concrete(route.path))
        assert status == 403, route.path
        assert asked[-1] == ("read" if route.method == "GET" else "write", "pluralis_lab")
    with pytest.raises(HTTPClientError) as refused:
        await jp_ws_fetch(*f"{API}/runs/{RUN}/live".split("/"))
    assert refused.value.code == 403


ODD_IDS = [
    "..%2f..%2fetc",
    "%2fetc%2fpasswd",
    RUN.upper(),
    RUN[:-1],
    RUN + "0",
    RUN + "%0a",
    RUN[:8],
    "%00" + RUN,
    OTHER,
    "g" * 64,
]
ODD_PROCESSES = ["..%2f..%2frun", "%2fetc%2fpasswd", "..", "worker-0.log", "Supervisor", "worker-0%00"]


async def test_an_odd_id_is_no_run(api: Api, finished: RunDirectory) -> None:
    headers = {"Authorization": f"token {api.token}"}
    for odd in ODD_IDS:
        for path, method in (("", "GET"), ("/events", "GET"), ("/live", "GET"), ("/stop", "POST"), ("", "DELETE")):
            response = await api.plain(f"runs/{odd}{path}", method, headers=headers)
            assert response.code == 404, (odd, path)
            assert json.loads(response.body)["reason"] == "not-found"
    assert finished.path.exists()


async def test_a_log_is_one_of_a_process(api: Api, finished: RunDirectory) -> None:
    (finished.path / "logs" / "worker-0.log").write_text("fine\n")
    for odd in ODD_PROCESSES:
        response = await api.plain(f"runs/{RUN}/log/{odd}", headers={"Authorization": f"token {api.token}"})
        assert response.code == 404, odd
    assert (await api.get(f"runs/{RUN}/log/worker-0"))[1] == {"process": "worker-0", "text": "fine"}


async def test_links_lead_nowhere(api: Api, root: Path, tmp_path: Path) -> None:
    outside = make_run(tmp_path / "elsewhere", run_id=OTHER)
    (root / "runs").mkdir()
    (root / "runs" / OTHER).symlink_to(outside.path)
    assert (await api.get(f"runs/{OTHER}"))[0] == 404
    assert (await api.get("runs"))[1] == {"runs": []}
    inside = make_run(root)
    (inside.path / "logs" / "worker-0.log").symlink_to("/etc/passwd")
    os.mkfifo(inside.path / "logs" / "worker-1.log")
    assert (await api.get(f"runs/{RUN}/log/worker-0"))[0] == 404
    assert (await api.get(f"runs/{RUN}/log/worker-1"))[0] == 404
    (inside.path / "run.json").rename(tmp_path / "run.json")
    (inside.path / "run.json").symlink_to(tmp_path / "run.json")
    assert (await api.get(f"runs/{RUN}"))[0] == 404


@pytest.mark.system
async def test_another_users_run_is_not_there(
    api: Api, finished: RunDirectory, require_system: Callable[[str, bool, str], None]
) -> None:
    require_system("root, who alone can give a run to another user", os.geteuid() == 0, "sudo make test")
    os.chown(finished.path, 65_534, 65_534)
    assert (await api.get("runs"))[1] == {"runs": []}
    for route in ROUTES:
        if "{id}" in route.path:
            body = BODIES.get(route.path.rsplit("/", 1)[1])
            params = {"worker": "worker-0"} if "receipts" in route.path else {}
            status, _ = await api.ask(route.method, concrete(route.path), body, **params)
            assert status == 404, route.path
    assert finished.path.exists()


@pytest.mark.parametrize("lab_options", [{"read_only": True}])
async def test_a_read_only_server_changes_nothing(api: Api, finished: RunDirectory) -> None:
    before = _names(finished)
    for route in ROUTES:
        if route.method != "GET":
            body = {"spec": {}} if route.path in ("runs", "spec/check") else BODIES.get(route.path.rsplit("/", 1)[-1], {})
            status, reply = await api.ask(route.method, concrete(route.path), body if route.method == "POST" else None)
            if route.changes:
                assert (status, reply["reason"]) == (403, "read-only"), route.path
            else:
                assert route.path in ("spec/check", "runs/{id}/audit")
    assert _names(finished) == before
    assert (await api.get("status"))[1]["read_only"] is True
    assert (await api.get(f"runs/{RUN}"))[0] == 200


def _names(run: RunDirectory) -> list[str]:
    """Return the run's files, without those that SQLite makes for its readers."""
    return sorted(path.name for path in run.path.iterdir() if not path.name.startswith("events.db-"))


async def test_a_chain_that_is_not_allowed_is_forbidden(api: Api) -> None:
    status, reply = await api.post("runs", {"spec": {}, "chain": "http://10.0.0.1:8545"})
    assert (status, reply["reason"]) == (403, "chain-not-allowed")
    assert "http://10.0.0.1:8545" in reply["message"]


@pytest.mark.parametrize("lab_options", [{"max_request_bytes": 4_096}])
async def test_a_body_that_is_too_large_is_refused_and_not_kept(api: Api, lab: Any) -> None:
    for size in (4_097, 3_000_000):
        status, reply = await api.ask("POST", "spec/check", raw=b"x" * size)
        assert status == 413
        assert str(size) in reply["message"]
        assert "max_request_bytes" in reply["message"]
    assert (await api.post("spec/check", {"spec": {}}))[0] == 200


MALFORMED = [
    (b"{", "not JSON"),
    (b"\xff", "not JSON"),
    (b"[]", "JSON list"),
    (b'{"spec": {}, "speck": 1}', "speck"),
    (b'{"spec": 3}', "spec=3"),
    (b"{}", "spec"),
    (b'{"spec": {"steps": NaN}}', "NaN"),
    (b'{"spec": {"data": "\\ud800"}}', "UTF-8"),
    (b'{"spec":' + b"[" * 2_000 + b"]" * 2_000 + b"}", "brackets"),
    (b'{"spec": {"steps": ' + b"9" * 5_000 + b"}}", "not JSON"),
]


async def test_a_malformed_body_is_named(api: Api) -> None:
    for raw, says in MALFORMED:
        status, reply = await api.ask("POST", "spec/check", raw=raw)
        assert (status, reply["reason"]) == (400, "invalid"), raw[:80]
        assert says in reply["message"], raw[:80]


async def test_looking_is_no_activity(api: Api, jp_web_app: Any, finished: RunDirectory) -> None:
    jp_web_app.settings.pop("api_last_activity", None)
    await api.get("runs")
    await api.get(f"runs/{RUN}/picture")
    assert "api_last_activity" not in jp_web_app.settings
    await api.post(f"runs/{RUN}/stop")
    assert "api_last_activity" in jp_web_app.settings
