"""What an app may ask for its functions is what they get: layers, /tmp, concurrency, whole web applications."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import APPS, Api, RunningPlatform, connection, eventually, write_app

pytestmark = pytest.mark.e2e


@pytest.fixture
def api(everything: RunningPlatform) -> Api:
    return Api(everything)


@pytest.fixture(scope="module")
def web(start: Start) -> RunningPlatform:
    return start(APPS / "web", "--no-watch")


def waits_at(api: Api, gate: str) -> bool:
    answer = api.request("GET", f"/v1/documents/gates/{gate}", params={"app": "all"})
    return answer.status_code == 200 and answer.json() == "waiting"


def open_gate(api: Api, gate: str) -> None:
    assert api.request("PUT", f"/v1/documents/gates/{gate}", params={"app": "all"}, content=b'"open"').status_code == 204


# --- limits


def test_tmp_has_the_size_that_was_asked_for(api: Api) -> None:
    assert api.invoke("all-fills", {"megabytes": 7})["payload"] == {"written": 7 << 20}
    assert api.invoke("all-fills", {"megabytes": 9})["payload"] == {"errno": 28, "text": "No space left on device"}


def test_reserved_concurrency_refuses_what_is_above_it(api: Api) -> None:
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(api.invoke, "all-one_at_a_time", {"gate": "reserved"})
        eventually(lambda: waits_at(api, "reserved"))
        second = api.request("POST", "/v1/functions/all-one_at_a_time/invocations", json={"gate": "other"})
        assert second.status_code == 429
        assert "reserved concurrency is 1" in second.json()["detail"]
        assert second.headers["retry-after"] == "1"
        open_gate(api, "reserved")
        assert first.result()["payload"] == "passed"
    eventually(lambda: api.status_of("all-one_at_a_time")["refused"] == 1)


def test_reserved_zero_switches_a_function_off(api: Api) -> None:
    answer = api.request("POST", "/v1/functions/all-off/invocations", json={})
    assert answer.status_code == 429
    assert "reserved concurrency is 0" in answer.json()["detail"]


def test_provisioned_instances_are_kept_warm_and_replaced(api: Api) -> None:
    eventually(lambda: api.status_of("all-kept")["instances"] == 2)
    assert api.invoke("all-kept")["payload"] == "provisioned-concurrency"
    api.invoke("all-kept", {"leave": True})
    eventually(lambda: api.status_of("all-kept")["instances"] == 2 and not api.status_of("all-kept")["starting"])


def test_concurrent_events_of_an_async_handler_overlap_in_one_instance(api: Api) -> None:
    people = 6
    with ThreadPoolExecutor(people) as pool:
        met = list(pool.map(lambda _: api.invoke("all-meets", {"people": people}), range(people)))
    assert [found["payload"]["people"] for found in met] == [people] * people
    assert len({found["payload"]["instance"] for found in met}) == 1
    for found in met:
        assert found["payload"]["request"] == found["request_id"]
        lines = api.log_of("all-meets", found["request_id"])
        assert lines[1:-2] == [f"met {found['request_id']}"], "each invocation has its own lines"


def test_concurrent_events_of_a_plain_handler_run_in_threads(api: Api) -> None:
    people = 4
    with ThreadPoolExecutor(people) as pool:
        met = list(pool.map(lambda _: api.invoke("all-meets_in_threads", {"people": people})["payload"], range(people)))
    assert met == [people] * people


def test_events_of_a_slow_function_run_side_by_side(api: Api) -> None:
    gates = [f"side-{number}" for number in range(5)]
    with ThreadPoolExecutor(len(gates)) as pool:
        running = [pool.submit(api.invoke, "all-gated", {"gate": gate}) for gate in gates]
        for gate in gates:
            eventually(lambda gate=gate: waits_at(api, gate))
        assert api.status_of("all-gated")["busy"] == len(gates), "an instance for each"
        for gate in gates:
            open_gate(api, gate)
        assert [done.result()["payload"]["gate"] for done in running] == gates


# --- dependencies


def test_requirements_become_a_layer_that_is_built_once(start: Start, tmp_path: Path) -> None:
    app = write_app(
        tmp_path / "layered",
        """
        import iniconfig
        from martlet import App

        app = App("layered")

        @app.get("/")
        def where() -> dict:
            import sys

            return {"file": iniconfig.__file__, "ahead": "iniconfig" in sys.modules}
        """,
        requirements_txt="iniconfig>=2,<3\n",
    )
    data = tmp_path / "data"
    first = start(app, "--no-watch", data=data)
    assert "resolving dependencies of requirements.txt" in first.printed(), "progress is shown"
    found = httpx.get(first.app_url).json()
    assert found["file"].startswith("/opt/python/iniconfig/")
    layers = sorted(path.name for path in (data / "layers").iterdir() if len(path.name) == 64)
    assert len(layers) == 1
    first.stop()
    with (app / "app.py").open("a") as file:
        file.write("\n# changed\n")
    second = start(app, "--no-watch", data=data)
    assert "resolving dependencies" not in second.printed(), "the same requirements are the same layer"
    assert httpx.get(second.app_url).json() == found
    assert sorted(path.name for path in (data / "layers").iterdir() if len(path.name) == 64) == layers


def test_dependencies_of_a_pyproject(start: Start, tmp_path: Path) -> None:
    app = write_app(
        tmp_path / "project",
        """
        import iniconfig
        from martlet import App

        app = App("project")

        @app.get("/")
        def where() -> str:
            return iniconfig.__name__
        """,
        pyproject_toml='[project]\nname = "project"\nversion = "0"\ndependencies = ["iniconfig>=2,<3"]\n',
    )
    assert httpx.get(start(app, "--no-watch").app_url).json() == "iniconfig"


# --- whole web applications


def test_a_fastapi_application_is_one_line(web: RunningPlatform, http: httpx.Client) -> None:
    assert http.get(f"{web.app_url}/api/items/7?limit=3").json() == {"id": 7, "limit": 3}
    wrong = http.get(f"{web.app_url}/api/items/seven")
    assert wrong.status_code == 422
    assert wrong.json()["detail"][0]["loc"] == ["path", "id"]
    assert "/items/{id}" in http.get(f"{web.app_url}/api/openapi.json").json()["paths"]
    assert http.get(f"{web.app_url}/api/nothing").status_code == 404


def test_a_flask_application_is_one_line(web: RunningPlatform, http: httpx.Client) -> None:
    assert http.get(f"{web.app_url}/site/hello/Ada?q=%C3%BC").json() == {"hello": "Ada", "query": "ü", "script": "/site"}
    assert http.get(f"{web.app_url}/site/nothing").status_code == 404


def test_fastapi_streams_as_it_yields(web: RunningPlatform) -> None:
    with httpx.stream("GET", f"{web.app_url}/api/lines/whole?count=40", timeout=30) as answer:
        arrived = list(answer.iter_text())
    assert "".join(arrived) == "".join(f"{number}\n" for number in range(40))
    assert len(arrived) > 2, "not collected first"


def test_a_client_that_leaves_does_not_disturb_the_stream_of_another(web: RunningPlatform) -> None:
    """The generator runs to its end, for nobody; the instance and the connection of the other client serve on."""
    api = Api(web)
    with httpx.stream("GET", f"{web.app_url}/api/lines/stays", timeout=30) as stays:
        with connection(web) as sock:
            sock.sendall(b"GET /api/lines/left HTTP/1.1\r\nHost: web.localhost\r\n\r\n")
            received = b""
            while b"\n5\n" not in received:
                received += sock.recv(65_536)
        assert stays.read().count(b"\n") == 300
    assert eventually(lambda: document(api, "web", "seen", "left")) == {"lines": 300}
    eventually(lambda: api.status_of("web-api")["busy"] == 0)
    assert httpx.get(f"{web.app_url}/api/items/1", timeout=30).status_code == 200


def test_a_client_that_reads_slowly_holds_up_nobody_else(web: RunningPlatform) -> None:
    """Its stream waits for it, in bounded memory; the other events of the same instance go on."""
    api = Api(web)
    before = api.status_of("web-api")["cold"]
    with connection(web) as sock:
        sock.sendall(b"GET /api/flood/slow HTTP/1.1\r\nHost: web.localhost\r\n\r\n")
        eventually(lambda: api.status_of("web-api")["busy"] == 1)
        for number in range(30):
            assert httpx.get(f"{web.app_url}/api/items/{number}", timeout=30).json()["id"] == number
        assert api.status_of("web-api")["busy"] == 1
        assert api.status_of("web-api")["cold"] <= max(before, 1), "all by one instance"
        assert (document(api, "web", "seen", "slow") or {"parts": 0})["parts"] < 512, "what nobody reads is not made"
        received = 0
        while received < 1024 * 65_536:
            received += len(sock.recv(1 << 20)) or pytest.fail("the stream ended early")
    assert eventually(lambda: document(api, "web", "seen", "slow")) == {"parts": 1024}


def document(api: Api, app: str, collection: str, id: str) -> Any:
    answer = api.request("GET", f"/v1/documents/{collection}/{id}", params={"app": app})
    return json.loads(answer.text) if answer.status_code == 200 else None
