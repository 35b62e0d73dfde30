import asyncio
import gc
import shutil
import weakref
from pathlib import Path

import pytest

from export.errors import BundleError
from export.models import Models
from tests.conftest import MakeBundle


class Deployment:
    """A folder that holds one version of a bundle, and the models loaded from it."""

    def __init__(self, make: MakeBundle, folder: Path) -> None:
        self.make = make
        self.folder = make(folder / "bundle", temperature=1.0)
        self.outcomes: list[tuple[str, str]] = []
        self.models = Models({"shop": self.folder}, lambda *outcome: self.outcomes.append(outcome))

    def put(self, version: Path) -> None:
        self.folder.rename(self.folder.with_name(f"old-{len(list(self.folder.parent.iterdir()))}"))
        version.rename(self.folder)

    def refresh(self) -> None:
        asyncio.run(self.models.refresh())


@pytest.fixture
def deployment(make_tiny_bundle: MakeBundle, tmp_path: Path) -> Deployment:
    return Deployment(make_tiny_bundle, tmp_path)


def test_a_new_version_takes_over_and_the_old_one_lives_while_it_is_held(deployment: Deployment) -> None:
    old = deployment.models.get()
    assert old is not None
    deployment.put(deployment.make(deployment.folder.with_name("next"), temperature=2.0))
    deployment.refresh()
    new = deployment.models.get("shop")
    assert new is not None
    assert (new.manifest.temperature, new.digest != old.digest) == (2.0, True)
    assert old.predictor.predict("my parcel")[0].label is not None
    assert deployment.outcomes == [("shop", "loaded")]
    seen = weakref.ref(old)
    del old
    gc.collect()
    assert seen() is None


def test_a_broken_version_is_refused_with_its_reason_and_the_old_one_stays(deployment: Deployment) -> None:
    old = deployment.models.get()
    broken = deployment.make(deployment.folder.with_name("next"), temperature=2.0)
    (broken / "onnx" / "model_quantized.onnx").write_bytes(b"no model")
    deployment.put(broken)
    deployment.refresh()
    assert deployment.models.get() is old
    assert "model_quantized.onnx" in str(deployment.models.slots["shop"].refused)
    assert deployment.outcomes == [("shop", "refused")]


def test_a_refused_version_is_tried_again_once_its_files_change(deployment: Deployment) -> None:
    version = deployment.make(deployment.folder.with_name("next"), temperature=2.0)
    sound = (version / "onnx" / "model_quantized.onnx").read_bytes()
    (version / "onnx" / "model_quantized.onnx").write_bytes(sound[:100])  # as if it was still being copied
    deployment.put(version)
    deployment.refresh()
    (deployment.folder / "onnx" / "model_quantized.onnx").write_bytes(sound)
    deployment.refresh()
    model = deployment.models.get()
    assert model is not None
    assert (model.manifest.temperature, deployment.models.slots["shop"].refused) == (2.0, None)
    assert deployment.outcomes == [("shop", "refused"), ("shop", "loaded")]


def test_a_folder_that_went_away_changes_nothing(deployment: Deployment) -> None:
    old = deployment.models.get()
    shutil.rmtree(deployment.folder)
    deployment.refresh()
    assert deployment.models.get() is old
    assert deployment.outcomes == []


def test_a_bundle_that_does_not_verify_is_not_loaded(make_tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "bundle")
    (bundle / "stranger.py").write_text("print(1)", encoding="utf-8")
    with pytest.raises(BundleError, match=r"stranger\.py"):
        Models({"shop": bundle}, print)


def test_the_first_bundle_answers_when_no_name_is_given(make_tiny_bundle: MakeBundle, tmp_path: Path) -> None:
    folders = {name: make_tiny_bundle(tmp_path / name, temperature=index + 1.0) for index, name in enumerate("ab")}
    models = Models(folders, print)
    first = models.get()
    assert first is not None
    assert (first.name, models.get("c")) == ("a", None)
