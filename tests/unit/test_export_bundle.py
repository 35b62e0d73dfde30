import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from msgspec.structs import replace

from export.bundle import (
    MANIFEST,
    MODEL_FILES,
    BundleManifest,
    read_listed,
    read_manifest,
    refuse_strangers,
    verify_bundle,
    write_bundle,
)
from export.errors import BundleError
from export.gate import Gate

DRAFT = BundleManifest(
    name="shop",
    kind="single_label",
    labels=("delivery", "payment", "size"),
    max_tokens=48,
    precision="int8",
    temperature=1.3,
    gates=(Gate("quality_drop", 0.001, 0.01, True, "accuracy | on 90 dev rows"),),
    lineage={"key": "abc", "stages": {"train": 3}},
)
QUALITY = {"accuracy": 0.9375, "macro_f1": 0.93}


@pytest.fixture(scope="module")
def sound(tiny_classifier: Path, tiny_models: dict[Any, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle")
    write_bundle(tiny_classifier, tiny_models, target, DRAFT, QUALITY)
    return target


@pytest.fixture
def bundle(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "bundle"))


def _reseal(bundle: Path, **changes: Any) -> None:
    """Rewrite the manifest with `changes` and a fitting digest, as somebody hostile could."""
    content = json.loads((bundle / MANIFEST).read_bytes()) | changes
    del content["digest"]
    content["digest"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    (bundle / MANIFEST).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _list(bundle: Path, name: str, content: bytes) -> None:
    """Put a file into the bundle and into its manifest."""
    if not (bundle / name).exists():
        (bundle / name).write_bytes(content)
    files = json.loads((bundle / MANIFEST).read_bytes())["files"]
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _reseal(bundle, files=files)


def _replace_model(bundle: Path, change: Any) -> None:
    path = bundle / MODEL_FILES["int8"]
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    _list(bundle, MODEL_FILES["int8"], path.read_bytes())


def test_a_bundle_that_was_just_written_has_no_problem(sound: Path) -> None:
    assert verify_bundle(sound) == []


def test_a_bundle_holds_the_names_that_other_clients_look_for(sound: Path) -> None:
    names = {path.relative_to(sound).as_posix() for path in sound.rglob("*") if path.is_file()}
    wanted = {"config.json", "tokenizer.json", "tokenizer_config.json", "README.md", MANIFEST}
    assert names == wanted | {"onnx/model.onnx", "onnx/model_quantized.onnx"}


def test_the_manifest_comes_back_as_it_was_written_with_every_file_listed(sound: Path) -> None:
    manifest = read_manifest(sound)
    assert replace(manifest, files={}, digest="") == DRAFT
    assert manifest.digest == json.loads((sound / MANIFEST).read_bytes())["digest"]
    assert sorted(manifest.files) == [
        "README.md",
        "config.json",
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_same_inputs_give_the_same_bytes(
    tiny_classifier: Path, tiny_models: dict[Any, Path], sound: Path, tmp_path: Path
) -> None:
    write_bundle(tiny_classifier, tiny_models, tmp_path / "again", DRAFT, QUALITY)
    assert (tmp_path / "again" / MANIFEST).read_bytes() == (sound / MANIFEST).read_bytes()


def test_other_clients_are_told_where_to_cut_a_text(sound: Path) -> None:
    assert json.loads((sound / "tokenizer_config.json").read_bytes())["model_max_length"] == 48


def test_the_model_card_carries_the_measured_quality_for_the_hub(sound: Path) -> None:
    _, head, body = (sound / "README.md").read_text().split("---\n", 2)
    metrics = yaml.safe_load(head)["model-index"][0]["results"][0]["metrics"]
    assert {metric["type"]: metric["value"] for metric in metrics} == QUALITY
    assert "| quality_drop | 0.001 | 0.01 | yes | accuracy \\| on 90 dev rows |" in body


def test_50_bit_flips_and_50_truncations_are_all_found_and_named(bundle: Path) -> None:
    generator = np.random.default_rng(0)
    names = [MANIFEST, *read_manifest(bundle).files]
    found = 0
    for index in range(100):
        path = bundle / names[index % len(names)]
        content = path.read_bytes()
        at = int(generator.integers(len(content)))
        flipped = bytes([content[at] ^ (1 << int(generator.integers(8)))])
        path.write_bytes(content[:at] if index >= 50 else content[:at] + flipped + content[at + 1 :])
        found += any(path.name in problem for problem in verify_bundle(bundle))
        path.write_bytes(content)
    assert found == 100


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    assert [problem for problem in verify_bundle(bundle) if "tokenizer.json: is missing" in problem]


def test_a_file_that_is_not_listed_is_refused(bundle: Path) -> None:
    (bundle / "onnx" / "extra.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"onnx/extra\.onnx is not listed"):
        refuse_strangers(bundle, read_manifest(bundle))
    assert len(verify_bundle(bundle)) == 1


@pytest.mark.parametrize("name", ["config.json", "onnx"])
def test_a_symbolic_link_is_refused_even_to_the_same_bytes(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", bundle / name)
    assert f"{name} is a symbolic link" in verify_bundle(bundle)
    with pytest.raises(BundleError, match="no regular file"):
        read_listed(bundle, read_manifest(bundle), "config.json" if name == "config.json" else MODEL_FILES["int8"])


@pytest.mark.parametrize(
    "name",
    [
        "../outside.json",
        "/etc/outside.json",
        "onnx/../../outside.json",
        "a\\b.json",
        "C:/b.json",
        "a//b.json",
    ],
)
def test_a_path_that_leaves_the_folder_is_refused(bundle: Path, name: str) -> None:
    (bundle.parent / "outside.json").write_bytes(b"{}")
    files = json.loads((bundle / MANIFEST).read_bytes())["files"]
    files[name] = {"bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    _reseal(bundle, files=files)
    assert "no plain path inside the bundle" in verify_bundle(bundle)[0]


@pytest.mark.parametrize("name", ["head.pkl", "pytorch_model.bin", "model.pt", "run.py"])
def test_a_file_that_could_run_code_has_no_place_even_when_listed(bundle: Path, name: str) -> None:
    _list(bundle, name, pickle.dumps({"weights": 1}))
    assert "has no place in a bundle" in verify_bundle(bundle)[0]


def test_a_model_with_data_in_another_file_is_refused(bundle: Path) -> None:
    def point_outside(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")

    _replace_model(bundle, point_outside)
    assert "keeps its data in another file" in verify_bundle(bundle)[0]


def test_external_data_inside_a_constant_of_a_subgraph_is_found(bundle: Path) -> None:
    def hide(model: onnx.ModelProto) -> None:
        tensor = onnx.numpy_helper.from_array(np.zeros(4, np.float32), "hidden")
        tensor.external_data.add(key="location", value="secret")
        constant = onnx.helper.make_node("Constant", [], ["value"], value=tensor)
        branch = onnx.helper.make_graph([constant], "branch", [], [])
        model.graph.node.append(onnx.helper.make_node("If", ["x"], ["y"], then_branch=branch))

    _replace_model(bundle, hide)
    assert "tensor 'hidden' keeps its data in another file" in verify_bundle(bundle)[0]


def test_a_tensor_larger_than_its_file_is_refused(bundle: Path) -> None:
    def inflate(model: onnx.ModelProto) -> None:
        model.graph.initializer[0].dims[:] = [1 << 40, 1 << 20]

    _replace_model(bundle, inflate)
    assert "claims 1152921504606846976 elements" in verify_bundle(bundle)[0]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x3a\xff\xff\xff\xff\x0f", b"\x80" * 20])
def test_a_listed_model_that_is_no_model_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MODEL_FILES["int8"]).write_bytes(content)
    _list(bundle, MODEL_FILES["int8"], content)
    assert "model_quantized.onnx" in verify_bundle(bundle)[0]


def test_a_newer_format_asks_for_an_upgrade(bundle: Path) -> None:
    _reseal(bundle, format=2, something_new=True)
    assert "format 2 is newer than 1; upgrade potstill" in verify_bundle(bundle)[0]


def test_a_number_edited_by_hand_is_refused(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"temperature": 1.3', '"temperature": 1.4'))
    assert "was changed after it was written" in verify_bundle(bundle)[0]


@pytest.mark.parametrize("content", [b"[]", b"{}", b"\xff", b'{"temperature": NaN}', b"[" * 100_000])
def test_a_manifest_that_is_no_manifest_is_one_problem(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    assert [MANIFEST in problem for problem in verify_bundle(bundle)] == [True]


def test_a_folder_that_is_no_bundle_says_what_to_pass(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="pass the folder that `distill run` calls bundle"):
        read_manifest(tmp_path)
    assert len(verify_bundle(tmp_path)) == 1


def test_labels_in_another_order_than_the_config_are_found(bundle: Path) -> None:
    _reseal(bundle, labels=["payment", "delivery", "size"])
    assert "the same names in another order" in verify_bundle(bundle)[0]


def test_a_checkpoint_with_other_labels_is_refused_before_anything_is_written(
    tiny_classifier: Path, tiny_models: dict[Any, Path], tmp_path: Path
) -> None:
    other = replace(DRAFT, labels=("delivery", "payment", "weather"))
    with pytest.raises(BundleError, match="size, weather"):
        write_bundle(tiny_classifier, tiny_models, tmp_path / "bundle", other, QUALITY)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_in_use_is_not_overwritten(
    tiny_classifier: Path, tiny_models: dict[Any, Path], tmp_path: Path
) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(BundleError, match="wanted an empty folder"):
        write_bundle(tiny_classifier, tiny_models, tmp_path, DRAFT, QUALITY)
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


def test_a_precision_without_its_model_is_refused(
    tiny_classifier: Path, tiny_models: dict[Any, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="no int8 model"):
        write_bundle(tiny_classifier, {"fp32": tiny_models["fp32"]}, tmp_path / "bundle", DRAFT, QUALITY)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"temperature": 0.0}, r"`float` > 0.0 - at `\$.temperature`"),
        ({"labels": []}, r"length >= 1 - at `\$.labels`"),
        ({"max_tokens": "48"}, r"Expected `int`, got `str` - at `\$.max_tokens`"),
        ({"abstain": {"accuracy": 2.0}}, "abstain"),
        ({"weather": "fine"}, "unknown field `weather`"),
        ({"answers": {"int8": [{"text": "a", "label": "b", "probability": 0.5}]}}, "none of the labels"),
    ],
)
def test_a_manifest_out_of_bounds_is_refused_and_says_where(bundle: Path, changes: Any, said: str) -> None:
    _reseal(bundle, **changes)
    with pytest.raises(BundleError, match=said):
        read_manifest(bundle)


def test_writing_a_manifest_that_no_loader_takes_is_an_error(
    tiny_classifier: Path, tiny_models: dict[Any, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="temperature"):
        write_bundle(tiny_classifier, tiny_models, tmp_path / "bundle", replace(DRAFT, temperature=0.0), QUALITY)


def test_numbers_of_numpy_are_written_as_plain_ones(
    tiny_classifier: Path, tiny_models: dict[Any, Path], tmp_path: Path
) -> None:
    gate = Gate("quality_drop", np.float64(0.25), 0.5, np.bool_(True), "by numpy")  # type: ignore[arg-type]
    draft = replace(DRAFT, gates=(gate,), export={"threads": np.int64(2)})
    manifest = write_bundle(tiny_classifier, tiny_models, tmp_path / "bundle", draft, QUALITY)
    assert manifest.gates == (Gate("quality_drop", 0.25, 0.5, True, "by numpy"),)
    assert manifest.export == {"threads": 2}


def test_a_value_that_json_does_not_have_is_refused(
    tiny_classifier: Path, tiny_models: dict[Any, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="a value of type object, wanted plain JSON"):
        write_bundle(
            tiny_classifier, tiny_models, tmp_path / "bundle", replace(DRAFT, export={"at": object()}), QUALITY
        )


def test_thresholds_must_name_every_label() -> None:
    with pytest.raises(ValueError, match="different labels") as caught:
        replace(DRAFT, thresholds={"delivery": 0.5})
    assert "thresholds" in str(caught.value)


def test_the_tokenizer_of_a_bundle_has_no_white_space_between_its_tokens(tiny_bundle: Path, tiny_encoder: Path) -> None:
    written, original = (
        (folder / "tokenizer.json").read_text(encoding="utf-8") for folder in (tiny_bundle, tiny_encoder)
    )
    assert json.loads(written) == json.loads(original)
    assert len(written) < len(original)
    assert "\n" not in written
