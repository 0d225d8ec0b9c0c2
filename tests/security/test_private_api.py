"""The private door to the platform: it knows who knocks, and gives what that function declared."""

from __future__ import annotations

from typing import Any

import pytest
from tests.security.stage import Stage

DENIED = {400, 401, 403, 404, 405, 421, 501}
SIGNED = (
    "AWS4-HMAC-SHA256 Credential=MARTLETROOT/20250101/us-east-1/lambda/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "0" * 64
)
MANAGEMENT: list[list[Any]] = [
    ["GET", "/v1/apps"],
    ["GET", "/v1/apps/victim"],
    ["DELETE", "/v1/apps/victim"],
    ["DELETE", "/v1/apps/attacker"],
    ["POST", "/v1/apps/victim/deployments", {}, "x"],
    ["POST", "/v1/apps/attacker/deployments?path=/etc", {}, ""],
    ["GET", "/v1/functions"],
    ["GET", "/v1/functions/victim-check"],
    ["GET", "/v1/functions/attacker-small"],
    ["POST", "/v1/functions/victim-private/invocations", {}, "{}"],
    ["GET", "/v1/logs"],
    ["GET", "/v1/logs?function=victim-check"],
    ["GET", "/v1/logs?function=attacker-small&follow=true"],
    ["GET", "/v1/usage"],
    ["GET", "/v1/status"],
    ["GET", "/metrics"],
    ["POST", "/2015-03-31/functions/victim-private/invocations", {}, "{}"],
    ["POST", "/2015-03-31/functions/attacker-several/invocations", {}, "{}"],
    ["GET", "/2015-03-31/functions/"],
    ["GET", "/2015-03-31/functions/victim-check"],
]


@pytest.mark.parametrize("function", ["small", "trusted"])
def test_management_is_not_for_sandboxes(attacked: Stage, function: str) -> None:
    found = attacked.attack("private_api.each", function, requests=MANAGEMENT)
    refused = {
        f"{request[0]} {request[1]}": status for request, (status, _) in zip(MANAGEMENT, found, strict=True) if status != 403
    }
    assert refused == {}
    assert {app["name"] for app in attacked.api.get("/v1/apps").json()["apps"]} >= {"victim", "attacker"}


def _document(app: str, collection: str, id: str) -> str:
    return f"/v1/documents/{collection}/{id}?app={app}"


def test_documents_that_were_not_declared(attacked: Stage) -> None:
    paths = [_document("victim", "ledger", "balance"), _document("attacker", "other", "x"), _document("victim", "mine", "x")]
    paths += [path.replace("/balance", "").replace("/x", "") for path in paths]
    requests = [[method, path, {}, "1" if method == "PUT" else ""] for path in paths[:3] for method in ("GET", "PUT", "DELETE")]
    requests += [["GET", path] for path in paths[3:]]
    for function in ("small", "trusted"):
        found = attacked.attack("private_api.each", function, requests=requests)
        assert {status for status, _ in found} == {403}, found


def test_a_declared_collection_is_open(attacked: Stage) -> None:
    """The refusals above are for want of rights, not because the door is shut."""
    path = _document("attacker", "mine", "x")
    found = attacked.attack("private_api.each", "trusted", requests=[["PUT", path, {}, "1"], ["GET", path]])
    assert [status // 100 for status, _ in found] == [2, 2]


TRICKS = (
    "/v1/documents/mine/../ledger/balance?app=victim",
    "/v1/documents/mine%2F..%2Fledger/balance?app=victim",
    "/v1/documents/..%2Fvictim%2Fledger/balance",
    "/v1/documents/victim%2Fledger/balance?app=attacker",
    "/v1/documents/victim%2Fledger/balance?app=",
    "/v1/documents/ledger/balance?app=attacker&app=victim",
    "/v1/documents/ledger/balance?app=attacker%00victim",
    "/v1/documents/ledger/balance?app=*",
    "/v1/documents/*/balance?app=victim",
    "/v1/documents/mine%00/balance",
    "/v1/documents/mine%2Fledger/balance",
    "/v1/documents/ledger/balance?app=VICTIM",
    "//v1/documents/ledger/balance?app=victim",
    "/v1//documents/ledger/balance?app=victim",
    "/v1/./documents/ledger/balance?app=victim",
    "/V1/documents/ledger/balance?app=victim",
    "/v1/documents/ledger/balance?app=victim&principal=root",
    "/v1/documents/ledger/balance?app=victim#/v1/health",
    "/v1/documents;x=1/ledger/balance?app=victim",
    "http://127.0.0.1:9001/v1/documents/ledger/balance?app=victim",
    "/2015-03-31/functions/attacker-small%2F..%2Fvictim-private/invocations",
    "/2015-03-31/functions/arn:aws:lambda:us-east-1:000000000000:function:victim-private/invocations",
    "/2015-03-31/functions/*/invocations",
    "/2015-03-31/functions/attacker-*/invocations",
    "/2015-03-31/functions/attacker-small:..%2Fvictim-private/invocations",
)


def test_path_tricks_lead_nowhere(attacked: Stage) -> None:
    requests = [
        ["POST" if "invocations" in path else "GET", path, {}, "{}" if "invocations" in path else ""] for path in TRICKS
    ]
    found = attacked.attack("private_api.each", "trusted", requests=requests)
    assert {path: status for path, (status, _) in zip(TRICKS, found, strict=True) if status not in DENIED} == {}


def test_forged_identities_are_not_believed(attacked: Stage) -> None:
    target = ["GET", _document("victim", "ledger", "balance")]
    forged: list[dict[str, str]] = [
        {"Authorization": f"Bearer {attacked.platform.token}x"},
        {"Authorization": SIGNED, "X-Amz-Date": "20250101T000000Z"},
        {"X-Martlet-Principal": "root"},
        {"martlet.context": "root"},
        {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
        {"X-Amz-Security-Token": "root"},
        {"X-Martlet-App": "victim", "X-Martlet-Function": "victim-check"},
        {"Host": "localhost"},
        {"Host": "victim.localhost"},
        {"Host": "api.invalid"},
        {"X-HTTP-Method-Override": "GET", "X-Original-URL": "/v1/health", "X-Rewrite-URL": "/v1/health"},
    ]
    found = attacked.attack("private_api.each", "trusted", requests=[[*target, headers] for headers in forged])
    assert {str(headers): status for headers, (status, _) in zip(forged, found, strict=True) if status not in DENIED} == {}


def test_even_the_owners_key_does_not_make_a_sandbox_the_owner(attacked: Stage) -> None:
    """The connection says who asks: a leaked key opens nothing from within."""
    headers = {"Authorization": f"Bearer {attacked.platform.token}"}
    found = attacked.attack("private_api.each", "small", requests=[["GET", "/v1/apps", headers], ["GET", "/v1/logs", headers]])
    assert {status for status, _ in found} == {403}


def test_requests_cannot_be_smuggled_into_anothers_name(attacked: Stage) -> None:
    inner = "GET /v1/apps HTTP/1.1\r\nHost: x\r\n\r\n"
    tries = [
        f"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}",
        f"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\n{inner}",
        f"GET /v1/health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n{inner}",
        f"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n{inner}",
        f"GET /v1/health HTTP/1.1\nHost: x\n\n{inner}",
        "GET /v1/apps HTTP/1.1\r\nHost: x\r\nX: \r\n y\0z\r\n\r\n",
    ]
    for text in tries:
        answer = attacked.attack("private_api.raw", "small", text=text)
        assert '"apps"' not in answer, text


def test_the_sdk_cannot_call_what_was_not_declared(attacked: Stage) -> None:
    assert attacked.attack("private_api.with_sdk", "trusted", name="several") == "AccessDenied"
    assert attacked.attack("private_api.with_sdk", "small", name="trusted") == "AccessDenied"


def test_garbage_at_the_private_door(attacked: Stage) -> None:
    for text in (
        "\x00" * 5000,
        "GET " + "/" * 20_000 + " HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02",
    ):
        answer = attacked.attack("private_api.raw", "small", text=text)
        assert not answer.startswith("HTTP/1.1 2")


@pytest.mark.parametrize("name", ["split", "length", "upgrade"])
def test_answers_cannot_break_out_of_their_frame(attacked: Stage, name: str) -> None:
    """What a function puts into headers: no second answer, no header of another's making."""
    answer = attacked.edge.get(f"/headers/{name}", headers={"host": "attacker.localhost"})
    assert "set-cookie" not in answer.headers
    assert "forged" not in str(answer.headers)
    if answer.status_code == 200:
        assert answer.text == "body"


def test_the_owners_api_asks_for_credentials(attacked: Stage) -> None:
    """From outside, without a key or with another's Host, nothing."""
    from httpx import Client

    with Client(base_url=attacked.platform.api_url, trust_env=False) as anonymous:
        for method, path, *_ in MANAGEMENT:
            assert anonymous.request(method, path).status_code in (401, 403), path
        rebound = anonymous.get("/v1/apps", headers={"host": "evil.test", "authorization": f"Bearer {attacked.platform.token}"})
        assert rebound.status_code == 403
