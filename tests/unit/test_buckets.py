"""Without a bucket of one's own nothing is sent: on AWS the default names are somebody else's."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from handlers.cli import main as command_line
from tasks.audit.opening import open_process
from tasks.contracts.base import utc_now
from tasks.errors import NotReady
from tasks.settings import AuditSettings, Settings
from tasks.stores.objectlock import demand_lock
from tasks.stores.s3 import S3ObjectStore, audit_store, data_store
from tasks.stores.versions import audit_versions

CALLS: list[Callable[[S3ObjectStore], Awaitable[object]]] = [
    lambda store: store.get("key"),
    lambda store: store.create("key", b""),
    lambda store: store.exists("key"),
    lambda store: anext(store.list("")),
]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No stack, no variables; and whatever is sent all the same goes nowhere."""
    for name in ("SLUICE_REDIS_URL", "SLUICE_S3_ENDPOINT", "SLUICE_DATA_BUCKET", "SLUICE_AUDIT_BUCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLUICE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("call", CALLS)
async def test_the_default_names_are_no_buckets_on_aws(call: Callable[[S3ObjectStore], Awaitable[object]]) -> None:
    with pytest.raises(NotReady, match=r"^data_bucket: .*`sluice up` starts it; .*SLUICE_DATA_BUCKET.*s3_endpoint"):
        await call(data_store(Settings()))
    with pytest.raises(NotReady, match=r"^audit_bucket: .*SLUICE_AUDIT_BUCKET"):
        await call(audit_store(Settings()))


async def test_nor_are_they_locked_listed_or_written_to() -> None:
    settings = Settings(auditing=AuditSettings(immutable=True))
    with pytest.raises(NotReady, match="audit_bucket: no object storage is configured"):
        await demand_lock(settings)
    with pytest.raises(NotReady, match="audit_bucket: no object storage is configured"):
        audit_versions(settings)
    opened = settings.changed(grants=settings.grants.changed(mode="open"))
    with pytest.raises(NotReady, match="data_bucket: no object storage is configured"):
        async with open_process(opened, "intent", now=utc_now):
            pass


@pytest.mark.parametrize("own", [{"data_bucket": "ours"}, {"s3_endpoint": "https://s3.example.org"}])
def test_a_bucket_or_an_endpoint_of_ones_own_is_enough(own: dict[str, str]) -> None:
    assert data_store(Settings(**own))._store is not None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments", [["result", "order-7"], ["trace", "order-7"], ["audit", "show", "order-7"], ["audit", "verify"]]
)
def test_commands_end_with_the_mend(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["sluice", *arguments])
    assert command_line._run() == NotReady.exit_code
    assert "`sluice up`" in capsys.readouterr().err


def test_the_doctor_says_so_too() -> None:
    done = CliRunner().invoke(command_line.cli, ["doctor", "--json"], standalone_mode=False)
    assert done.return_value == NotReady.exit_code
    assert "data_bucket: no object storage is configured" in done.output
