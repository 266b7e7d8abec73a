"""A proof shows a request's records to somebody who has only it, the public keys and the script in docs/."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.access.signing import dump_ring
from tasks.audit.prove import prove
from tasks.errors import NotFound, NotReady
from tests.support.ledger import Ledger, filled, write

SCRIPT = Path(__file__).parents[3] / "docs" / "check_inclusion.py"


@pytest.fixture
async def ledger() -> Ledger:
    ledger = await filled(rounds=5, records=4)
    stream = ledger.stream("door")
    await write(stream, ["other", "mine"])
    await ledger.seal()
    await write(stream, ["mine", "other", "mine"])
    await ledger.seal()
    return ledger


def check(proof: Any, ledger: Ledger, folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "proof.json").write_text(json.dumps(proof))
    (folder / "ring.json").write_bytes(dump_ring(ledger.ring))
    command = [sys.executable, "-O", str(SCRIPT), str(folder / "proof.json"), str(folder / "ring.json")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


async def test_the_script_accepts_a_proof_and_prints_the_records(ledger: Ledger, tmp_path: Path) -> None:
    proof = await prove(ledger.store, ledger.ring, "mine")
    assert len(proof["segments"]) == 2
    done = check(proof, ledger, tmp_path)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["request_id"] for line in done.stdout.splitlines()] == ["mine"] * 3
    assert "other" not in json.dumps(proof)


async def test_every_record_of_the_ledger_can_be_proved(ledger: Ledger, tmp_path: Path) -> None:
    ids = [f"r{number}-{place}-{index}" for number in range(5) for place in range(2) for index in (0, 3)]
    whole: dict[str, Any] = {"segments": [], "request_id": ""}
    for request_id in ids:
        proof = await prove(ledger.store, ledger.ring, request_id)
        done = check(proof, ledger, tmp_path) if request_id in ids[::7] else None
        assert done is None or done.returncode == 0, done.stderr
        whole["segments"] += proof["segments"]
    assert len(whole["segments"]) == len(ids)


def forged(proof: dict[str, Any]) -> list[dict[str, Any]]:
    part = proof["segments"][0]
    place, line = next(iter(part["records"].items()))
    changes: list[dict[str, Any]] = [
        {"records": {place: line.replace("tester", "nobody")}},
        {"index": part["index"] + 1},
        {"path": part["path"][:-1]},
        {"path": [*part["path"], "00" * 32]},
        {"leaf": part["leaf"].replace('"count":2', '"count":3')},
        {"signature": "00" * 64},
        {"header": part["header"].replace('"count":2', '"count":3')},
        {"hashes": part["hashes"][::-1]},
        {"checkpoint": part["checkpoint"].replace("\n16\n", "\n17\n")},
    ]
    return [{**proof, "segments": [{**part, **change}]} for change in changes] + [{**proof, "request_id": "other"}]


async def test_the_script_refuses_what_was_changed(ledger: Ledger, tmp_path: Path) -> None:
    proof = await prove(ledger.store, ledger.ring, "mine")
    for changed in forged(proof):
        done = check(changed, ledger, tmp_path)
        assert done.returncode != 0, changed
        assert "every record" not in done.stderr


async def test_what_is_not_there_or_not_sealed_is_said(ledger: Ledger) -> None:
    with pytest.raises(NotFound, match="nobody"):
        await prove(ledger.store, ledger.ring, "nobody")
    await write(ledger.stream("intent"), ["new"])
    with pytest.raises(NotReady, match="not sealed yet"):
        await prove(ledger.store, ledger.ring, "new")
    with pytest.raises(NotFound):
        await prove(ledger.store, ledger.ring, "mine", tenant="another")
