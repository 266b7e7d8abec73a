"""Terraform itself, on the stand-in with the providers' schema: what it makes of these files is what is committed."""

import json
import shutil

import pytest

from terraform.check import render


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("terraform") is None, reason="no terraform here")
def test_terraform_validates_applies_and_destroys_and_makes_what_is_committed() -> None:
    assert render.render() == json.loads(render.FILE.read_text("utf-8"))
