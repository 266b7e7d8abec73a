"""More than 300 secrets do not survive wherever they stand, and ordinary sentences do."""

from __future__ import annotations

import json

import pytest

from tasks.access.redact import Redactor
from tasks.settings import AuditSettings
from tests.support import corpus

redactor = Redactor(AuditSettings().sensitive_fields)
SIZE = 32 * 1024


def test_no_secret_survives() -> None:
    planted = list(corpus.secrets())
    assert len({one.secret for one in planted}) > 300
    survivors = []
    for one in planted:
        clean = json.dumps(redactor.value(one.holder), ensure_ascii=False)
        if any(part in clean for part in corpus.lines_of(one.secret)):
            survivors.append((one.shape, one.holder, clean))
    assert survivors == []


def test_redacting_what_was_redacted_changes_nothing() -> None:
    for one in corpus.secrets(each=2):
        once = redactor.value(one.holder)
        assert redactor.value(once) == once


def test_ordinary_sentences_stay_as_they_are() -> None:
    sentences = corpus.ordinary(10_000)
    changed = [(sentence, clean) for sentence in sentences if (clean := redactor.text(sentence)) != sentence]
    assert len(sentences) == 10_000
    assert len(changed) < 50, changed[:20]


@pytest.mark.parametrize(
    "unit",
    ["a", "1", "4111 ", "-", "_", "token", "token=", "token='", 'token="', 'token=\\"', "token=[",
     "token is ",
     "--token ", "<token>", "bearer ", "Bearer a", "Cookie: a=", "eyJ", "sk-", "sk_", "SG.aaaaaaaaaaaaaaaa.", "M.",
     "://a:b@", "a@a.",
     "+1 ", "00", "-----BEGIN PRIVATE KEY-----", "AKIA", "key=", "\\", '\\"', "[redacted]", "aaa7Q~", "%3D", "token_a",
     "é", "İ", "keys-", "password: "],
)  # fmt: skip
@pytest.mark.parametrize("after", ["", "\\", "!"])
def test_the_largest_text_of_anything_ends(unit: str, after: str) -> None:
    """Whoever grows faster than the text does not end within the time of a test."""
    everything = Redactor(AuditSettings().sensitive_fields, detect=("email", "phone"))
    text = (unit * (SIZE // len(unit) + 1))[:SIZE] + after
    assert isinstance(everything.text(text * 4), str)
