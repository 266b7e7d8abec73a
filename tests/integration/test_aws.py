"""Keys from AWS and alerts to it, over HTTP: moto as a server of its own. It is no proof of what AWS does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import msgspec
import pytest
from click.testing import CliRunner
from moto.kms.models import Key, kms_backends
from moto.server import ThreadedMotoServer
from nacl.signing import SigningKey as NaclKey

from handlers.cli.main import cli
from tasks.access.signing import CHECKPOINT, GRANT, KeyRing, Keys, PublicKey, Scope, dump_private, dump_ring, generate
from tasks.access.sources import KmsSigner, load_keys
from tasks.audit.alerts import Alert
from tasks.audit.targets import SnsTarget
from tasks.contracts.audit import GENESIS, AuditRecord
from tasks.contracts.base import utc_now
from tasks.errors import BadSignature, InvalidInput, NotReady, SettingsError
from tasks.settings import Settings, SigningSettings
from tasks.stores.connect import connect
from tests.support import build, trust
from tests.support.ledger import Ledger, public, write

REGION = "eu-central-1"
ACCOUNT = "123456789012"
SPKI = bytes.fromhex("302a300506032b6570032100")


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks for KMS, Secrets Manager, SNS and SQS; this process's AWS clients go there."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for service in ("KMS", "SECRETS_MANAGER", "SNS", "SQS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    yield f"http://{host}:{port}"
    server.stop()


class Ed25519:
    """What moto lacks: a private key of the kind that KMS calls ECC_NIST_EDWARDS25519."""

    def __init__(self) -> None:
        self.key = NaclKey.generate()

    def sign(self, message: bytes, signing_algorithm: str) -> bytes:
        assert signing_algorithm == "ED25519_SHA_512"
        return bytes(self.key.sign(message).signature)

    def public_key(self) -> bytes:
        return SPKI + bytes(self.key.verify_key)


class Ed25519Key(Key):
    """A key of moto's that says so."""

    signing_algorithms = ["ED25519_SHA_512"]  # type: ignore[assignment]  # noqa: RUF012


def kms_key(*, ed25519: bool = True) -> str:
    """Make a key in KMS; return its id."""
    client = boto3.client("kms", region_name=REGION)
    made = client.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["KeyId"]
    if ed25519:
        key: Any = kms_backends[ACCOUNT][REGION].keys[made]
        key.__class__ = Ed25519Key
        key.private_key = Ed25519()
    return made


async def test_a_ledger_that_kms_signs_verifies(aws: str) -> None:
    url = f"kms://{REGION}/{kms_key()}?name=sealer"
    ledger = Ledger()
    ring = [public(key, f"audit:{name}") for name, key in ledger.pools.items()]
    signer = KmsSigner(url, lambda service, region: boto3.client(service, region_name=region))  # type: ignore[call-overload]
    ledger.ring = KeyRing([*ring, PublicKey(signer.kid, signer.public, Scope(purposes=(CHECKPOINT,)))])
    keys = Keys([signer], ledger.ring)
    await write(ledger.stream(), ["a", "b"])
    await ledger.sealer(signer=keys.signer(CHECKPOINT, "sealer")).run_once()
    report = await ledger.verify(witness=ledger.witness)
    assert (report.faults, report.checkpoints) == ([], 1)


def test_keys_are_named_in_the_settings_and_come_from_there(aws: str) -> None:
    key = generate("web")
    ring = [PublicKey(key.kid, key.public, trust.scope())]
    client = boto3.client("secretsmanager", region_name=REGION)
    client.create_secret(Name="sluice/keys", SecretString=dump_private([key]).decode())
    client.create_secret(Name="sluice/ring", SecretBinary=dump_ring(ring))
    named = f"secretsmanager://{REGION}/sluice"
    settings = Settings(signing=SigningSettings(keys=(f"{named}/keys",), ring=f"{named}/ring"))
    assert load_keys(settings).signer(GRANT).kid == key.kid
    with pytest.raises(NotReady, match="ResourceNotFound"):
        load_keys(Settings(signing=SigningSettings(keys=(f"{named}/none",), ring=f"{named}/ring")))


def test_a_kms_key_of_another_kind_or_that_is_not_there_is_named(aws: str) -> None:
    ring = dump_ring([PublicKey("k.1", bytes(32), trust.scope())]).decode()

    def load(key_id: str) -> None:
        signing = SigningSettings(keys=(f"kms://{REGION}/{key_id}",), ring="env:RING")
        load_keys(Settings(signing=signing), environ={"RING": ring})

    with pytest.raises(SettingsError, match="ECC_NIST_EDWARDS25519"):
        load(kms_key(ed25519=False))
    with pytest.raises(NotReady, match="NotFound"):
        load("00000000-0000-0000-0000-000000000000")
    with pytest.raises(NotReady, match="not in the ring"):
        load(kms_key())


def keys_add(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["keys", "add", *arguments], standalone_mode=False)


def test_a_key_of_kms_is_added_to_a_ring_and_signs_with_it(aws: str, tmp_path: Path) -> None:
    ring, source = tmp_path / "ring.json", f"kms://{REGION}/{kms_key()}?name=sealer"
    ring.write_bytes(dump_ring([PublicKey("web.1", bytes(32), trust.scope())]))
    done = keys_add(source, "--purpose", CHECKPOINT, "--ring", str(ring), "--json")
    assert done.exception is None, done.exception
    kid = json.loads(done.stdout)["kid"]
    assert kid.startswith("sealer.")
    keys = load_keys(Settings(signing=SigningSettings(keys=(source,), ring=str(ring))))
    assert [key.kid for key in keys.ring] == [kid, "web.1"]
    signature = keys.signer(CHECKPOINT).sign(b"a checkpoint")
    keys.ring.verify(kid, b"a checkpoint", signature, purpose=CHECKPOINT)
    with pytest.raises(BadSignature):
        keys.ring.verify(kid, b"a checkpoint", signature, purpose=GRANT)

    before = ring.read_bytes()
    for again in (source, source.replace("sealer", "other")):
        assert isinstance(keys_add(again, "--purpose", CHECKPOINT, "--ring", str(ring)).exception, SettingsError)
    assert ring.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "options", "error", "told"),
    [
        ("keys.json", ["--purpose", "checkpoint"], InvalidInput, "SOURCE: name a key of AWS KMS"),
        (f"kms://{REGION}/gone", ["--purpose", "checkpoint"], NotReady, "NotFound"),
        (f"kms://{REGION}/", ["--purpose", "checkpoint"], SettingsError, "kms://REGION/KEY_ID"),
        ("grants", ["--purpose", "grant"], InvalidInput, "--tenant, --role"),
    ],
)
def test_what_cannot_be_added_is_said_and_leaves_no_ring(
    aws: str, tmp_path: Path, source: str, options: list[str], error: type[Exception], told: str
) -> None:
    if source == "grants":
        source = f"kms://{REGION}/{kms_key()}"
    done = keys_add(source, *options, "--ring", str(tmp_path / "ring.json"))
    assert isinstance(done.exception, error)
    assert told in str(done.exception)
    assert not (tmp_path / "ring.json").exists()


async def test_an_alert_reaches_who_listens_to_the_topic(aws: str) -> None:
    sns, sqs = boto3.client("sns", region_name=REGION), boto3.client("sqs", region_name=REGION)
    topic = sns.create_topic(Name="sluice")["TopicArn"]
    queue = sqs.create_queue(QueueName="listener")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    rule = json.dumps({"severity": ["critical"]})
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"FilterPolicy": rule})
    for severity in ("low", "critical"):
        await SnsTarget(topic).send(alert(severity))
    [message] = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    told = json.loads(message["Body"])
    assert told["Subject"] == "Sluice: permission_violation (critical)"
    said = json.loads(told["Message"])
    assert (said["severity"], said["record"]["request_id"]) == ("critical", "r1")


async def test_a_topic_that_is_gone_is_an_error_for_who_tells(aws: str) -> None:
    with pytest.raises(Exception, match="NotFound"):
        await SnsTarget(f"arn:aws:sns:{REGION}:{ACCOUNT}:gone").send(alert("high"))


def alert(severity: str) -> Alert:
    event = msgspec.structs.asdict(build.event(request_id="r1"))
    record = AuditRecord(**event, time=utc_now(), stream="door~h~1", sequence=0, previous=GENESIS)
    return Alert(
        id="a1",
        type="permission_violation",
        severity=severity,
        tenant=record.tenant,
        count=1,
        window_seconds=300,
        time=utc_now(),
        record=record,
    )


def test_the_address_of_redis_may_be_a_secret(aws: str) -> None:
    client = boto3.client("secretsmanager", region_name=REGION)
    client.create_secret(Name="sluice/redis", SecretString="rediss://:word@redis.example:6380/0\n")
    named = Settings(redis_url=f"secretsmanager://{REGION}/sluice/redis")
    assert connect(named).link._address.host == "redis.example"
    with pytest.raises(NotReady, match="does not give it"):
        connect(Settings(redis_url=f"secretsmanager://{REGION}/none"))
