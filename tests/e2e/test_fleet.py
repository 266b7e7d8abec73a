"""What the tests start is the checkout under test."""

from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, Fleet


def test_a_script_runs_the_checkout_under_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "which.py"
    script.write_text("import handlers, tasks\nprint(tasks.__file__, handlers.__file__)\n")
    fleet = Fleet(tmp_path)
    assert fleet.start("which", script=script).wait(60) == 0
    assert fleet.logs().split()[-2:] == [str(ROOT / "tasks/__init__.py"), str(ROOT / "handlers/__init__.py")]
