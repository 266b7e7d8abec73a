"""What Terraform made of the sample, on the stand-in: see terraform/check/render.py."""

import json
from typing import Any

import pytest

from terraform.check import render


@pytest.fixture(scope="session")
def rendered() -> dict[str, Any]:
    made: dict[str, Any] = json.loads(render.FILE.read_text("utf-8"))
    return made


@pytest.fixture(scope="session")
def outputs(rendered: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = rendered["outputs"]
    return found


@pytest.fixture(scope="session")
def resources(rendered: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = rendered["resources"]
    return found
