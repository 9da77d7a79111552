import copy
import logging
import os

# Triton's own functions are for its interpreter or for its compiler from their first import on.
os.environ["TRITON_INTERPRET"] = "1"

import pytest
import torch

import editmem


def pytest_configure(config):
    """Workers share the machine: threads of several pools that wait for each other cost far more than they bring."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))
    if workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


class _Overheard(logging.Handler):
    """Keeps what is said to a log, from warnings on."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


@pytest.fixture(autouse=True)
def nobody_is_warned():
    """Transformers warns through its log, and some things once only: no test may end with such a warning said."""
    logging.Logger.warning_once.cache_clear()
    overheard = _Overheard()
    logger = logging.getLogger("transformers")
    logger.addHandler(overheard)
    yield overheard
    logger.removeHandler(overheard)
    assert overheard.messages == []


@pytest.fixture(scope="session")
def vlm():
    """The embedded model that sees, not to be changed, and its processor."""
    return editmem.tiny(vision=True)


@pytest.fixture
def model(vlm):
    """A copy of it."""
    return copy.deepcopy(vlm[0])
