import copy
import hashlib
import logging
import os

# Triton's own functions are for its interpreter or for its compiler from their first import on.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch
import transformers.utils.logging  # noqa: F401 - gives loggers their `warning_once`

import editmem
from editmem.editing import calibration
from editmem.editing.writer import Writer


def pytest_configure(config):
    """Workers share the machine: threads of several pools that wait for each other cost far more than they bring."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:
        threads = max(1, (os.cpu_count() or 1) // workers)
        torch.set_num_threads(threads)
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # processes that tests start


OTHERS = (
    # Its own assisted decoding calls its own `generate` so.
    "Passing `generation_config` together with generation-related arguments",
    # Its server says so of every request.
    "[Request received]",
)
"""Beginnings of warnings that no code of ours, and nothing that it does, is the cause of."""


class _Overheard(logging.Handler):
    """Keeps what is said to a log, from warnings on."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        message = record.getMessage()
        if not message.startswith(OTHERS):
            self.messages.append(message)


@pytest.fixture(autouse=True)
def nobody_is_warned(request):
    """Transformers warns through its log, and some things once only: no test may end with such a warning said, unless
    warnings are no errors in this run."""
    if "default" in (request.config.getoption("pythonwarnings") or ()):
        yield None
        return
    logging.Logger.warning_once.cache_clear()
    overheard = _Overheard()
    logger = logging.getLogger("transformers")
    logger.addHandler(overheard)
    yield overheard
    logger.removeHandler(overheard)
    assert overheard.messages == []


_CALIBRATE, _CALIBRATED = Writer.calibrate, {}


def _what_calibration_is_of(writer):
    """All that calibrating depends on: the settings, the host's weights and types, the tokenizer."""
    weights = hashlib.sha256()
    for name, tensor in writer.host.model.state_dict().items():
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.device}".encode())
        weights.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    tokenizer = writer.encode.tokenizer
    words = type(tokenizer), len(tokenizer), tokenizer.chat_template, writer.encode.processor is None
    read = len(calibration.hard_negatives()[0]), calibration.PICTURES
    return repr(writer.memory.spec), torch.get_default_dtype(), weights.hexdigest(), words, read


@pytest.fixture(scope="module")
def calibrated_once():
    """Memories with the same settings on the same host are calibrated once in a process; the others are loaded.

    Calibrating takes seconds and is the same each time, for it depends on the host and the settings alone.
    """

    def once(writer, progress=None):
        if writer.memory.calibrated:
            return
        of = _what_calibration_is_of(writer)
        if of in _CALIBRATED:
            writer.memory.restore({name: tensor.clone() for name, tensor in _CALIBRATED[of].items()})
        else:
            _CALIBRATE(writer, progress)
            _CALIBRATED[of] = {name: tensor.clone() for name, tensor in writer.memory.state_dict().items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Writer, "calibrate", once)
        yield


@pytest.fixture
def calibrated_anew(monkeypatch):
    """In a test of a module whose memories are `calibrated_once`: what calibrating itself does."""
    monkeypatch.setattr(Writer, "calibrate", _CALIBRATE)


@pytest.fixture
def calibrated_by_little(monkeypatch):
    """Calibrating reads a quarter of the built-in prompts and pictures: for tests of anything but where thresholds come
    to lie."""
    names, forms = calibration.hard_negatives()
    neutral = calibration.neutral_prompts()
    monkeypatch.setattr(calibration, "hard_negatives", lambda: (names[:8], forms[:8]))
    monkeypatch.setattr(calibration, "neutral_prompts", lambda: neutral[::4])
    monkeypatch.setattr(calibration, "PICTURES", calibration.PICTURES // 4)
    monkeypatch.setattr(calibration, "ASKED", calibration.ASKED // 4)


@pytest.fixture(scope="session")
def tiny():
    """The embedded model, not to be changed, and its tokenizer."""
    return editmem.tiny()


@pytest.fixture(scope="session")
def tokenizer(tiny):
    return tiny[1]


@pytest.fixture
def host(tiny):
    """A copy of the embedded model."""
    return copy.deepcopy(tiny[0])


@pytest.fixture(scope="session")
def vlm():
    """The embedded model that sees, not to be changed, and its processor."""
    return editmem.tiny(vision=True)


@pytest.fixture
def model(vlm):
    """A copy of it."""
    return copy.deepcopy(vlm[0])
