"""`martlet documents`: import, export, dry run, errors by line, CSV; with a file of any size in bounded memory.

`MARTLET_TEST_DOCUMENTS` is the number of documents (nightly: 1,000,000)."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from tests.e2e.conftest import Start
from tests.e2e.driving import Api, Command, RunningPlatform

COUNT = int(os.environ.get("MARTLET_TEST_DOCUMENTS", "3000"))
MEMORY_MB = 400  # of the platform at its most, whatever the number of documents

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600 if COUNT > 10_000 else 60)]


@pytest.fixture(scope="module")
def platform(start: Start) -> RunningPlatform:
    return start(None, "--sandbox", "process")


def define(platform: RunningPlatform, name: str, **settings: object) -> None:
    answer = Api(platform).request("PUT", f"/v1/collections/{name}", params={"app": "d"}, json=settings)
    assert answer.status_code == 200, answer.text


def peak_mb(platform: RunningPlatform) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{platform.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


def test_many_documents_in_and_out_in_bounded_memory(platform: RunningPlatform, martlet: Command, tmp_path: Path) -> None:
    define(platform, "many", indexes={"u": {"terms": [{"path": "u"}], "unique": True}, "n": {"terms": [{"path": "n"}]}})
    source, target = tmp_path / "in.ndjson", tmp_path / "out.ndjson"
    with source.open("w") as out:
        for number in range(COUNT):
            value = {"u": number, "n": number % 97, "text": "ü" * (number % 50)}
            out.write(json.dumps({"id": f"{number:09d}", "value": value}, ensure_ascii=False) + "\n")
    started = time.monotonic()
    done = martlet("documents", "import", "d", "many", source, "--json", data=platform.data, seconds=3000)
    imported = time.monotonic() - started
    assert done.code == 0, done.err
    assert done.json == {"lines": COUNT, "written": COUNT, "failed": 0, "dry_run": False, "errors": []}
    started = time.monotonic()
    done = martlet("documents", "export", "d", "many", target, data=platform.data, seconds=3000)
    assert done.code == 0, done.err
    print(f"{COUNT} in {imported:.1f} s, out {time.monotonic() - started:.1f} s, peak {peak_mb(platform)} MB")
    with source.open() as given, target.open() as found:
        for one, other in zip(given, found, strict=True):
            wanted, got = json.loads(one), json.loads(other)
            assert (got["id"], got["value"], got["version"]) == (wanted["id"], wanted["value"], 1)
    assert peak_mb(platform) < MEMORY_MB
    (row,) = martlet("documents", "list", "d", "--json", data=platform.data).json["items"]
    assert (row["documents"], [index["status"] for index in row["indexes"]]) == (COUNT, ["ready", "ready"])


def test_bad_lines_are_named_and_a_dry_run_writes_nothing(platform: RunningPlatform, martlet: Command, tmp_path: Path) -> None:
    define(platform, "few", schema={"fields": {"n": {"type": "int", "required": True}}})
    source = tmp_path / "few.ndjson"
    filler = [json.dumps({"id": f"f{n}", "value": {"n": n, "x": "y" * 350_000}}) for n in range(20)]  # several pieces
    lines = [
        '{"id":"a","value":{"n":1}}',
        "{",
        '{"id":"b","value":{"n":"x"}}',
        *filler,
        '{"id":"c","value":{}}',
        '{"id":"d","value":{"n":2}}',
    ]
    source.write_text("\n".join(lines))
    tried = martlet("documents", "import", "d", "few", source, "--dry-run", "--json", data=platform.data)
    assert (tried.code, tried.json["written"], tried.json["failed"]) == (1, 22, 3)
    (row,) = [
        one for one in martlet("documents", "list", "d", "--json", data=platform.data).json["items"] if one["name"] == "few"
    ]
    assert row["documents"] == 0
    done = martlet("documents", "import", "d", "few", source, data=platform.data)
    assert done.code == 1
    assert "25 lines: 22 written, 3 failed" in done.out
    assert [int(line) for line in re.findall(r"line (\d+):", done.out)] == [2, 3, 24]
    again = martlet("documents", "import", "d", "few", source, "--mode", "insert", "--json", data=platform.data)
    assert (again.json["written"], again.json["failed"]) == (0, 25)


def test_csv_becomes_what_the_schema_says(platform: RunningPlatform, martlet: Command, tmp_path: Path) -> None:
    define(platform, "csv", schema={"fields": {"n": {"type": "int"}, "price": {"type": "decimal"}}})
    source = tmp_path / "rows.csv"
    source.write_text('id,n,price,note\na,1,1.50,"x, y"\nb,two,1,\nc,3,,\n')
    done = martlet("documents", "import", "d", "csv", source, data=platform.data)
    assert (done.code, "line 3:" in done.out, "2 written, 1 failed" in done.out) == (1, True, True), done.out
    out = martlet("documents", "export", "d", "csv", data=platform.data).out
    values = {item["id"]: item["value"] for item in map(json.loads, out.splitlines())}
    assert values == {"a": {"n": 1, "price": {"$decimal": "1.50"}, "note": "x, y"}, "c": {"n": 3}}


def test_a_collection_is_removed_by_its_name(platform: RunningPlatform, martlet: Command) -> None:
    define(platform, "gone")
    refused = martlet("documents", "delete", "d", "gone", input="other\n", data=platform.data)
    assert (refused.code, "nothing was removed" in refused.err) == (1, True)
    assert martlet("documents", "delete", "d", "gone", input="gone\n", data=platform.data).code == 0
    assert martlet("documents", "export", "d", "gone", data=platform.data).code == 1
    assert martlet("documents", "export", "d", data=platform.data).code == 2
    assert martlet("documents", "import", "d", "gone", "/nonexistent", data=platform.data).code == 2
