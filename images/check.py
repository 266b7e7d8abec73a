"""Run by the environment of an image's STAGE: it can import what its pool needs, and nothing that it must not have."""

import importlib
import importlib.util
import pkgutil
import sys

AGENTS = ("autogen_core", "autogen_agentchat", "sqlglot", "openai")
CLASSIFIER = ("onnxruntime", "tokenizers", "numpy")
ALWAYS = ("pip", "torch", "pytest", "moto", "mypy")
NEEDED = {
    "intent": ("tasks.runtime", "tasks.route", "intent.live", "uvloop"),
    "agent": ("tasks.runtime", "tasks.work", "tasks.agents.*", "anthropic", "openai", "mcp", "psycopg", "uvloop"),
    "handlers": ("handlers.aws.*", "tasks.scheduled", "tasks.sweep", "tasks.seal", "awslambdaric"),
}
FORBIDDEN = {"intent": AGENTS, "agent": CLASSIFIER, "handlers": (*AGENTS, *CLASSIFIER)}


def modules(name: str) -> list[str]:
    """Return the modules that ``name`` stands for: with ``.*`` the package and all below it."""
    package = name.removesuffix(".*")
    if package == name:
        return [name]
    found = pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
    return [package, *(module.name for module in found)]


def classify() -> None:
    """Have the packaged classifier say what it says of one text."""
    from intent.classifier import Classifier

    [found] = Classifier.load().classify(["What is a webhook?"])
    if found.label != "answer_question":
        raise SystemExit(f"the classifier says {found.label}")


def main(stage: str) -> None:
    """Check one stage; raises where it is not as it must be."""
    pool = stage.partition("-")[0]
    for name in (module for needed in NEEDED[pool] for module in modules(needed)):
        importlib.import_module(name)
    for name in (*FORBIDDEN[pool], *ALWAYS):
        if importlib.util.find_spec(name):
            raise SystemExit(f"{stage}: {name} is installed and has no use here")
    if pool == "intent":
        classify()


if __name__ == "__main__":
    main(sys.argv[1])
