"""Deploying: what is served is either the whole new app or the whole old one, whatever fails and whenever."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.apps.fakes import Platform, graph, write_app

from martlet.apps.archive import pack
from martlet.apps.package import scan
from martlet.errors import DeployFailed, InvalidInput, LimitExceeded, NotFound, StoreFailed
from martlet.limits import LIMITS
from martlet.types import AppGraph, FunctionVersion

HELLO = graph("greet", "bye", routes=(("GET", "/hello", "greet"),), schedules=(("tick", "rate(5 minutes)", "bye"),))


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    return Platform(tmp_path / "data")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_app(tmp_path / "hello", HELLO)


async def test_deploys_functions_routes_and_schedules(platform: Platform, source: Path) -> None:
    told: list[str] = []
    done = await platform.apps.deploy(source, progress=told.append)
    assert (done.app, done.revision) == ("hello", 1)
    assert set(done.functions) == {"hello-greet", "hello-bye"} == set(platform.functions.versions)
    assert [(app, route.path, function) for app, route, function in platform.apps.routes()] == [
        ("hello", "/hello", "hello-greet")
    ]
    assert platform.schedules() == {"schedule/hello/tick": "rate(5 minutes) hello-bye"}
    assert platform.functions.versions["hello-greet"].imports == ("json",)
    assert platform.store.commits == 1
    assert platform.route_calls == 1
    assert any("hello-greet" in text for text in told)


async def test_same_again_changes_nothing(platform: Platform, source: Path) -> None:
    first = await platform.apps.deploy(source)
    again = await platform.apps.deploy(source)
    assert again.steps == ()
    assert again.revision == first.revision
    assert platform.store.commits == 1
    assert len(platform.functions.published) == 2


async def test_skip_unchanged_does_not_run_the_app(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    builds = platform.functions.builds
    await platform.apps.deploy(source, skip_unchanged=True)
    assert platform.functions.builds == builds
    platform.functions.versions.pop("hello-bye")  # no longer serving what the record says
    again = await platform.apps.deploy(source, skip_unchanged=True)
    assert [step.text() for step in again.steps] == ["publish function  hello-bye  (new)"]


async def test_dry_run_shows_steps_and_does_nothing(platform: Platform, source: Path) -> None:
    done = await platform.apps.deploy(source, dry_run=True)
    assert [type(step).__name__ for step in done.steps] == ["PublishFunction", "PublishFunction", "PutRoutes", "PutSchedule"]
    assert platform.functions.versions == {}
    assert platform.store.commits == 0
    assert platform.apps.list() == []
    assert platform.route_calls == 0


async def test_removed_resources_go(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    write_app(source, graph("greet"))
    await platform.apps.deploy(source)
    assert set(platform.functions.versions) == {"hello-greet"}
    assert platform.schedules() == {}
    assert platform.apps.routes() == []


async def test_failed_publish_rolls_back_what_was_published(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    before = dict(platform.functions.versions)
    rows = dict(platform.store.rows)
    write_app(source, graph("greet", "bye", "fresh", "broken"), "x = 2\n")
    platform.functions.fail_publish = {"broken"}
    with pytest.raises(DeployFailed) as caught:
        await platform.apps.deploy(source)
    assert "hello-broken" in caught.value.message
    assert "ValueError: no database" in caught.value.message
    assert caught.value.remedy == "set DATABASE"
    assert platform.functions.versions == before
    assert platform.store.rows == rows
    assert platform.apps.get("hello").revision == 1
    assert len(platform.apps.routes()) == 1
    platform.functions.fail_publish = set()
    assert (await platform.apps.deploy(source)).revision == 2


async def test_failed_first_deployment_leaves_nothing(platform: Platform, source: Path) -> None:
    platform.functions.fail_publish = {"bye"}
    with pytest.raises(DeployFailed, match="hello-bye"):
        await platform.apps.deploy(source)
    assert platform.functions.versions == {}
    assert platform.store.rows == {}


async def test_failed_commit_rolls_back(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    before = dict(platform.functions.versions)
    write_app(source, HELLO, "x = 2\n")
    platform.store.fail = StoreFailed("disk full")
    with pytest.raises(StoreFailed, match="disk full"):
        await platform.apps.deploy(source)
    assert platform.functions.versions == before
    assert platform.apps.get("hello").revision == 1


async def test_failed_roll_back_is_told(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    write_app(source, HELLO, "x = 2\n")
    platform.store.fail = StoreFailed("disk full")
    platform.functions.fail_restore = True
    with pytest.raises(DeployFailed, match=r"disk full.*could not be rolled back: the sandbox is gone"):
        await platform.apps.deploy(source)


async def test_restart_after_a_crash_between_publish_and_commit(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    recorded = dict(platform.functions.versions)
    # killed after publishing: the functions room has new versions that no record names
    newer = msgspec.structs.replace(recorded["hello-greet"], version=99, code="f" * 64)
    platform.functions.versions["hello-greet"] = newer
    platform.functions.versions["ghost-f"] = FunctionVersion(
        name="ghost-f", app="ghost", version=1, config=newer.config, code="e" * 64
    )
    apps = platform.start()
    await apps.load()
    assert platform.functions.versions == recorded
    assert [record.name for record in apps.list()] == ["hello"]
    assert len(apps.routes()) == 1


async def test_load_restores_missing_functions_and_cleans_leftovers(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    recorded = dict(platform.functions.versions)
    platform.functions.versions.clear()
    leftover = platform.data / "code" / ".tmp-0123"
    leftover.mkdir()
    unused = platform.data / "code" / ("a" * 64)
    unused.mkdir()
    await platform.start().load()
    assert platform.functions.versions == recorded
    assert not leftover.exists()
    assert not unused.exists()
    assert (platform.data / "code" / recorded["hello-greet"].code / "app.py").is_file()


async def test_a_record_of_a_newer_version_is_refused(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    key = next(key for key in platform.store.rows if not key.startswith(b"schedule"))
    platform.store.rows[key] = b'{"name": "hello", "shape": "unknown"}'
    with pytest.raises(StoreFailed, match="record cannot be read"):
        await platform.start().load()


async def test_deployments_of_one_app_follow_each_other(platform: Platform, source: Path, tmp_path: Path) -> None:
    other = write_app(tmp_path / "second", HELLO, "x = 2\n")
    gate = platform.functions.gate = asyncio.Event()
    first = asyncio.create_task(platform.apps.deploy(source, "hello"))
    second = asyncio.create_task(platform.apps.deploy(other, "hello"))
    await platform.functions.began.wait()
    assert platform.functions.builds == 1  # the second has not begun
    gate.set()
    assert [(await first).revision, (await second).revision] == [1, 2]


async def test_a_cancelled_caller_does_not_leave_half_an_app(platform: Platform, source: Path) -> None:
    gate = platform.functions.gate = asyncio.Event()
    task = asyncio.create_task(platform.apps.deploy(source))
    await platform.functions.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await platform.apps.close()
    assert platform.apps.get("hello").revision == 1
    assert len(platform.functions.versions) == 2


async def test_names_of_two_apps_may_not_meet(platform: Platform, tmp_path: Path) -> None:
    await platform.apps.deploy(write_app(tmp_path / "one", graph("b-c")), "a")
    with pytest.raises(DeployFailed, match="a-b-c is taken by app a"):
        await platform.apps.deploy(write_app(tmp_path / "two", graph("c")), "a-b")
    assert platform.functions.versions["a-b-c"].app == "a"


@pytest.mark.parametrize(
    ("kind", "declared", "same"),
    [
        ("queue", {"queues": [{"name": "b-c"}]}, {"queues": [{"name": "c"}]}),
        ("queue", {"queues": [{"name": "b-c"}]}, {"queues": [{"name": "c-dead"}]}),
        ("bucket", {"buckets": [{"name": "b-c"}]}, {"buckets": [{"name": "c"}]}),
        ("bus", {"buses": ["b-c"]}, {"buses": ["c"]}),
        ("topic", {"topics": ["b-c"]}, {"topics": ["c"]}),
    ],
)
async def test_what_two_apps_declare_may_not_meet(
    platform: Platform, tmp_path: Path, kind: str, declared: Any, same: Any
) -> None:
    await platform.apps.deploy(write_app(tmp_path / "one", graph("f") | declared), "a")
    with pytest.raises(DeployFailed, match=rf"the {kind} name a-b-c\S* is taken by app a"):
        await platform.apps.deploy(write_app(tmp_path / "two", graph("f") | same), "a-b")
    assert set(platform.functions.versions) == {"a-f"}
    await platform.apps.deploy(write_app(tmp_path / "one", graph("f", "g") | declared), "a")
    await platform.apps.destroy("a")
    await platform.apps.deploy(tmp_path / "two", "a-b")


@pytest.mark.parametrize("room", ["consumers", "listeners"])
@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_trigger_that_cannot_be_is_refused_before_anything_changes(
    platform: Platform, tmp_path: Path, room: str, dry_run: bool
) -> None:
    getattr(platform, room).refuse = "no such pattern"
    declared = {"queues": [{"name": "q"}], "topics": ["t"]}
    with pytest.raises(DeployFailed, match="no such pattern"):
        await platform.apps.deploy(write_app(tmp_path / "one", graph("f") | declared), "a", dry_run=dry_run)
    assert platform.functions.published == []
    assert platform.consumers.prepared == platform.listeners.prepared == []


@pytest.mark.parametrize(
    "declared",
    [
        {"queues": [{"name": "q"}], "consumers": [{"queue": "q", "function": "f"}]},
        {"buckets": [{"name": "b"}], "subscriptions": [{"bucket": "b", "function": "f", "events": ["s3:ObjectCreated:*"]}]},
    ],
)
async def test_nobody_is_told_any_more_for_a_destroyed_app(platform: Platform, tmp_path: Path, declared: Any) -> None:
    await platform.apps.deploy(write_app(tmp_path / "one", graph("f") | declared), "a")
    assert platform.consumers.told["a"] != AppGraph()
    await platform.apps.destroy("a")
    assert platform.consumers.told["a"] == AppGraph()


async def test_names_of_two_apps_that_are_deployed_at_once(platform: Platform, tmp_path: Path) -> None:
    gate = platform.functions.gate = asyncio.Event()
    first = asyncio.create_task(platform.apps.deploy(write_app(tmp_path / "one", graph("b-c")), "a"))
    await platform.functions.began.wait()
    with pytest.raises(DeployFailed, match="taken by app a"):
        await platform.apps.deploy(write_app(tmp_path / "two", graph("c")), "a-b")
    gate.set()
    await first


async def test_publishes_a_few_at_once(platform: Platform, tmp_path: Path) -> None:
    source = write_app(tmp_path / "many", graph(*(f"f{number}" for number in range(12))))
    await platform.apps.deploy(source)
    assert 1 < platform.functions.most_publishing <= 4


async def test_destroy(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    await platform.apps.destroy("hello")
    assert platform.functions.versions == {}
    assert platform.store.rows == {}
    assert platform.apps.routes() == []
    with pytest.raises(NotFound):
        await platform.apps.destroy("hello")


async def test_failed_destroy_changes_nothing(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    platform.store.fail = StoreFailed("disk full")
    with pytest.raises(StoreFailed):
        await platform.apps.destroy("hello")
    assert len(platform.functions.versions) == 2
    assert len(platform.apps.routes()) == 1


async def test_upload_gives_the_same_package_as_the_folder(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    again = await platform.apps.deploy(pack(scan(source)), "hello")
    assert again.steps == ()
    assert not list((platform.data / "code").glob(".tmp-*"))


async def test_upload_needs_a_name(platform: Platform, source: Path) -> None:
    with pytest.raises(InvalidInput, match="needs the app's name"):
        await platform.apps.deploy(pack(scan(source)))


@pytest.mark.parametrize("name", ["", "Hello", "-a", "a/b", "a" * 41, "..", "a b"])
async def test_bad_app_names(platform: Platform, source: Path, name: str) -> None:
    with pytest.raises(InvalidInput):
        await platform.apps.deploy(source, name)


async def test_syntax_error_names_file_and_line_and_keeps_the_old(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    (source / "app.py").write_text("x = 1\ndef broken(:\n")
    with pytest.raises(DeployFailed, match=r"app\.py:2"):
        await platform.apps.deploy(source)
    assert platform.apps.get("hello").revision == 1


async def test_no_entry_module(platform: Platform, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    with pytest.raises(DeployFailed, match=r"holds no app\.py, main\.py or function\.py"):
        await platform.apps.deploy(folder)


async def test_code_and_dependencies_together_have_a_limit(
    platform: Platform, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ensure(wanted: object, progress: object) -> str:
        return "b" * 64

    monkeypatch.setattr(platform.apps._layers, "ensure", ensure)
    platform.apps._layer_bytes["b" * 64] = LIMITS["code_bytes"].default
    with pytest.raises(LimitExceeded, match="code_bytes"):
        await platform.apps.deploy(source)


async def test_old_code_is_kept_while_it_may_run_and_then_deleted(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source)
    old = platform.data / "code" / platform.apps.get("hello").code
    write_app(source, HELLO, "x = 2\n")
    await platform.apps.deploy(source)
    assert old.is_dir()
    platform.clock.advance(LIMITS["function_timeout_seconds_max"].default - 1)
    await platform.apps.deploy(source)
    assert old.is_dir()
    platform.clock.advance(2)
    await platform.apps.deploy(source)
    assert not old.exists()
    assert (platform.data / "code" / platform.apps.get("hello").code).is_dir()


async def test_code_of_a_running_deployment_is_not_deleted(platform: Platform, source: Path, tmp_path: Path) -> None:
    await platform.apps.deploy(write_app(tmp_path / "other", graph("f")), "other")
    platform.functions.began.clear()
    gate = platform.functions.gate = asyncio.Event()
    task = asyncio.create_task(platform.apps.deploy(source))
    await platform.functions.began.wait()
    await platform.apps._garbage.collect(platform.apps.referenced, at_once=True)
    code = scan(source).address
    assert (platform.data / "code" / code).is_dir()
    gate.set()
    await task
    assert (platform.data / "code" / code).is_dir()


async def test_two_apps_share_one_package(platform: Platform, source: Path) -> None:
    await platform.apps.deploy(source, "one")
    await platform.apps.deploy(source, "two")
    assert platform.apps.get("one").code == platform.apps.get("two").code
    await platform.apps.destroy("one")
    await platform.apps._garbage.collect(platform.apps.referenced, at_once=True)
    assert (platform.data / "code" / platform.apps.get("two").code).is_dir()
