"""Who holds value and key proves what was replaced; nobody else learns anything."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.access.commitments import Commitments, is_guessable, load, new_key
from tasks.access.redact import REDACTED, Redactor
from tasks.errors import SettingsError
from tasks.log import bound
from tasks.settings import AuditSettings
from tests.support import corpus

KEY = b"k" * 32
TOKEN = "sk-proj-abcdefghijklmnop1234"
commitments = Commitments(KEY)
redactor = Redactor(AuditSettings().sensitive_fields, commitments=commitments)


def test_a_mark_carries_the_commitment_of_tenant_field_and_value() -> None:
    with bound(tenant="acme"):
        clean = redactor.value({"api_key": "hunter2hunter2", "text": f"password=hunter2hunter2 {TOKEN}"})
    key = commitments.of("hunter2hunter2", tenant="acme", field="api_key")
    password = commitments.of("hunter2hunter2", tenant="acme", field="password")
    token = commitments.of(TOKEN, tenant="acme", field="token")
    assert clean == {
        "api_key": f"[redacted:api_key/{key}]",
        "text": f"password=[redacted:password/{password}] [redacted:token/{token}]",
    }


def test_the_value_alone_is_committed_to_whatever_stood_around_it() -> None:
    said = ["password=hunter2hunter2", '"password": "hunter2hunter2"', "Password : 'hunter2hunter2'",
            r"{\"password\": \"hunter2hunter2\"}", "authorization: Bearer hunter2hunter2"]  # fmt: skip
    marks = {re.findall(r"\[redacted:(?:password|authorization)/(\w+)\]", redactor.text(text))[0] for text in said[:4]}
    assert len(marks) == 1
    assert commitments.of("hunter2hunter2", tenant="", field="authorization") in redactor.text(said[4])


def test_equal_values_of_two_tenants_and_of_two_fields_do_not_meet() -> None:
    made = {commitments.of("same value here", tenant=tenant, field=field) for tenant in "ab" for field in "xy"}
    assert len(made) == 4
    assert Commitments(b"j" * 32).of("same value here", tenant="a", field="x") not in made


@given(st.text(), st.sampled_from(["a", "ab"]), st.sampled_from(["b", "ab"]))
def test_the_parts_of_what_is_committed_to_do_not_run_together(value: str, tenant: str, field: str) -> None:
    assert commitments.of(value, tenant=tenant, field=field) == commitments.of(value, tenant=tenant, field=field)
    assert commitments.of(value, tenant=tenant + field, field="") != commitments.of(value, tenant=tenant, field=field)


@pytest.mark.parametrize("value", ["1234", "hunter2", "4111 1111 1111 1111", "+49 30 12345678", ""])
def test_what_could_be_guessed_gets_no_commitment(value: str) -> None:
    assert is_guessable(value)
    assert redactor.value({"password": value}) == {"password": REDACTED}


def test_cards_and_personal_data_get_no_commitment() -> None:
    everything = Redactor([], detect=("email", "phone"), commitments=commitments)
    said = "card 4111111111111111, mail firstname.lastname@example.org, call +49 30 12345678"
    assert everything.text(said) == f"card {REDACTED}, mail {REDACTED}, call {REDACTED}"


def test_marks_are_left_alone_when_they_are_met_again() -> None:
    for one in corpus.secrets(each=2):
        once = redactor.value(one.holder)
        assert redactor.value(once) == once


def test_the_key_comes_from_the_environment_or_from_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(base64.b64encode(KEY).decode() + "\n")
    file.chmod(0o600)
    settings = AuditSettings(commitment_key_file=file)
    expected = commitments.of("v", tenant="t", field="f")
    for chosen, environ in (
        (settings, {}),
        (AuditSettings(), {"SLUICE_COMMITMENT_KEY": base64.b64encode(KEY).decode()}),
    ):
        found = load(chosen, environ)
        assert found is not None
        assert found.of("v", tenant="t", field="f") == expected
    assert load(AuditSettings(), {}) is None
    assert load(AuditSettings(), {"SLUICE_COMMITMENT_KEY": new_key()}) is not None


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [("AAAA", 0o600, "32"), ("no base64!", 0o600, "base64"), (base64.b64encode(KEY).decode(), 0o644, "chmod 600")],
)
def test_a_key_that_will_not_do_is_named(tmp_path: Path, text: str, mode: int, said: str) -> None:
    file = tmp_path / "key"
    file.write_text(text)
    file.chmod(mode)
    with pytest.raises(SettingsError, match=said):
        load(AuditSettings(commitment_key_file=file), {})


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="commitment_key_file"):
        load(AuditSettings(commitment_key_file=tmp_path / "none"), {})
