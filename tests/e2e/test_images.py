"""What the images run, built by the steps of the Dockerfile in clean environments: it starts, and it works together."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson
import pytest

from handlers.producer import AsyncProducer
from tasks.settings import Settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
STAGES = ("intent-cpu", "agent", "handlers")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The environment of each stage. That for GPUs takes gigabytes, and is left out."""
    folder = tmp_path_factory.mktemp("images")
    environment = {**os.environ, "TOOLS": str(folder / "tools"), "PYTHONPATH": ""}
    made = {stage: folder / stage for stage in STAGES}
    steps = [["tools"], *([step, stage, str(made[stage])] for stage in STAGES for step in ("dependencies", "project"))]
    for step in steps:
        built = subprocess.run(
            [str(ROOT / "images/build.sh"), *step],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert built.returncode == 0, f"{step}: {built.stderr}"
    yield made
    shutil.rmtree(folder)


def contents(folder: Path) -> set[tuple[str, float]]:
    return {(str(file), file.stat().st_mtime) for file in folder.rglob("*") if file.is_file()}


def environment_of(image: Path, scratch: Path) -> Mapping[str, str]:
    """What the Dockerfile sets; all that is written lies in ``scratch``."""
    return {
        **os.environ,
        "PYTHONPATH": "",
        "PATH": f"{image / 'bin'}:/usr/bin:/bin",
        "HOME": str(scratch),
        "TMPDIR": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "1",
        "SLUICE_LEASES__ALIVE_FILE": str(scratch / "alive"),
    }


def sluice(image: Path, scratch: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(image / "bin/sluice"), *arguments],
        cwd=scratch,
        env=environment_of(image, scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


async def test_a_request_passes_through_the_images(images: dict[str, Path], settings: Settings, tmp_path: Path) -> None:
    before = {stage: contents(image) for stage, image in images.items()}
    pools = {"intent-cpu": "intent", "agent": "agents.responder"}
    running = {}
    for stage, pool in pools.items():
        scratch = tmp_path / stage
        scratch.mkdir()
        running[stage] = sluice(images[stage], scratch, "worker", "--pool", pool, "--until-idle", "4")
    try:
        async with AsyncProducer(settings, tenant=f"images-{time.time_ns()}") as producer:
            request = await producer.submit("What is a webhook?")
            result = await producer.result(request, timeout=120)
        assert result.status == "succeeded"
        assert result.agent.type == "responder"
        for stage in pools:
            environment = environment_of(images[stage], tmp_path / stage)
            assert subprocess.run(["alive"], env=environment, check=False).returncode == 0
        # Nothing comes any more: they end by themselves, as a ScaledJob's must.
        for stage, process in running.items():
            output, _ = await asyncio.to_thread(process.communicate, timeout=60)
            assert process.returncode == 0, f"{stage}: {output}"
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    for job in ("sweep", "seal"):
        process = sluice(images["handlers"], tmp_path, job, "--json")
        output, _ = await asyncio.to_thread(process.communicate, timeout=120)
        assert process.returncode == 0, output
        assert orjson.loads(output[output.index("{") :])
    assert {stage: contents(image) for stage, image in images.items()} == before
