"""How many bytes a request takes on its queue, by shape and by encoding, and what the encoding costs.

    python -m benchmarks.message_sizes [--json FILE]

Real messages with signed grants. Short texts are those of ``intent/data``, longer ones prose of ``docs/``. Dictionaries
are trained on one half of the messages of all shapes and tried on the other. The rows of kombu are computed: a Celery
task's envelope, base64 in its body and base64 again around it, as kombu sends it to SQS.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import statistics
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import orjson
import zstandard
from msgspec import Struct, to_builtins

from handlers.bench.meter import machine
from handlers.cli.common import console, print_table
from tasks.access.grants import NARROW, GrantReader, Mint
from tasks.access.signing import GRANT, KeyRing, PublicKey, Scope, generate
from tasks.contracts.message import COMPRESS_ABOVE, Body, Message
from tasks.contracts.request import Request
from tasks.contracts.words import new_id

ROOT: Final = Path(__file__).parents[1]
EACH: Final = 200
TURNS: Final = 20
DICTIONARY_BYTES: Final = 16 * 1024
CLAIM: Final = 0.83

Encode = Callable[[bytes], bytes]


class Sample(Struct, frozen=True):
    """A message with its body inline as JSON, and the body itself."""

    message: Message
    body: bytes


class Row(Struct, frozen=True):
    """Medians of one shape: bytes by encoding, and the share that compression saves."""

    shape: str
    body: int
    wire: dict[str, int]
    body_saves: float
    wire_saves: float
    microseconds: dict[str, float]


class Corpus:
    """Texts, and what they are asked with."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        lines = (ROOT / "intent/data/train.jsonl").read_bytes().splitlines()
        self.short = [orjson.loads(line)["text"] for line in lines]
        pages = [page.read_text() for page in sorted((ROOT / "docs").glob("*.md"))]
        blocks = [block.strip() for page in pages for block in page.split("\n\n")]
        self.prose = [block for block in blocks if len(block) > 120 and not block.startswith(("|", "#", "```", "<"))]
        key = generate("door")
        scope = Scope(purposes=(GRANT, NARROW), tenants=("*",), subjects=("alice",), roles=("user",))
        public = PublicKey(key.kid, key.public, scope)
        self._mint = Mint(key, public, audience="sluice")
        self._reader = GrantReader(KeyRing([public]), audience="sluice")

    def text(self, least: int) -> str:
        """Return prose of at least ``least`` characters."""
        said = ""
        while len(said) < least:
            said += self.chance.choice(self.prose) + "\n\n"
        return said

    def turns(self) -> list[dict[str, str]]:
        """Return a conversation: short questions, answers of a paragraph."""
        pairs = ((self.chance.choice(self.short), self.chance.choice(self.prose)) for _ in range(TURNS))
        return [
            {"role": role, "content": content}
            for question, answer in pairs
            for role, content in (("user", question), ("assistant", answer))
        ]

    def sample(self, text: str, **fields: Any) -> Sample:
        request = Request(text=text, tenant="acme", **fields)
        now = datetime.now(UTC)
        message = Message(
            id=request.id,
            tenant=request.tenant,
            digest=request.digest(),
            grant=self._token(request, now),
            body=Body(encoding="json", data=request.body().decode()),
            session_id=request.session_id,
            accepted_at=now,
        )
        return Sample(message, request.body())

    def step(self) -> Sample:
        """Return a step of a plan as it travels: the plan has its instruction, the message names it."""
        whole = self.sample(self.chance.choice(self.short)).message
        parent = self._reader.read(whole.grant or "")
        token = self._mint.narrow(parent, plan=whole.digest, step="step-2", agents=("executor",), now=whole.accepted_at)
        plan = Body(encoding="plan")
        return Sample(whole.changed(step="step-2", agent_type="executor", grant=token, body=plan), b"")

    def _token(self, request: Request, now: datetime) -> str:
        return self._mint.mint(
            subject="alice",
            tenant=request.tenant,
            roles=("user",),
            request_id=request.id,
            digest=request.digest(),
            now=now,
            expires=now + timedelta(days=14),
        )


def shapes(corpus: Corpus) -> Iterator[tuple[str, list[Sample]]]:
    def many(make: Callable[[], Sample]) -> list[Sample]:
        return [make() for _ in range(EACH)]

    yield "short request", many(lambda: corpus.sample(corpus.chance.choice(corpus.short)))
    yield "turn 20 of a session", many(lambda: corpus.sample(corpus.chance.choice(corpus.short), session_id=new_id()))
    yield "step of a plan", many(corpus.step)
    yield "step, inputs inline", many(lambda: corpus.sample(corpus.text(5_000)[:6_000]))
    yield "2 KB of prose", many(lambda: corpus.sample(corpus.text(2_000)))
    yield "20 turns in the text", many(lambda: corpus.sample(orjson.dumps(corpus.turns()).decode()[:30_000]))
    yield "30 KB of prose", many(lambda: corpus.sample(corpus.text(29_000)[:30_000]))
    yield "30 KB of log lines", many(lambda: corpus.sample(logs(corpus.chance)))


def logs(chance: random.Random) -> str:
    lines = (
        f'{{"level":"info","event":"swept","unpublished":{chance.randint(0, 9)},"lost":0,'
        f'"timestamp":"2026-11-23T0{n % 10}:{n % 60:02d}:11.{chance.randint(100, 999)}Z",'
        f'"request_id":"r{chance.randint(1, 99)}"}}'
        for n in range(400)
    )
    return "\n".join(lines)[:30_000]


def inline(message: Message, body: bytes, pack: Encode, *, above: int = COMPRESS_ABOVE) -> bytes:
    """Return the message with its body packed, in base64, where it is over ``above`` bytes."""
    if len(body) <= above:
        return message.to_bytes()
    packed = Body(encoding="zlib", data=base64.b64encode(pack(body)).decode())
    return min(message.changed(body=packed).to_bytes(), message.to_bytes(), key=len)


def kombu(payload: bytes, *, packed: bool = False) -> bytes:
    """Return what kombu would send to SQS for a task with ``payload`` as its one argument."""
    text, task = payload.decode(), new_id()
    body = json.dumps([[text], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
    headers: dict[str, Any] = dict.fromkeys(
        ("shadow", "eta", "expires", "group", "group_index", "parent_id", "timelimit", "stamps"), None
    )
    headers |= {"lang": "py", "task": "tasks.route", "id": task, "retries": 0, "root_id": task}
    headers |= {"argsrepr": repr([text])[:1024], "kwargsrepr": "{}", "origin": "gen1@host", "ignore_result": False}
    headers |= {"replaced_task_nesting": 0, "stamped_headers": None} | (
        {"compression": "application/x-gzip"} if packed else {}
    )
    delivery = {"exchange": "", "routing_key": "requests"}
    properties = {"correlation_id": task, "reply_to": new_id(), "delivery_mode": 2, "delivery_info": delivery}
    properties |= {"priority": 0, "body_encoding": "base64", "delivery_tag": new_id()}
    envelope = {
        "body": base64.b64encode(zlib.compress(body) if packed else body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    return base64.b64encode(json.dumps(envelope).encode())


def trained(samples: Sequence[bytes]) -> zstandard.ZstdCompressionDict:
    return zstandard.train_dictionary(DICTIONARY_BYTES, list(samples))


def middle(values: Iterator[int] | Sequence[int]) -> int:
    return round(statistics.median(values))


def microseconds(work: Callable[[bytes], object], inputs: Sequence[bytes]) -> float:
    """Return the least time for one input of five rounds; 0 where there is none."""
    rounds = []
    for _ in range(5):
        begun = time.perf_counter()
        for one in inputs:
            work(one)
        rounds.append((time.perf_counter() - begun) / max(len(inputs), 1) * 1e6)
    return round(min(rounds), 1) if inputs else 0.0


class Encodings:
    """Everything that is compared."""

    def __init__(self, bodies: Sequence[bytes], messages: Sequence[bytes]) -> None:
        self.zstd = zstandard.ZstdCompressor(level=3)
        self.with_body = zstandard.ZstdCompressor(level=3, dict_data=trained(bodies))
        self.with_whole = zstandard.ZstdCompressor(level=3, dict_data=trained(messages))

    def wire(self, sample: Sample) -> dict[str, bytes]:
        message, body = sample.message, sample.body
        plain = message.to_bytes()
        return {
            "plain": plain,
            "zlib": inline(message, body, lambda raw: zlib.compress(raw, 6)),
            "zstd": inline(message, body, self.zstd.compress),
            "zstd, dictionary": inline(message, body, self.with_body.compress, above=0),
            "whole, dictionary": base64.b64encode(self.with_whole.compress(plain)),
            "kombu": kombu(body or plain),
            "kombu, zlib": kombu(body or plain, packed=True),
        }

    def row(self, shape: str, samples: Sequence[Sample]) -> Row:
        wires = [self.wire(sample) for sample in samples]
        wire = {name: middle([len(one[name]) for one in wires]) for name in wires[0]}
        bodies = [sample.body for sample in samples if len(sample.body) > COMPRESS_ABOVE]
        saves = [1 - len(self.zstd.compress(body)) / len(body) for body in bodies]
        shrunk, packed = [zlib.compress(body, 6) for body in bodies], [self.zstd.compress(body) for body in bodies]
        open_zstd = zstandard.ZstdDecompressor()
        times = {
            "zlib": microseconds(lambda raw: zlib.compress(raw, 6), bodies),
            "back": microseconds(zlib.decompress, shrunk),
            "zstd": microseconds(self.zstd.compress, bodies),
            "back ": microseconds(open_zstd.decompress, packed),
        }
        return Row(
            shape=shape,
            body=middle([len(sample.body) for sample in samples]),
            wire=wire,
            body_saves=round(statistics.median(saves), 3) if saves else 0.0,
            wire_saves=round(1 - wire["zstd"] / wire["plain"], 3),
            microseconds=times,
        )


def show(rows: Sequence[Row]) -> None:
    names = list(rows[0].wire)
    print_table(
        "Bytes on the queue, medians",
        ["shape", "body", *names],
        [[row.shape, f"{row.body:,}", *(f"{row.wire[name]:,}" for name in names)] for row in rows],
    )
    print_table(
        f"What zstd saves (claimed: {CLAIM:.0%}), and its microseconds for one body",
        ["shape", "of the body", "on the wire", "83%?", *(rows[-1].microseconds)],
        [
            [
                row.shape,
                f"{row.body_saves:.0%}",
                f"{row.wire_saves:.0%}",
                "yes" if row.wire_saves >= CLAIM else "no",
                *(f"{value:g}" for value in row.microseconds.values()),
            ]
            for row in rows
        ],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="Also write the figures here.")
    options = parser.parse_args()
    corpus = Corpus(random.Random(7))
    made = dict(shapes(corpus))
    learned = [sample for samples in made.values() for sample in samples[: EACH // 2]]
    small = [sample.body for sample in learned if 0 < len(sample.body) < 4096]
    encodings = Encodings(small, [sample.message.to_bytes() for sample in learned])
    rows = [encodings.row(shape, samples[EACH // 2 :]) for shape, samples in made.items()]
    show(rows)
    if options.json:
        facts = {"date": datetime.now(UTC).date().isoformat(), **machine(), "dictionary_bytes": DICTIONARY_BYTES}
        options.json.write_text(json.dumps({**facts, "rows": to_builtins(rows)}, indent=2) + "\n")
        console().print(f"written to {options.json}")


if __name__ == "__main__":
    main()
