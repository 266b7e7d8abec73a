"""Secrets of many shapes in many places, and ordinary sentences that only look like some. All are made up here."""

from __future__ import annotations

import base64
import json
import random
import string
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ALNUM: Final = string.ascii_letters + string.digits
URLSAFE: Final = ALNUM + "_-"
HEX: Final = "0123456789abcdef"
TRAIN: Final = Path(__file__).parents[2] / "intent" / "data" / "train.jsonl"


class Planted(NamedTuple):
    """A secret, and something that holds it: a text or any JSON value. ``shape`` names it in a failure."""

    shape: str
    secret: str
    holder: object


def _made(rng: random.Random, alphabet: str, count: int) -> str:
    # As generated secrets are: never all of one kind.
    mixed = [
        char for char in (rng.choice(string.digits), rng.choice("ABCDEF"), rng.choice("abcdef")) if char in alphabet
    ]
    return "".join([*rng.choices(alphabet, k=count - len(mixed)), *mixed])


def _segment(rng: random.Random, **claims: object) -> str:
    claims["n"] = rng.randrange(10**6)
    return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")


def _jwt(rng: random.Random) -> str:
    return f"{_segment(rng, alg='RS256')}.{_segment(rng, sub='u-1', exp=2)}.{_made(rng, URLSAFE, 60)}"


def _pem(rng: random.Random, kind: str) -> str:
    body = "\n".join(_made(rng, ALNUM + "+/", 64) for _ in range(4))
    return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"


def card(rng: random.Random, prefix: str, length: int, separator: str = "") -> str:
    """Return a card number with a right check digit."""
    digits = prefix + "".join(rng.choices(string.digits, k=length - 1 - len(prefix)))
    for check in string.digits:
        number = [int(char) for char in digits + check]
        if (sum(number[-1::-2]) + sum(sum(divmod(2 * digit, 10)) for digit in number[-2::-2])) % 10 == 0:
            groups = [(digits + check)[start : start + 4] for start in range(0, length, 4)]
            return separator.join(groups)
    raise AssertionError


SHAPES: Final[dict[str, Callable[[random.Random], str]]] = {
    "openai": lambda r: f"sk-proj-{_made(r, URLSAFE, 48)}",
    "openai, old": lambda r: f"sk-{_made(r, ALNUM, 48)}",
    "anthropic": lambda r: f"sk-ant-api03-{_made(r, URLSAFE, 93)}",
    "stripe": lambda r: f"{r.choice(['sk', 'rk', 'pk'])}_{r.choice(['live', 'test'])}_{_made(r, ALNUM, 24)}",
    "stripe webhook": lambda r: f"whsec_{_made(r, ALNUM, 32)}",
    "github": lambda r: f"gh{r.choice('pousr')}_{_made(r, ALNUM, 36)}",
    "github, fine": lambda r: f"github_pat_{_made(r, ALNUM, 22)}_{_made(r, ALNUM, 59)}",
    "gitlab": lambda r: f"glpat-{_made(r, URLSAFE, 20)}",
    "slack": lambda r: f"xox{r.choice('abprs')}-{r.randrange(10**11)}-{r.randrange(10**11)}-{_made(r, ALNUM, 24)}",
    "slack app": lambda r: f"xapp-1-A{_made(r, string.digits, 10)}-{_made(r, HEX, 40)}",
    "google key": lambda r: f"AIza{_made(r, URLSAFE, 35)}",
    "google oauth": lambda r: f"ya29.{_made(r, URLSAFE, 60)}",
    "google secret": lambda r: f"GOCSPX-{_made(r, URLSAFE, 28)}",
    "azure secret": lambda r: f"{_made(r, ALNUM, 3)}8Q~{_made(r, URLSAFE, 34)}",
    "twilio": lambda r: f"{r.choice(['SK', 'AC'])}{_made(r, HEX, 32)}",
    "sendgrid": lambda r: f"SG.{_made(r, URLSAFE, 22)}.{_made(r, URLSAFE, 43)}",
    "npm": lambda r: f"npm_{_made(r, ALNUM, 36)}",
    "pypi": lambda r: f"pypi-AgEIcHlwaS5vcmc{_made(r, URLSAFE, 60)}",
    "hugging face": lambda r: f"hf_{_made(r, ALNUM, 34)}",
    "digitalocean": lambda r: f"dop_v1_{_made(r, HEX, 64)}",
    "shopify": lambda r: f"shpat_{_made(r, HEX, 32)}",
    "vault": lambda r: f"hvs.{_made(r, URLSAFE, 90)}",
    "docker": lambda r: f"dckr_pat_{_made(r, URLSAFE, 27)}",
    "grafana": lambda r: f"glsa_{_made(r, ALNUM, 32)}_{_made(r, HEX, 8)}",
    "telegram": lambda r: f"{r.randrange(10**8, 10**9)}:AA{_made(r, URLSAFE, 33)}",
    "databricks": lambda r: f"dapi{_made(r, HEX, 32)}",
    "aws id": lambda r: f"{r.choice(['AKIA', 'ASIA'])}{_made(r, string.ascii_uppercase + string.digits, 16)}",
    "jwt": _jwt,
    "visa": lambda r: card(r, "4", 16, r.choice(["", " ", "-"])),
    "mastercard": lambda r: card(r, r.choice(["51", "55", "2221", "2720"]), 16, r.choice(["", " ", "-"])),
    "amex": lambda r: card(r, r.choice(["34", "37"]), 15),
    "discover": lambda r: card(r, "6011", 16, r.choice(["", " "])),
    "diners": lambda r: card(r, "36", 14),
    "rsa key": lambda r: _pem(r, "RSA PRIVATE KEY"),
    "pkcs8 key": lambda r: _pem(r, "PRIVATE KEY"),
    "openssh key": lambda r: _pem(r, "OPENSSH PRIVATE KEY"),
    "pgp key": lambda r: _pem(r, "PGP PRIVATE KEY BLOCK"),
}
"""What is found wherever it stands."""

# What says nothing by itself is found by what stands before it.
_NAMED_TEXTS: Final = (
    "password={}", "db_password: {}", '"password": "{}"', "{{'client_secret': '{}'}}", "Authorization: Bearer {}",
    "authorization: Basic {}", "curl --password {} https://example.org", "<password>{}</password>",
    "export API_KEY={}", "x-api-key: {}", "accessToken={}&page=2", r'{{\"api_key\": \"{}\"}}',
    "postgresql://app:{}@db.example.org:5432/app", "redis://:{}@10.0.0.7:6379/0", "https://{}@git.example.org/a.git",
    "amqps://user:{}@broker/vhost", "aws_secret_access_key = {}", "AccountName=a;AccountKey={};EndpointSuffix=core",
    "Server=db;Uid=sa;Pwd={};", "SharedAccessKey={}", "Bearer {}", "the password is {}",
    "Cookie: session={}; theme=dark",
    "Set-Cookie: sid={}; HttpOnly", "secretKey: {}", "passphrase: {}", "https://api.example.org/?sig={}&v=1",
)  # fmt: skip


def _places(rng: random.Random, secret: str) -> list[object]:
    """Return what may hold a secret of a known shape."""
    return [
        f"please use {secret} for this, thanks",
        f"{secret}",
        f"first line\nkey material: {secret}\nlast line",
        {"headers": {"X-Something": secret, "Accept": "*/*"}},
        {"arguments": {"url": f"https://example.org/?q={secret}", "body": [{"deep": [secret]}]}},
        json.dumps({"note": f"it is {secret}"}),
        repr({"note": (secret, rng.random())}),
        repr(RuntimeError(f"upstream said: {secret} is not allowed")),
        _traceback(secret),
    ]


def _traceback(secret: str) -> str:
    try:
        try:
            raise KeyError(secret)  # noqa: TRY301  the traceback is wanted
        except KeyError as error:
            raise RuntimeError(f"cannot connect with {secret}") from error
    except RuntimeError as error:
        return "".join(traceback.format_exception(error))


def lines_of(secret: str) -> list[str]:
    """Return the parts of ``secret`` of which none may survive: a key's lines, a card's digits."""
    return [line for line in secret.split("\n") if line and not line.startswith("-----")]


def secrets(seed: int = 7, each: int = 8) -> Iterator[Planted]:
    """Yield more than 300 different secrets, each in one place or more."""
    rng = random.Random(seed)
    for shape, make in SHAPES.items():
        for _ in range(each):
            secret = make(rng)
            for holder in _places(rng, secret):
                yield Planted(shape, secret, holder)
    for text in _NAMED_TEXTS:
        for number in range(3):
            secret = _made(rng, ALNUM, 20 + 12 * number)
            secret = _made(rng, ALNUM + "+/", 40) if "aws" in text else secret
            if "Basic" in text:
                secret = base64.b64encode(f"app:{secret}".encode()).decode()
            yield Planted(text, secret, text.format(secret))
            yield Planted(text, secret, f"it failed: {text.format(secret)} (3 attempts)")
            yield Planted(text, secret, {"error": [text.format(secret)]})
    for name in ("api_key", "X-Api-Key", "dbPassword", "clientSecret", "AUTHORIZATION", "access_token", "credit card"):
        for value in ("{}", ["{}"], {"inner": "{}"}):
            secret = _made(rng, ALNUM, 16)
            filled = json.loads(json.dumps(value).replace("{}", secret))
            yield Planted(name, secret, {"outer": [{name: filled}]})
        yield Planted(name, secret, {"headers": [[name, secret], ["Accept", "*/*"]]})
        yield Planted(name, secret, [{"name": name, "value": secret}])


# What must stay -------------------------------------------------------------------------------------

_ORDINARY: Final = (
    "Order {order} ships on {date} with {carrier} and tracking number {tracking}.",
    "The build {version} of commit {sha1} took {seconds} seconds.",
    "Please compare invoice {order} of {amount} EUR with the one of {date}.",
    "Call us at {phone} between 9:00 and 17:30, extension {small}.",
    "The checksum of the file is {sha256}.",
    "Request {uuid} was routed to agents.responder with confidence 0.{small}.",
    "Server 10.{small}.0.12:8443 answered 503 after {millis} ms at {stamp}.",
    "SELECT name, total FROM orders WHERE id = {small} AND total > {amount};",
    "Your token budget is {small} tokens; max_tokens={small}, input_tokens: {small}.",
    "How do I reset my password, and where do I put the API key?",
    "Explain bearer authentication and the difference between basic and digest authorization.",
    "What is the secret of a good {carrier} delivery? Ask {name}.",
    "Meeting on {date} at 14:00, room {small}, with {name} and {name}.",
    "pip install package-{small}=={version} and set LOG_LEVEL=DEBUG",
    "The key to success: patience, {small} coffees, and {name}.",
    "ISBN 978-3-16-148410-0 costs {amount}; EAN 4006381333931.",
    "git checkout -b fix/issue-{small}-token-refresh && make test",
    "https://example.org/docs/{version}/page?id={small}&sort=desc#section-{small}",
    "Nanoseconds {nanos}, milliseconds {clock}, and a float {amount}e-{small}.",
    "docker image registry.example.org/team/app:{version}@sha256:{sha256}",
    "results/default/{uuid}.json was created, attempt {small} of 5.",
    "Pay {name} {amount} for order no. {order}; the IBAN is on file.",
    "The password policy: at least {small} characters; the token expires after {small} days.",
    "Model minilm-{short} scored 0.{small} on {small} lines, key=value pairs are fine.",
)


def ordinary(count: int = 10_000, seed: int = 11) -> list[str]:
    """Return ``count`` ordinary sentences: those of the classifier's training data, and made ones with numbers."""
    rng = random.Random(seed)
    lines = [str(json.loads(line)["text"]) for line in TRAIN.read_text("utf-8").splitlines()][:count]
    while len(lines) < count:
        lines.append(rng.choice(_ORDINARY).format_map(_Words(rng)))
    return lines


class _Words(dict[str, str]):
    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def __missing__(self, name: str) -> str:
        rng = self._rng
        digits = "".join(rng.choices(string.digits, k=19))
        made = {
            "order": rng.choice([f"ORD-{digits[:8]}", digits[:10], f"{digits[:3]}-{digits[3:10]}-{digits[:7]}"]),
            "tracking": rng.choice([f"1Z{digits[:16]}", f"00{digits[:18]}", f"{digits[:12]}"]),
            "date": f"20{rng.randrange(10, 40)}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}",
            "stamp": f"2026-11-{rng.randrange(1, 29):02}T12:30:15.{digits[:6]}Z",
            "version": f"{rng.randrange(20)}.{rng.randrange(40)}.{rng.randrange(9)}",
            "phone": rng.choice([f"+49 30 {digits[:7]}", f"(555) {digits[:3]}-{digits[3:7]}", f"030/{digits[:8]}"]),
            "sha1": "".join(rng.choices(HEX, k=40)),
            "sha256": "".join(rng.choices(HEX, k=64)),
            "short": "".join(rng.choices(HEX, k=12)),
            "uuid": str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "amount": f"{rng.randrange(10_000)}.{rng.randrange(100):02}",
            "seconds": f"{rng.random() * 100:.3f}",
            "millis": str(rng.randrange(100_000)),
            "small": str(rng.randrange(1, 1000)),
            "clock": str(1_795_000_000_000 + rng.randrange(10**9)),
            "nanos": str(1_795_000_000_000_000_000 + rng.randrange(10**15)),
            "carrier": rng.choice(["parcel", "express", "freight"]),
            "name": rng.choice(["Ana", "Müller", "O'Neill", "Zhang Wei", "Keya", "Patricia"]),
        }
        return made[name]
