"""Write down what Cedar says of the packaged policies: python -m tests.support.decisions"""

import re

import msgspec

from tasks.access.policy import DECISIONS, PACKAGED, SCHEMA, Cedar, Decisions, cedar, decisions, digest_of

FILES = sorted(PACKAGED.glob("*.cedar"))
TEXTS = [file.read_text() for file in FILES]


def engine() -> Cedar:
    """Cedar with the packaged policies."""
    return cedar(FILES, TEXTS, SCHEMA.read_text())


def roles() -> list[str]:
    """The roles that the packaged policies name."""
    return sorted({role for text in TEXTS for role in re.findall(r'Role::"([^"]+)"', text)})


def fresh() -> Decisions:
    """What Cedar says now."""
    return decisions(engine(), roles(), digest_of(TEXTS, SCHEMA.read_text()))


def spelt(made: Decisions) -> bytes:
    """As it is packaged."""
    return msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n"


if __name__ == "__main__":
    DECISIONS.write_bytes(spelt(fresh()))
