"""The root credentials: made once, readable by the owner only, replaced as a whole; and who `authenticate` believes."""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path

import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotoCredentials

from martlet.auth import Auth, Credentials
from martlet.clock import ManualClock
from martlet.errors import StartFailed, Unauthenticated
from martlet.store import Store, keys


def bearer(auth: Auth, token: str) -> str:
    return auth.authenticate("GET", b"/", b"", [(b"Authorization", f"Bearer {token}".encode())], b"").name


def reason(auth: Auth, *headers: tuple[bytes, bytes], query: bytes = b"", service: str = "") -> object:
    with pytest.raises(Unauthenticated) as caught:
        auth.authenticate("GET", b"/", query, headers, b"", service=service)
    return caught.value.details["reason"]


def signed(
    found: Credentials, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, token: str | None = None
) -> list[tuple[bytes, bytes]]:
    now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: now)
    request = AWSRequest(method="GET", url="http://localhost/", headers={"Host": "localhost"})
    told = BotoCredentials(found.access_key_id, found.secret_access_key, token)
    botocore.auth.SigV4Auth(told, "lambda", "us-east-1").add_auth(request)
    return [(name.encode(), value.encode()) for name, value in request.headers.items()]


async def test_made_once_with_a_form_that_aws_clients_take(auth: Auth, tmp_path: Path) -> None:
    path = tmp_path / "new" / "credentials.json"
    found = await auth.ensure_root(path)
    assert re.fullmatch(r"MARTLET[A-Z2-7]{13}", found.access_key_id)
    assert len(found.secret_access_key) == 40
    assert len(found.token) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["credentials.json"]
    assert await auth.ensure_root(path) == found
    assert await Auth(auth._store, auth._clock).ensure_root(path) == found
    assert found.secret_access_key not in repr(found)
    assert found.token not in repr(found)


async def test_every_platform_has_its_own(auth: Auth, tmp_path: Path) -> None:
    first, second = [await auth.ensure_root(tmp_path / name) for name in ("a", "b")]
    assert first.access_key_id != second.access_key_id
    assert first.secret_access_key != second.secret_access_key
    assert first.token != second.token


async def test_the_token_itself_is_not_in_the_store(auth: Auth, store: Store, tmp_path: Path) -> None:
    found = await auth.ensure_root(tmp_path / "c")
    rows = store.read(lambda reader: reader.scan(b"\x01", b"\xff"))
    assert rows
    assert not any(found.token.encode() in key + value for key, value in rows)


async def test_both_ways_in(auth: Auth, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await auth.ensure_root(tmp_path / "c")
    assert bearer(auth, found.token) == "root"
    headers = signed(found, clock, monkeypatch)
    assert auth.authenticate("GET", b"/", b"", headers, b"").kind == "root"
    assert auth.authenticate("GET", b"/", b"", headers, b"", service="lambda").kind == "root"
    assert reason(auth, *headers, service="s3") == "SignatureDoesNotMatch"


async def test_who_is_not_believed(auth: Auth, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await auth.ensure_root(tmp_path / "c")
    right = f"Bearer {found.token}".encode()
    assert reason(auth) == "MissingAuthenticationToken"
    assert reason(auth, (b"authorization", b"")) == "MissingAuthenticationToken"
    assert reason(auth, (b"authorization", right), (b"Authorization", right)) == "IncompleteSignature"
    assert reason(auth, (b"authorization", b"Basic cm9vdDpyb290")) == "IncompleteSignature"
    assert reason(auth, (b"authorization", b"Bearer")) == "InvalidClientTokenId"
    assert reason(auth, (b"authorization", b"Bearer ")) == "InvalidClientTokenId"
    assert reason(auth, (b"authorization", right[:-1])) == "InvalidClientTokenId"
    assert reason(auth, (b"authorization", right + b"x")) == "InvalidClientTokenId"
    assert reason(auth, (b"authorization", b"Bearer " + found.secret_access_key.encode())) == "InvalidClientTokenId"
    assert reason(auth, (b"authorization", b"Bearer \xff\xfe")) == "InvalidClientTokenId"
    unknown = Credentials(access_key_id="MARTLETBBBBBBBBBBBBB", secret_access_key=found.secret_access_key, token="")
    assert reason(auth, *signed(unknown, clock, monkeypatch)) == "InvalidClientTokenId"
    assert reason(auth, *signed(found, clock, monkeypatch, token="made-up")) == "InvalidToken"
    guessed = Credentials(access_key_id=found.access_key_id, secret_access_key="x" * 40, token="")
    assert reason(auth, *signed(guessed, clock, monkeypatch)) == "SignatureDoesNotMatch"


async def test_deleting_the_file_replaces_everything(
    auth: Auth, clock: ManualClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c"
    old = await auth.ensure_root(path)
    path.unlink()
    new = await auth.ensure_root(path)
    assert bearer(auth, new.token) == "root"
    with pytest.raises(Unauthenticated):
        bearer(auth, old.token)
    assert reason(auth, *signed(old, clock, monkeypatch)) == "InvalidClientTokenId"


async def test_a_file_without_its_store_is_taken_as_it_is(auth: Auth, store: Store, tmp_path: Path) -> None:
    found = await auth.ensure_root(tmp_path / "c")
    low, high = keys.prefix_range("auth.token")
    await store.transact(lambda tx: [tx.delete(key) for key, _ in tx.scan(low, high)])
    with pytest.raises(Unauthenticated):
        bearer(auth, found.token)
    await auth.ensure_root(tmp_path / "c")
    assert bearer(auth, found.token) == "root"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
async def test_a_file_that_others_can_read_is_refused(auth: Auth, tmp_path: Path, mode: int) -> None:
    path = tmp_path / "c"
    await auth.ensure_root(path)
    path.chmod(mode)
    with pytest.raises(StartFailed) as caught:
        await auth.ensure_root(path)
    assert caught.value.remedy == f"chmod 600 {path}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"access_key_id":"MARTLETAAAAAAAAAAAAA","secret_access_key":"","token":""}',
        '{"access_key_id":"MARTLETAAAAAAAAAAAAA","secret_access_key":"short","token":"short"}',
        '{"access_key_id":"a b","secret_access_key":"%s","token":"%s"}' % ("x" * 40, "y" * 43),  # noqa: UP031
        '{"access_key_id":"MARTLETAAAAAAAAAAAAA","secret_access_key":"%s","token":"%s","x":1}' % ("x" * 40, "y" * 43),  # noqa: UP031
    ],
)
async def test_a_damaged_file_is_refused_and_kept(auth: Auth, tmp_path: Path, text: str) -> None:
    path = tmp_path / "c"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(StartFailed, match=re.escape(str(path))):
        await auth.ensure_root(path)
    assert path.read_text() == text


async def test_a_link_or_a_folder_is_refused(auth: Auth, tmp_path: Path) -> None:
    await auth.ensure_root(tmp_path / "real")
    os.symlink(tmp_path / "real", tmp_path / "link")
    (tmp_path / "folder").mkdir(mode=0o700)
    for name in ("link", "folder"):
        with pytest.raises(StartFailed):
            await auth.ensure_root(tmp_path / name)
