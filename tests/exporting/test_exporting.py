"""Exports of a trained model: the files, their use, and what is refused."""

import contextlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.exporting.drawn import draw, save_network

import pixelwise
from pixelwise import api
from pixelwise.errors import ConfigError, DataError, ModelFileError, OutputExistsError, ParityError, UsageError
from pixelwise.exporting import files, parity
from pixelwise.exporting.export import FILES
from pixelwise.inference.backend import open_backend
from pixelwise.inference.exported import exported_file
from pixelwise.inference.openvino_backend import supports_bf16
from pixelwise.inference.predictor import Predictor

ENGINES = {"onnx": ("onnxruntime", "openvino"), "openvino": ("openvino",), "torch-export": ()}
MODELS = {"onnx": {"model.onnx"}, "openvino": {"model.xml", "model.bin"}, "torch-export": {"model.pt2"}}
TEXTS = {"model.json", "parity.json", "LICENSES.txt", "README.md"}


@pytest.fixture(scope="module")
def run(discs, tiny, tmp_path_factory):
    """A run that has learnt the discs."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    overrides = [*tiny, "train.validations=1", "evaluate.metrics=[]", "evaluate.report=false"]
    pixelwise.train(discs, out=folder, steps=100, overrides=overrides)
    return folder


@pytest.fixture(scope="module", autouse=True)
def converted_once():
    """Convert each network once, since it takes seconds."""
    known, convert = {}, files.to_onnx

    def remembered(model, card, *, with_mask=False):
        key = (card.sha256, with_mask)
        known[key] = known.get(key) or convert(model, card, with_mask=with_mask)
        return known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "to_onnx", remembered)
        patch.setattr(parity, "_PAUSE", 0)
        patch.setitem(parity.MIOU_LOSS, "int8", 0.05)  # the network has learnt for seconds only
        yield


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Return the folder of an export, made once."""
    made = {}

    def export(format, precision="fp32", with_mask=False):
        key = (format, precision, with_mask)
        if key not in made:
            out = tmp_path_factory.mktemp("exported") / "model"
            made[key] = api.export(run, format=format, out=out, precision=precision, with_mask=with_mask)
        return made[key]

    return export


def logits_of(folder, batch, format):
    if format == "torch-export":
        return parity.ProgramBackend(folder / "model.pt2")(batch)
    return open_backend(folder, ENGINES[format][0])(batch)


@pytest.mark.parametrize("format", FORMATS := list(ENGINES))
def test_a_folder_holds_the_model_and_its_description(exported, run, format):
    result = exported(format)
    assert set(result.files) == {path.name for path in result.out.iterdir()} == MODELS[format] | TEXTS
    assert set(result.files) <= set(FILES)
    assert result.bytes == sum((result.out / name).stat().st_size for name in MODELS[format])
    proof = json.loads((result.out / "parity.json").read_text())
    assert proof == result.parity == result.to_dict()["parity"]
    assert (proof["format"], proof["precision"]) == (format, "fp32")
    assert proof["images"] == f"4 images of the val split of {Path(api.load(run).card.trained['data']).name}"
    assert proof["machine"]["processor"]
    required = [engine for engine in proof["engines"] if engine["required"]]
    assert {engine["engine"] for engine in required} == set(ENGINES[format] or ("torch",))
    for engine in required:
        assert engine["within_tolerance"]
        assert engine["different_pixels"] <= 1e-4
        assert engine["largest_logit_difference"] < 1e-3 * engine["largest_logit"]
        assert engine["miou_difference"] == pytest.approx(0, abs=1e-3)
        assert engine["speed_ratio"] > 0


@pytest.mark.parametrize("format", FORMATS)
def test_any_size_and_batch_gives_the_logits_of_the_model(exported, run, format):
    original = open_backend(run / "model", "torch", device="cpu")
    for shape in [(1, 3, 1, 1), (3, 3, 33, 17), (1, 3, 97, 51), (3, 3, 5, 127)]:
        batch = draw(shape)
        np.testing.assert_allclose(logits_of(exported(format).out, batch, format), original(batch), atol=2e-4)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_predictor_opens_a_folder_and_a_file(exported, run, engine):
    image = draw((3, 70, 45))
    expected = api.load(run).predict(image).mask
    folder = exported("onnx").out
    for place in (folder, folder / "model.onnx"):
        prediction = Predictor(open_backend(place, engine))(image)
        assert (prediction.mask == expected).all()
        assert prediction.labels == api.load(run).labels


@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_the_example_in_the_readme_runs(exported, run, format, with_mask, tmp_path, monkeypatch):
    from PIL import Image

    result = exported(format, with_mask=with_mask)
    text = (result.out / "README.md").read_text(encoding="utf-8")
    code = text.partition("```python\n")[2].partition("```")[0]
    assert len(code.splitlines()) == 5
    monkeypatch.chdir(result.out)
    image = draw((40, 53, 3))
    Image.fromarray(image).save("image.png")
    names = {}
    try:
        exec(code, names)
    finally:
        Path("image.png").unlink()
    # By default, OpenVINO computes in bf16 where the processor does.
    least = 0.9 if format == "openvino" else 0.999
    assert (names["mask"] == api.load(run).predict(image.transpose(2, 0, 1)).mask).mean() > least
    assert all(line in text for line in ("0 background", "1 disc"))
    assert "Apache-2.0" in (result.out / "LICENSES.txt").read_text()


@pytest.mark.parametrize("format", FORMATS)
def test_the_mask_is_the_largest_logit(exported, format):
    batch = draw((3, 3, 31, 45)).astype(np.float32)
    folder = exported(format, with_mask=True).out
    if format == "onnx":
        import onnxruntime

        logits, mask = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"images": batch})
    elif format == "openvino":
        import openvino

        logits, mask = openvino.compile_model(folder / "model.xml", "CPU")(batch).values()
    else:
        import torch

        logits, mask = (
            t.detach().numpy() for t in torch.export.load(folder / "model.pt2").module()(torch.tensor(batch))
        )
    assert mask.dtype == np.uint8
    assert mask.shape == (3, 31, 45)
    assert (mask == logits.argmax(1)).all()


@pytest.mark.parametrize("format", FORMATS)
def test_files_name_no_path_of_this_machine(exported, run, format):
    words = [str(Path(pixelwise.__file__).parents[2]), "site-packages", str(run.parent)]
    contents = []
    for path in exported(format).out.iterdir():
        contents.append(path.read_bytes())
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                contents += [archive.read(name) for name in archive.namelist()]
    assert not [word for word in words if any(word.encode() in content for content in contents)]


def test_programs_of_torch_contain_no_pickle(exported):
    import pickletools

    with zipfile.ZipFile(exported("torch-export").out / "model.pt2") as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert not content.startswith(b"PK\x03\x04"), name  # torch.save
            with pytest.raises(ValueError):  # noqa: PT012 - each operation may be the invalid one
                for _ in pickletools.genops(content):
                    pass
                assert not content.startswith(b"\x80"), name
                raise ValueError


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_half_precision_halves_the_weights(exported, format):
    plain, half = exported(format), exported(format, "fp16")
    weights = "model.onnx" if format == "onnx" else "model.bin"
    assert (half.out / weights).stat().st_size < (0.8 if format == "onnx" else 0.6) * (
        plain.out / weights
    ).stat().st_size
    for engine in half.parity["engines"]:
        assert not engine["required"] or engine["largest_logit_difference"] > 0
        assert not engine["required"] or engine["within_tolerance"]
    if format == "onnx":
        import onnx

        weights = {
            t.name: t.data_type for t in onnx.load(half.out / "model.onnx").graph.initializer if len(t.dims) == 4
        }
        assert set(weights.values()) == {onnx.TensorProto.FLOAT16}


def test_weights_beyond_half_precision_stay_in_full():
    import onnx

    values = np.array([[1e5, 1.0]], np.float32)
    small = np.array([[2.0], [3.0]], np.float32)
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", ["images", "a"], ["x"]), helper.make_node("MatMul", ["x", "b"], ["logits"])]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 1]) for name in ("images", "logits")]
    tensors = [onnx.numpy_helper.from_array(t, name) for t, name in ((values, "a"), (small, "b"))]
    proto = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors))
    files._store_in_half_precision(proto)
    onnx.checker.check_model(proto)
    kinds = {tensor.name: tensor.data_type for tensor in proto.graph.initializer}
    assert kinds == {"a": onnx.TensorProto.FLOAT, "b_fp16": onnx.TensorProto.FLOAT16}


def test_bf16_is_compared_in_bf16_or_refused(run, tmp_path, monkeypatch):
    if not supports_bf16():
        with pytest.raises(ConfigError, match="expected a processor with bf16 instructions"):
            api.export(run, format="openvino", precision="bf16", out=tmp_path / "o")
        return
    monkeypatch.setattr(parity, "SHARES", {"bf16": 0.1})  # the network has learnt for seconds only
    monkeypatch.setattr(parity, "MASK_MIOU", {"bf16": 0.8})
    result = api.export(run, format="openvino", precision="bf16", out=tmp_path / "o")
    engines = {engine["precision"]: engine for engine in result.parity["engines"]}
    assert engines["bf16"]["required"]
    assert not engines["fp32"]["required"]
    assert engines["bf16"]["largest_logit_difference"] > engines["fp32"]["largest_logit_difference"]


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8_is_calibrated_on_the_training_split_and_scored_on_the_validation_split(exported, run, format, capfd):
    result = exported(format, "int8")
    assert result.parity["calibration"].startswith("12 images of the train split")
    assert result.parity["images"].startswith("4 images of the val split")
    required = [engine for engine in result.parity["engines"] if engine["required"]]
    assert {engine["engine"] for engine in required} == {ENGINES[format][0]}
    assert all(engine["miou"] > engine["reference_miou"] - 0.05 for engine in required)
    for engine in ENGINES[format]:
        image = draw((3, 33, 47))
        mask = Predictor(open_backend(result.out, engine))(image).mask
        assert (mask == api.load(run).predict(image).mask).mean() > 0.8
    assert capfd.readouterr() == ("", "")


def test_the_first_convolution_and_the_head_stay_in_float_in_onnx(exported):
    import onnx

    graph = onnx.load(exported("onnx", "int8").out / "model.onnx").graph
    made_by = {name: node.op_type for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    assert len(products) == 13
    quantised = [made_by.get(node.input[1]) == "DequantizeLinear" for node in products]
    assert quantised == [False, *[True] * 11, False]


def test_the_first_convolution_and_the_head_stay_in_float_in_openvino(exported):
    import openvino

    network = openvino.Core().read_model(exported("openvino", "int8").out / "model.xml")
    kinds = ("Convolution", "ConvolutionBackpropData")
    products = [operation for operation in network.get_ordered_ops() if operation.get_type_name() in kinds]
    assert len(products) == 13
    # Int8 weights are converted to float and multiplied by their scale; others are constants.
    quantised = [product.input_value(1).get_node().get_type_name() != "Constant" for product in products]
    assert quantised == [False, *[True] * 11, False]


def test_int8_without_images_is_refused_with_the_reason(tmp_path):
    model = save_network(tmp_path / "model")
    with pytest.raises(DataError) as caught:
        api.export(model, format="onnx", precision="int8", out=tmp_path / "o")
    assert str(caught.value) == (
        "--precision int8: expected images to measure the ranges of values, and images with masks to check the result, "
        "found none: this is no run folder, and --data is not given. Name a data set with the same classes with --data, "
        "or use --precision fp16."
    )
    assert not (tmp_path / "o").exists()


def test_lost_data_of_a_run_is_reported(run, tmp_path):
    import shutil

    moved = shutil.copytree(run, tmp_path / "run")
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace(str(api.load(run).card.trained["data"]), "nowhere"))
    with pytest.raises(DataError, match=r"found .*nowhere.*Name a data set with the same classes with --data"):
        api.export(moved, format="onnx", precision="int8", out=tmp_path / "o")
    result = api.export(moved, format="onnx", out=tmp_path / "o")
    assert result.parity["images"].startswith("2 drawn images")
    assert "the data of the run cannot be opened" in result.notices[0]


def test_named_data_is_used(run, discs, tmp_path):
    result = api.export(run / "model", format="onnx", out=tmp_path / "o", data=discs, overrides=["data.split.seed=3"])
    assert result.parity["images"] == f"4 images of the val split of {discs.name}"
    with pytest.raises(UsageError, match="expected a key of data"):
        api.export(run, format="onnx", out=tmp_path / "p", overrides=["train.steps=3"])
    with pytest.raises(DataError):
        api.export(run, format="onnx", out=tmp_path / "p", data=tmp_path / "missing")


def test_data_with_other_classes_is_refused(discs, tmp_path):
    with pytest.raises(DataError, match="expected the model's classes ground, water"):
        api.export(save_network(tmp_path / "model"), format="onnx", out=tmp_path / "o", data=discs)


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [
        (4, "uint16"),
        (1, "uint8"),
        pytest.param(1, "float32", marks=pytest.mark.slow),
        pytest.param(4, "uint8", marks=pytest.mark.slow),
    ],
)
def test_other_bands_and_pixel_types(channels, dtype, tmp_path, monkeypatch):
    import tifffile
    from PIL import Image

    model = save_network(tmp_path / "model", channels, dtype)
    image = draw((37, 50, channels), dtype)
    expected = api.load(model).predict(image.transpose(2, 0, 1)).mask
    for format, engines in ENGINES.items():
        result = api.export(model, format=format, out=tmp_path / format)
        for engine in engines:
            assert (
                Predictor(open_backend(result.out, engine))(image.transpose(2, 0, 1)).mask == expected
            ).mean() > 0.999
        monkeypatch.chdir(result.out)
        if (channels, dtype) == (1, "uint8"):
            Image.fromarray(image[..., 0]).save("image.png")
        else:
            tifffile.imwrite("image.tif", image, photometric="minisblack")
        names = {}
        exec((result.out / "README.md").read_text().partition("```python\n")[2].partition("```")[0], names)
        assert (names["mask"] == expected).mean() > (0.9 if format == "openvino" else 0.999)


def test_deepness_gets_the_masks_of_the_model(run, tmp_path, monkeypatch):
    import onnxruntime

    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    code = page.partition("## QGIS Deepness")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "run").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    session = onnxruntime.InferenceSession("deepness.onnx")
    assert session.get_inputs()[0].shape[2:] == [512, 512]
    facts = {key: json.loads(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    image = draw((512, 512, 3))
    # As Deepness prepares tiles and decides.
    mean, std = (np.float32(facts[f"standardization_{name}"]) for name in ("mean", "std"))
    tile = ((np.float32(image * 1.0 / 255.0) - mean) / std).transpose(2, 0, 1)[None]
    [outputs] = session.run(None, {session.get_inputs()[0].name: tile})
    np.testing.assert_allclose(outputs.sum(1), 1, rtol=1e-5)
    outputs[outputs < facts["seg_thresh"]] = 0
    assert (outputs.argmax(1)[0] == api.load(run).predict(image.transpose(2, 0, 1)).mask).mean() > 0.999


# Outputs


@pytest.mark.parametrize("format", FORMATS)
def test_a_single_file_may_be_named(run, exported, format, tmp_path):
    suffix = files.FORMATS[format].suffix
    out = tmp_path / "new" / f"roads{suffix}"
    result = api.export(run, format=format, out=out)
    names = {name.replace("model.", "roads.") for name in MODELS[format]}
    assert {path.name for path in out.parent.iterdir()} == names == set(result.files)
    assert result.parity["engines"][0]["within_tolerance"]
    if format != "torch-export":
        assert exported_file(out) == out
        assert open_backend(out, "openvino")(draw((1, 3, 20, 30))).shape == (1, 2, 20, 30)
    with pytest.raises(OutputExistsError, match="add --overwrite"):
        api.export(run, format=format, out=out)
    if format == "onnx":
        api.export(run, format=format, out=out, overwrite=True)


def test_only_earlier_exports_are_replaced(run, exported, tmp_path):
    with pytest.raises(OutputExistsError):
        api.export(run, format="onnx", out=run / "model", overwrite=True)
    assert (run / "model" / "model.safetensors").is_file()
    out = tmp_path / "o"
    api.export(run, format="openvino", out=out)
    with pytest.raises(OutputExistsError, match="add --overwrite"):
        api.export(run, format="onnx", out=out)
    api.export(run, format="onnx", out=out, overwrite=True)
    assert {path.name for path in out.iterdir()} == MODELS["onnx"] | TEXTS


def test_an_export_is_not_exported_again(exported, tmp_path):
    for place in (exported("onnx").out, exported("onnx").out / "model.onnx"):
        with pytest.raises(ModelFileError, match=r"found an exported model\. Export the model that it was made from"):
            api.export(place, format="openvino", out=tmp_path / "o")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"format": "onx"},
            r"--format: expected one of onnx, openvino, torch-export, found 'onx'\. Did you mean 'onnx'",
        ),
        ({"format": "onnx", "precision": "int4"}, r"--precision: expected one of fp32, fp16, bf16, int8, found 'int4'"),
        ({"format": "onnx", "precision": "bf16"}, r"expected fp32, fp16, int8 for onnx, found bf16: ONNX Runtime does"),
        (
            {"format": "torch-export", "precision": "int8"},
            r"expected fp32 for torch-export, found int8: .*torch.autocast",
        ),
        (
            {"format": "onnx", "out": "a.xml"},
            r"--out: expected a folder, or a \.onnx file, for --format onnx, found a\.xml",
        ),
    ],
)
def test_wrong_options_are_refused_before_the_model_is_opened(options, message):
    with pytest.raises(UsageError, match=message):
        api.export("no-model", **({"out": "o"} | options))


@pytest.mark.parametrize("out", ["o", "o.onnx"])
def test_nothing_is_written_if_the_masks_differ(run, out, tmp_path, monkeypatch):
    real = parity.open_backend

    class Wrong:
        def __init__(self, *args, **options):
            self._real = real(*args, **options)

        def __call__(self, batch):
            logits = self._real(batch)
            logits[:, :, 0] = -logits[:, :, 0]
            return logits

    api.export(run, format="onnx", out=tmp_path / out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(parity, "open_backend", Wrong)
    for place, overwrite in ((tmp_path / f"new-{out}", False), (tmp_path / out, True)):
        with pytest.raises(ParityError) as caught:
            api.export(run, format="onnx", out=place, overwrite=overwrite)
        assert caught.value.exit_code == 1
        assert "% equal pixels instead of 99.99 %" in str(caught.value)
        assert "Nothing was written" in str(caught.value)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_stages_are_reported(run, tmp_path):
    seen = []
    api.export(run, format="onnx", precision="int8", out=tmp_path / "o", progress=lambda *stage: seen.append(stage))
    assert seen[0] == ("converting", 0, 1)
    assert ("measuring ranges for int8", 12, 12) in seen
    assert seen[-1] == ("comparing", 4, 4)


# NNCF

_QUIET = """
import logging, socket, sys
def refuse(*_, **__):
    raise AssertionError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = socket.create_connection = socket.getaddrinfo = refuse
kind = logging.getLoggerClass()
import numpy as np, onnx
from pixelwise.exporting.quantisation import FloatScope, quantised
helper = onnx.helper
weights = [np.random.default_rng(k).normal(size=(3, 3, 3, 3)).astype(np.float32) for k in range(2)]
nodes = [helper.make_node("Conv", [a, b], [c], c, pads=[1] * 4) for a, b, c in (("images", "u", "x"), ("x", "v", "logits"))]
ends = [helper.make_tensor_value_info(name, 1, [1, 3, 32, 32]) for name in ("images", "logits")]
tensors = [onnx.numpy_helper.from_array(array, name) for array, name in zip(weights, "uv")]
proto = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors), opset_imports=[helper.make_opsetid("", 20)])
images = [np.random.default_rng(k).integers(0, 255, (3, 32, 32)).astype(np.float32) for k in range(2)]
def quantise():
    nodes = quantised(proto, FloatScope((), False), images).graph.node
    assert any(node.op_type == "DequantizeLinear" for node in nodes)
quantise()
assert "openvino_telemetry" not in sys.modules
import nncf.telemetry.decorator as decorator, nncf.telemetry.wrapper as wrapper
assert not isinstance(wrapper.telemetry, wrapper.NNCFTelemetry)
assert logging.getLoggerClass() is kind
class Sender:
    def __getattr__(self, name):
        refuse()
sender = decorator.telemetry = Sender()  # as if another part of the program had imported NNCF
quantise()
assert decorator.telemetry is sender
assert logging.root.manager.disable == 0
"""


def test_nncf_sends_nothing_and_prints_nothing():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _QUIET], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_missing_nncf_is_named(monkeypatch):
    from pixelwise.exporting.quantisation import quiet_nncf

    for name in ("nncf", "nncf.telemetry", "nncf.telemetry.decorator"):
        monkeypatch.setitem(sys.modules, name, None)
    with (
        pytest.raises(ConfigError, match=r"found it is not installed\. Run: pip install 'pixelwise\[export\]'"),
        quiet_nncf(),
    ):
        pass
    with contextlib.redirect_stdout(io.StringIO()) as text:
        print("shown")
    assert text.getvalue() == "shown\n"
