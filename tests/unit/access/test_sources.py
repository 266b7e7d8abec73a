"""Keys come from files, the environment and AWS; without any, a process does not start."""

from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import ANY, Stubber

from scaling import keyfiles
from tasks.access.signing import (
    CHECKPOINT,
    GRANT,
    KeyRing,
    Keys,
    PublicKey,
    Scope,
    audit_purpose,
    dump_private,
    dump_ring,
    generate,
    verify_with,
)
from tasks.access.sources import KmsSigner, load_keys, load_ring
from tasks.access.webhooks import load_masters
from tasks.errors import NotReady, SettingsError
from tasks.settings import CallbackSettings, GrantSettings, Settings, SigningSettings
from tests.support import trust

KEY = generate("alice")
SPKI = bytes.fromhex("302a300506032b6570032100")


def settings(keys: tuple[str, ...], ring: str | None) -> Settings:
    return Settings(signing=SigningSettings(keys=keys, ring=ring))


@pytest.fixture
def ring(tmp_path: Path) -> str:
    file = tmp_path / "ring.json"
    file.write_bytes(dump_ring([trust.public(KEY)]))
    return str(file)


def test_keys_come_from_files(tmp_path: Path, ring: str) -> None:
    private = tmp_path / "keys.json"
    private.write_bytes(dump_private([KEY]))
    for source in (str(private), private.as_uri()):
        assert load_keys(settings((source,), ring)).signer(GRANT).kid == KEY.kid


def test_keys_come_from_the_environment(ring: str) -> None:
    found = load_keys(settings(("env:MY_KEYS",), ring), environ={"MY_KEYS": dump_private([KEY]).decode()})
    assert found.signer(GRANT).kid == KEY.kid
    with pytest.raises(NotReady, match="env:MY_KEYS"):
        load_keys(settings(("env:MY_KEYS",), ring), environ={})


def test_a_process_that_only_verifies_needs_a_ring_alone(ring: str) -> None:
    assert load_keys(settings((), ring)).signers == ()
    assert len(load_ring(ring)) == 1


def test_without_keys_a_process_does_not_start_and_says_how_to_make_them() -> None:
    for keys in ((), ("keys.json",)):
        with pytest.raises(NotReady, match=r"sluice keys new.*grants\.mode: open"):
            load_keys(settings(keys, None))


def test_open_mode_without_keys_makes_its_own_which_nobody_trusts() -> None:
    open_settings = Settings(grants=GrantSettings(mode="open"))
    one, other = load_keys(open_settings), load_keys(open_settings)
    assert one.signer(audit_purpose("door")).kid != other.signer(audit_purpose("door")).kid
    with pytest.raises(NotReady):
        load_keys(open_settings.changed(signing=SigningSettings(keys=("keys.json",))))


def test_what_cannot_be_read_is_named(tmp_path: Path, ring: str) -> None:
    with pytest.raises(NotReady, match=r"none\.json"):
        load_keys(settings((str(tmp_path / "none.json"),), ring))
    with pytest.raises(SettingsError, match="no source of keys"):
        load_keys(settings(("https://keys.example/x",), ring))


def test_a_key_in_the_place_of_its_address_is_not_repeated(ring: str) -> None:
    text = dump_private([KEY]).decode()
    for wrong in (settings((text,), ring), settings((), text)):
        with pytest.raises(SettingsError, match="where its address belongs") as raised:
            load_keys(wrong)
        assert KEY.kid not in str(raised.value)


# AWS: parameters and answers are checked against botocore's own model of the service -----------------


def stubbed(service: str) -> tuple[Any, Stubber]:
    client = boto3.client(service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x")
    return client, Stubber(client)


@pytest.mark.parametrize("field", ["SecretString", "SecretBinary"])
def test_keys_come_from_secrets_manager(ring: str, field: str) -> None:
    client, stub = stubbed("secretsmanager")
    text = dump_private([KEY])
    value = {field: text.decode() if field == "SecretString" else text}
    stub.add_response("get_secret_value", value, {"SecretId": "sluice/keys"})
    asked: list[tuple[str, str]] = []

    def make(service: str, region: str) -> Any:
        asked.append((service, region))
        return client

    with stub:
        source = "secretsmanager://eu-central-1/sluice/keys"
        assert load_keys(settings((source,), ring), client=make).signer(GRANT).kid == KEY.kid
    assert asked == [("secretsmanager", "eu-central-1")]


def test_a_secret_that_aws_does_not_give_is_named(ring: str) -> None:
    client, stub = stubbed("secretsmanager")
    stub.add_client_error("get_secret_value", "AccessDeniedException")
    with stub, pytest.raises(NotReady, match=r"secretsmanager:///x.*AccessDenied"):
        load_keys(settings(("secretsmanager:///x",), ring), client=lambda *_: client)


def test_kms_signs_and_never_shows_its_key() -> None:
    client, stub = stubbed("kms")
    stub.add_response("get_public_key", {"PublicKey": SPKI + KEY.public}, {"KeyId": "alias/sealer"})
    wanted = {"KeyId": "alias/sealer", "Message": b"root", "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"}
    stub.add_response("sign", {"Signature": KEY.sign(b"root")}, wanted)
    with stub:
        signer = KmsSigner("kms://eu-central-1/alias/sealer?name=sealer", lambda *_: client)
        keys = Keys([signer], KeyRing([PublicKey(signer.kid, KEY.public, Scope(purposes=(CHECKPOINT,)))]))
        verify_with(KEY.public, b"root", keys.signer(CHECKPOINT, "sealer").sign(b"root"))


def test_a_key_of_another_kind_is_refused() -> None:
    client, stub = stubbed("kms")
    stub.add_response("get_public_key", {"PublicKey": b"rsa"}, {"KeyId": ANY})
    with stub, pytest.raises(SettingsError, match="ECC_NIST_EDWARDS25519"):
        KmsSigner("kms:///x", lambda *_: client)
    with pytest.raises(SettingsError, match="no key"):
        KmsSigner("kms://eu-central-1/", lambda *_: client)


# The embedded stack -------------------------------------------------------------------------------


def test_the_embedded_stack_makes_keys_once_and_keeps_them_to_itself(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    named = keyfiles.ensure(folder)
    assert keyfiles.ensure(folder) == named
    private = folder / keyfiles.PRIVATE
    assert (private.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
    keys = load_keys(settings((str(private),), str(folder / keyfiles.RING)))
    assert keys.signer(GRANT, "local")
    for purpose in (CHECKPOINT, "narrow", audit_purpose("intent"), audit_purpose("door")):
        assert keys.signer(purpose)


def test_a_new_key_of_a_name_signs_and_the_old_one_stays_valid(tmp_path: Path) -> None:
    files = {"private": tmp_path / "keys.json", "ring": tmp_path / "ring.json"}
    first = keyfiles.add("alice", trust.scope(), **files)
    second = keyfiles.add("alice", trust.scope(), **files)
    keys = load_keys(settings((str(files["private"]),), str(files["ring"])))
    assert keys.signer(GRANT, "alice").kid == second
    assert {key.kid for key in keys.ring} == {first, second}


def test_the_embedded_stack_makes_the_secret_of_callbacks_once(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keyfiles.ensure(folder)
    file = keyfiles.ensure_callback_secret(folder)
    made = file.read_bytes()
    assert keyfiles.ensure_callback_secret(folder).read_bytes() == made
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_masters(CallbackSettings(secrets=(str(file),))) == (made,)
