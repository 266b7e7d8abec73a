"""The intent classifier: a BERT encoder with a softmax head, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from msgspec import Struct

from intent.encoding import Encoder, Encoders
from intent.gentle import step_back
from intent.manifest import (
    HALF,
    MODEL_FILE,
    POOLED,
    PROBABILITIES,
    TOKENIZER_FILE,
    Manifest,
    checked,
    default_dir,
    read_manifest,
)
from intent.quiet import no_idle_threads, no_telemetry
from tasks.contracts.words import Intent
from tasks.errors import IntegrityError, InvalidInput, NotReady

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_STRETCH: Final = 1.25
"""How much longer than its shortest a text may be to share its run."""
_ROUNDING: Final = 1e-3
_CPU: Final = "CPUExecutionProvider"
_GPU: Final = "CUDAExecutionProvider"
_WARM_TEXTS: Final = ("hello", "list the orders of last week that have not been shipped yet")


class Prediction(Struct, frozen=True):
    """What a text asks for.

    ``label`` is an :class:`~tasks.contracts.words.Intent` value; ``out_of_scope`` also where the classifier
    was not sure enough to say. ``confidence`` is the calibrated probability (0..1) of the most probable
    label: below the threshold exactly when the classifier abstained.
    """

    label: str
    confidence: float
    model_version: str


class Classifier:
    """A loaded model. Safe to share between threads; load it after a fork, not before."""

    def __init__(self, session: Any, encoder: Encoder, manifest: Manifest) -> None:
        """Wrap an ONNX Runtime ``session``; use :meth:`load`."""
        self._session = session
        self._encoder = encoder
        self._manifest = manifest
        self._names = tuple(str(label) for label in manifest.labels)

    @classmethod
    def load(
        cls, model_dir: Path | None = None, threads: int = 1, *, encoders: Encoders | None = None, gentle: bool = False
    ) -> Self:
        """Load the model in ``model_dir``, by default the one in the package, and warm it up.

        ``threads`` is how many threads one inference may use; it is at least 1. ``encoders`` has one to share where
        another model with the same tokeniser is loaded: but for making that, loading hardly holds the interpreter.
        ``gentle`` leaves the processor to others where it can.

        Raises:
            NotReady: ONNX Runtime is not installed, or the model's files are not there.
            IntegrityError: a file is not the one that the manifest vouches for.
            InvalidInput: ``threads`` is below 1.
        """
        if threads < 1:
            raise InvalidInput(f"threads: must be at least 1, is {threads}")
        directory = model_dir or default_dir()
        with ThreadPoolExecutor(1, "sluice-model", initializer=step_back if gentle else None) as beside:
            # Hashing the graph needs no lock, importing and making the encoder one core: together they take less.
            before = _identity(directory)
            manifest = read_manifest(directory)
            hashed = beside.submit(checked, directory, MODEL_FILE, manifest)
            runtime = import_runtime()
            tokenizer = checked(directory, TOKENIZER_FILE, manifest)
            encoder = (encoders or Encoders()).get(tokenizer, manifest.max_length)
            hashed.result()
        session = _session(runtime, directory, threads, half=manifest.recipe.get("precision") == HALF)
        if _identity(directory) != before:
            raise IntegrityError(f"{directory / MODEL_FILE}: was replaced while it was being loaded")
        classifier = cls(session, encoder, manifest)
        classifier._warm_up(directory)
        return classifier

    @property
    def version(self) -> str:
        """Return the name of this very model: another model or threshold has another one."""
        return self._manifest.version

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the labels in the order of :meth:`probabilities`."""
        return self._names

    @property
    def threshold(self) -> float:
        """Return the probability (0..1) below which this classifier abstains."""
        return self._manifest.threshold

    @property
    def provider(self) -> str:
        """Return what runs the graph: ONNX Runtime's name of it, such as ``CPUExecutionProvider``."""
        return str(self._session.get_providers()[0])

    @property
    def manifest(self) -> Manifest:
        """Return what the model directory says about itself."""
        return self._manifest

    def classify(self, texts: Sequence[str], threshold: float | None = None) -> list[Prediction]:
        """Return one prediction for each of ``texts``, in their order, by one inference.

        ``threshold`` (0..1) replaces the model's own. The caller bounds the batch: memory grows with the
        number of texts times the longest of them, see :meth:`token_lengths`.

        Raises:
            InvalidInput: a text is not valid Unicode, or the threshold is not within 0..1.
        """
        floor = self._floor(threshold)
        return self._decided(self.probabilities(texts), floor) if texts else []

    def encode(self, text: str) -> list[int]:
        """Return the token ids that the model sees of ``text``, special ones included, at most ``max_length``.

        Raises:
            InvalidInput: the text is not valid Unicode.
        """
        return self._encoder.ids(text)

    def classify_ids(self, rows: Sequence[Sequence[int]], threshold: float | None = None) -> list[Prediction]:
        """Return one prediction for each of ``rows`` of :meth:`encode`, in their order, padded to the longest.

        ``threshold`` as for :meth:`classify`. There must be rows.

        Raises:
            InvalidInput: the threshold is not within 0..1.
        """
        floor = self._floor(threshold)
        return self._decided(self._run(rows), floor)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return what the head sees of ``texts``, float32 ``[len(texts), hidden]``; one inference for each.

        Raises:
            InvalidInput: a text is not valid Unicode.
            IntegrityError: the graph is of an older export, which does not tell.
        """
        import numpy as np

        if POOLED not in [output.name for output in self._session.get_outputs()]:
            raise IntegrityError(f"{self.version}: its graph has no output {POOLED!r}: train it again")
        rows = [self._encoder.inputs([self._encoder.ids(text)]) for text in texts]
        return np.concatenate(
            [self._session.run([POOLED], {"input_ids": ids, "attention_mask": mask})[0] for ids, mask in rows]
        )

    def probabilities(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return calibrated probabilities, float32 ``[len(texts), len(labels)]``; there must be texts.

        Raises:
            InvalidInput: there are no texts, or one is not valid Unicode.
        """
        if not texts:
            raise InvalidInput("texts: must not be empty")
        import numpy as np

        rows = [self._encoder.ids(text) for text in texts]
        groups = alike([len(row) for row in rows])
        found = np.concatenate([self._run([rows[place] for place in group]) for group in groups])
        order: NDArray[np.intp] = np.argsort([place for group in groups for place in group])
        result: NDArray[np.float32] = found[order]
        return result

    def _run(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        ids, mask = self._encoder.inputs(rows)
        result: NDArray[np.float32] = self._session.run([PROBABILITIES], {"input_ids": ids, "attention_mask": mask})[0]
        return result

    def token_lengths(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens the model sees of each text, special ones included, at most ``max_length``.

        Raises:
            InvalidInput: a text is not valid Unicode.
        """
        return [len(self._encoder.ids(text)) for text in texts]

    def _floor(self, threshold: float | None) -> float:
        floor = self.threshold if threshold is None else threshold
        if not 0 <= floor <= 1:
            raise InvalidInput(f"threshold: must be within 0..1, is {floor}")
        return floor

    def _decided(self, probabilities: NDArray[np.float32], floor: float) -> list[Prediction]:
        return [
            self._decide(int(best), float(row[best]), floor)
            for best, row in zip(probabilities.argmax(axis=1), probabilities, strict=True)
        ]

    def _decide(self, best: int, confidence: float, threshold: float) -> Prediction:
        label = self._names[best] if confidence >= threshold else Intent.OUT_OF_SCOPE.value
        return Prediction(label, confidence, self.version)

    def _warm_up(self, directory: Path) -> None:
        # The first run allocates buffers, and proves that the graph is what the manifest describes.
        for texts in (_WARM_TEXTS[:1], _WARM_TEXTS):
            try:
                found = self.probabilities(texts)
            except Exception as error:  # ONNX Runtime has no public base class of its errors
                raise IntegrityError(f"{directory / MODEL_FILE}: does not run: {error}") from error
            if found.shape != (len(texts), len(self._names)):
                raise IntegrityError(
                    f"{directory / MODEL_FILE}: gives {found.shape}, the manifest has {len(self._names)} labels"
                )
            if not abs(float(found.sum()) - len(texts)) < _ROUNDING * len(texts):  # also where it is no number
                raise IntegrityError(f"{directory / MODEL_FILE}: what it gives are no probabilities")


def _identity(directory: Path) -> tuple[int, int, int]:
    """Return what changes when the graph's file is replaced; zeros where there is none."""
    try:
        found = (directory / MODEL_FILE).stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def alike(lengths: Sequence[int]) -> list[list[int]]:
    """Return the places of ``lengths`` in groups of similar ones, to be padded together.

    A token of padding costs as much as any other, and a further run as much as a few tokens.
    """
    groups: list[list[int]] = []
    shortest = 0
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):
        if not groups or lengths[place] > _STRETCH * shortest:
            groups.append([])
            shortest = lengths[place]
        groups[-1].append(place)
    return groups


def import_runtime() -> Any:
    """Import what :meth:`Classifier.load` needs, beside something else; return ONNX Runtime.

    Raises:
        NotReady: it is not installed.
    """
    no_telemetry()
    no_idle_threads()
    try:
        import onnxruntime
    except ImportError as error:
        raise NotReady("the classifier needs ONNX Runtime: pip install 'sluice[cpu]'") from error
    return onnxruntime


def _session(onnxruntime: Any, directory: Path, threads: int, *, half: bool) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Idle threads sleep: a worker shares its cores with the event loop and with other workers.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Plans for one shape do not fit the next one, and nearly every batch has a shape of its own.
    options.enable_mem_pattern = False
    # The graph is written as it runs, see :mod:`intent.export`.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    providers = providers_for(onnxruntime.get_available_providers(), half=half)
    if _GPU in providers:
        onnxruntime.preload_dlls()  # CUDA's libraries may be packages beside it
    try:
        return onnxruntime.InferenceSession(str(directory / MODEL_FILE), options, providers=providers)
    except Exception as error:  # ONNX Runtime has no public base class of its errors
        raise IntegrityError(f"{directory / MODEL_FILE}: is not a graph that runs here: {error}") from error


def providers_for(available: Sequence[str], *, half: bool) -> list[str]:
    """Return what shall run a graph, the best first, of the ``available``.

    A GPU only where the graph is in ``half`` a float's precision: integers are what CPUs are fast with, and a GPU would
    give them back to the CPU, operator by operator.
    """
    return [_GPU, _CPU] if half and _GPU in available else [_CPU]
