"""Mistakes that are put into the files, each found by rule, name and line; and that without them there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

import pytest
import yaml

from terraform.check import command


class Seed(NamedTuple):
    """One mistake; see the head of seeds.yaml."""

    rule: str
    file: str
    was: str
    becomes: str
    names: str = ""
    at: str = ""
    found_in: str = ""


SEEDS: Final = {
    name: Seed(**fields)
    for name, fields in yaml.safe_load((Path(__file__).parent / "seeds.yaml").read_text("utf-8")).items()
}


@pytest.mark.parametrize("name", SEEDS)
def test_a_seeded_mistake_is_found_by_rule_name_and_line(name: str) -> None:
    seed = SEEDS[name]
    file = Path(seed.file)
    text = (command.ROOT / file).read_text("utf-8")
    assert seed.was in text, "the seed does not fit the file any more"
    mistaken = text.replace(seed.was, seed.becomes, 1)
    found = [finding for finding in command.findings({file: mistaken}) if finding.rule == seed.rule]
    assert found, f"{name}: not found"
    place = Path(seed.found_in) if seed.found_in else file
    lines = (mistaken if place == file else (command.ROOT / place).read_text("utf-8")).splitlines()
    at = seed.at or next(line.strip() for line in seed.becomes.splitlines() if line.strip())
    assert any(
        finding.file == place and at in lines[finding.line - 1] and seed.names in finding.text for finding in found
    ), [str(finding) for finding in found]


def test_without_mistakes_nothing_is_found() -> None:
    assert [str(finding) for finding in command.findings()] == []
