"""The commands behind ``make terraform-check``, ``terraform-validate`` and ``terraform-schema``."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from terraform.check import costs, declarations, hcl, render, rules, structure
from terraform.check.schema import FILE, Schema

ROOT: Final = render.ROOT
CONTRACT: Final = ROOT / "modules" / "settings" / "contract.json"


def main() -> None:
    """Run the command that is named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m terraform.check", description=__doc__)
    parser.add_argument("command", choices=sorted(_COMMANDS), nargs="?", default="check")
    parser.add_argument("folder", nargs="?", type=Path, help="schema: where the packages with the bindings lie")
    asked = parser.parse_args()
    sys.exit(_COMMANDS[asked.command](asked.folder))


def findings(instead: Mapping[Path, str] | None = None) -> list[hcl.Finding]:
    """Return all that the schema and the rules find; ``instead`` as in :func:`terraform.check.hcl.read_folder`."""
    try:
        folders = [hcl.read_folder(path, ROOT, instead) for path in hcl.modules(ROOT)]
    except hcl.Unreadable as unreadable:
        return [unreadable.finding]
    schema = Schema.load()
    return sorted([*structure.check(folders, schema), *declarations.check(folders, schema), *rules.check(folders)])


def _check(_folder: Path | None) -> int:
    begun = time.monotonic()
    found = findings()
    if json.loads(render.FILE.read_text("utf-8"))["digest"] != render.digest():
        stale = "not made from these files: run make terraform-validate, and commit it"
        found.append(hcl.Finding(render.FILE.relative_to(ROOT), 1, "stale", stale))
    for finding in found:
        _say(f"{ROOT.name}/{finding}")
    provider = Schema.load().raw["providers"]["aws"]["version"]
    _say(f"{len(found)} findings, against provider {provider} ({time.monotonic() - begun:.1f} s)")
    return 1 if found else 0


def _render(_folder: Path | None) -> int:
    if not shutil.which("terraform"):
        _say("skipped: no terraform here; tests look at the committed rendered.json")
        return 0
    begun = time.monotonic()
    try:
        made = render.render()
    except render.Failed as failed:
        _say(str(failed))
        return 1
    changed = not render.FILE.exists() or json.loads(render.FILE.read_text("utf-8")) != made
    render.FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n", "utf-8")
    _say("terraform itself, on a stand-in with the providers' schema: validate, apply, plan, destroy")
    _say(f"took {time.monotonic() - begun:.0f} s")
    if changed:
        _say("rendered.json was not that of these files; it is now: commit it")
    return 1 if changed else 0


def _schema(folder: Path | None) -> int:
    from terraform.check.extract import PACKAGES, extract

    if folder is None:
        _say("schema: name the folder with the packages (make terraform-schema)")
        return 2
    wheels = {
        provider: next(folder.glob(f"{package.replace('-', '_')}-*.whl")) for provider, package in PACKAGES.items()
    }
    made = extract(wheels, _used())
    FILE.write_text(_one_type_a_line(made), "utf-8")
    _say(f"{FILE.name}: {', '.join(name + ' ' + it['version'] for name, it in made['providers'].items())}")
    return _contract(None)


def _used() -> set[tuple[str, str]]:
    folders = [hcl.read_folder(path, ROOT) for path in hcl.modules(ROOT)]
    return {
        (block.kind, block.labels[0])
        for folder in folders
        for block in folder.blocks
        if block.kind in (*hcl.MODES, "provider")
    }


def _one_type_a_line(made: dict[str, Any]) -> str:
    parts = []
    for mode, types in made.items():
        lines = ",\n".join(f"  {json.dumps(kind)}: {json.dumps(shape)}" for kind, shape in sorted(types.items()))
        parts.append(f" {json.dumps(mode)}: {{\n{lines}\n }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _contract(_folder: Path | None) -> int:
    from terraform.check.contract import contract

    CONTRACT.write_text(json.dumps(contract(), indent=2) + "\n", "utf-8")
    _say(f"{CONTRACT.name}: written from tasks/keys and tasks/settings")
    return 0


def _costs(_folder: Path | None) -> int:
    costs.write()
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


_COMMANDS: Final[dict[str, Callable[[Path | None], int]]] = {
    "check": _check,
    "render": _render,
    "schema": _schema,
    "contract": _contract,
    "costs": _costs,
}
