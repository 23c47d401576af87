"""Export: the SavedModel gives what the Python model gives, in a process that has neither it nor Keras."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import saved_model_pb2

import haim_tf
from haim_tf import sampling, saved_model
from haim_tf.sampling import seed_pairs
from haim_tf.saved_model.pictures import decode_image

RNG = np.random.default_rng(0)
DECODER = {"width": 4, "blocks": 1, "heads": 1, "dropout": 0.5, "condition_width": 4, "condition_blocks": 1}
LEVEL = {"downsampling": 2, "codebook_size": 6, "code_dim": 3, "width": 4, "blocks": 1, "decoder": DECODER}
TOLD = {**LEVEL, "decoder": {**DECODER, "labels": True, "label_dropout": 0.1}}
PRIOR = {"width": 4, "blocks": 1, "heads": 1, "attention": [0], "label_dropout": 0.1}
SAMPLING = {"temperature": [0.8, 0.4, 0.6], "top_p": [1.0, 0.7, 0.9], "guidance": 4.0}
COUNT = 6
# Signatures that are others by another name: the very same program.
ALIKE = {"serving_default": "sample", "decode": "decode_level_2", "reconstruct": "reconstruct_level_1"}

# Runs where haim_tf and keras cannot be imported. Arguments: the version folder and an .npz file with the
# inputs of each signature as `signature/name`. It writes the outputs, likewise named, to a second .npz file:
# for the whole batch, of some for example 0 alone (`alone/...`), and prints what it found.
PROBE = """
import json, sys
class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("haim_tf", "keras", "tf_keras"):
            raise ImportError(f"{name} is forbidden here")
import numpy as np, tensorflow as tf
# tensorflow brings keras along by itself: forget it, and see that nothing below asks for it.
for name in [name for name in sys.modules if name.split(".")[0] == "keras"]:
    del sys.modules[name]
sys.meta_path.insert(0, Forbid())
folder, given, written = sys.argv[1:]
loaded = tf.saved_model.load(folder)
inputs, outputs = {}, {}
for key, array in np.load(given, allow_pickle=True).items():
    signature, name = key.split("/")
    inputs.setdefault(signature, {})[name] = array
for signature, arrays in inputs.items():
    # Each is compiled for a batch of one as well: of those that draw it is enough to try one.
    alone = signature in ("sample", "encode", "encode_bytes", "log_prob")
    for prefix, part in (("", slice(None)), ("alone/", slice(0, 1)))[: 1 + alone]:
        tensors = {name: tf.constant(array[part]) for name, array in arrays.items()}
        for name, tensor in loaded.signatures[signature](**tensors).items():
            outputs[f"{prefix}{signature}/{name}"] = tensor.numpy()
np.savez(written, **outputs)
print(json.dumps({
    "signatures": sorted(loaded.signatures),
    "variables": len(loaded.weights),
    "modules": sorted({name.split(".")[0] for name in sys.modules} & {"haim_tf", "keras", "tf_keras"}),
}))
"""


def make_model(**arguments):
    arguments = {
        "image_shape": (8, 8, 3),
        "levels": [LEVEL, LEVEL],
        "prior": PRIOR,
        "num_classes": 3,
    } | arguments
    model = haim_tf.HierarchicalModel(**arguments, mixtures=2)
    # A fresh network predicts nearly the same whatever it sees.
    for weight in model.weights:
        if len(weight.shape) > 1:
            weight.assign(RNG.normal(0, 0.4, weight.shape))
    for network in model.networks:
        if network.num_classes:  # Labels weigh enough for guidance to tell.
            network.embed_label.embeddings.assign(5 * network.embed_label.embeddings)
    return model


def png(image):
    Image.fromarray(image.squeeze()).save(file := io.BytesIO(), format="PNG")
    return file.getvalue()


def probe(python, folder, inputs, path):
    """The outputs of an exported model in a process of its own, and what that process says of it."""
    flat = {f"{signature}/{name}": x for signature, arrays in inputs.items() for name, x in arrays.items()}
    np.savez(path / "inputs.npz", **flat)
    done = subprocess.run(
        [python, "-I", "-c", PROBE, folder, path / "inputs.npz", path / "outputs.npz"],
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"TF_CPP_MIN_LOG_LEVEL": "2"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(path / "outputs.npz", allow_pickle=True) as outputs:
        return dict(outputs), json.loads(done.stdout.splitlines()[-1])


def called_by_signatures(version):
    """By signature, what the file says that it calls: the function, with which inputs and weights, for which
    outputs."""
    (saved,) = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs
    nodes = {node.name: node for node in saved.graph_def.node}
    functions = {function.signature.name: function for function in saved.graph_def.library.function}
    found = {}
    for key, signature in saved.signature_def.items():
        if key.startswith("__"):
            continue
        places = {output.name.split(":")[0] for output in signature.outputs.values()}
        (node,) = (nodes[place] for place in places)
        wrapper = functions[node.attr["f"].func.name]
        (call,) = (inner for inner in wrapper.node_def if inner.op.endswith("PartitionedCall"))
        names = {value.name.split(":")[0]: name for name, value in signature.inputs.items()}
        inputs = [names.get(place, place) for place in node.input]
        outputs = {name: output.name.split(":")[1] for name, output in signature.outputs.items()}
        returned = sorted(wrapper.ret.items())
        found[key] = call.attr["f"].func.name, list(call.input), inputs, outputs, returned
    return found


def inputs_of(model):
    """Valid inputs of every signature, but for example 3: its inputs are out of range where they can be.

    -1 is the model's own value: of all at once in example 5, and in 1 and 2 beside others.
    """
    images = RNG.integers(0, 256, (COUNT, *model.image_shape), "uint8")
    labels = np.array([2, 0, 1, -1, 1, 2], "int32")
    sampling = {
        "seed": seed_pairs(7, COUNT),
        "temperature": np.array([1.0, 0.7, -1.0, np.nan, 0.0, -1.0], "float32"),
        "top_p": np.array([1.0, -1.0, 0.8, 1.0, 1.0, -1.0], "float32"),
    }
    guidance = {"guidance": np.array([1.0, 2.5, 0.0, 1.0, -1.0, -1.0], "float32")}
    inputs = {
        "serving_default": {"label": labels, **sampling, **guidance},
        "sample": {"label": labels, **sampling, **guidance},
        "log_prob": {"image": images, "label": labels},
        "encode": {"image": images},
        "encode_bytes": {"image_bytes": np.array([png(x) for x in images], object)},
        "reconstruct": {"image": images, **sampling},
    }
    for level in (1, 2):
        codes = RNG.integers(0, model.codebook_sizes[level - 1], (COUNT, *model.grid_shapes[level]), "int32")
        codes[3, 0, 0] = 99
        told = {}
        if level == 2:  # Its decoder takes the label, -1 where there is none.
            told = {"label": np.array([2, 0, -1, 3, 1, -1], "int32"), **guidance}
        inputs[f"decode_level_{level}"] = {f"codes_{level}": codes, **sampling, **told}
        inputs[f"reconstruct_level_{level}"] = {"image": images, **sampling, **told}
    inputs["decode"] = inputs["decode_level_2"]
    return inputs


def check_against(model, inputs, outputs):
    """Every signature's outputs equal the Python model's, example 3 aside, whether alone or in a batch."""
    valid = np.array([0, 1, 2, 4, 5])
    for signature, given in inputs.items():
        found = {key.split("/")[1]: x for key, x in outputs.items() if key.startswith(f"{signature}/")}
        alone = {key.split("/")[2]: x for key, x in outputs.items() if key.startswith(f"alone/{signature}/")}
        assert alone or signature.startswith(("serving", "decode", "reconstruct"))
        if "encode" in signature:
            codes = model.encode(inputs["encode"]["image"])
            assert len(found) == len(codes)  # In any order: a SavedModel keeps names only.
            for level, expected in enumerate(codes, start=1):
                np.testing.assert_array_equal(found[f"codes_{level}"], expected)
        elif signature == "log_prob":
            bits = model.bits_per_dim(given["image"][valid], given["label"][valid], per_level=True)
            expected = {f"bits_per_dim_{name}": x for name, x in bits.items() if name != "total"}
            expected["bits_per_dim"] = bits["total"]
            expected["log_prob"] = model.log_prob(given["image"][valid], given["label"][valid])
            assert expected.keys() == found.keys()
            for name, values in expected.items():
                np.testing.assert_allclose(found[name][valid], values, rtol=1e-4)
                assert np.isnan(found[name][3])
        else:
            images = expected_images(model, signature, given, valid)
            np.testing.assert_array_equal(found["image"][valid], images)
            decoded = [np.asarray(Image.open(io.BytesIO(file))) for file in found["image_bytes"][valid]]
            np.testing.assert_array_equal(np.reshape(decoded, images.shape), images)
            assert found["image_bytes"][3] == b"" and not found["image"][3].any()
        for name, x in alone.items():
            if x.dtype == np.float32:
                np.testing.assert_allclose(x, found[name][:1], rtol=1e-5)
            else:
                np.testing.assert_array_equal(x, found[name][:1])


def expected_images(model, signature, given, rows):
    """What the Python model samples, one example at a time; its own values where it is not told others."""
    codes = level = None
    if not signature.startswith(("sample", "serving")):
        level = (
            int(signature[-1]) if signature[-1].isdecimal() else {"decode": 2, "reconstruct": 1}[signature]
        )
        codes = given.get(f"codes_{level}")
        codes = model.encode(given["image"])[level - 1] if codes is None else codes
    images = np.zeros((len(rows), *model.image_shape), "uint8")
    for target, i in enumerate(rows):
        settings = {name: float(given[name][i]) for name in SAMPLING if name in given}
        settings = {name: value for name, value in settings.items() if value != -1}
        seed = given["seed"][i : i + 1]
        if level:
            label = given["label"][i] if "label" in given and given["label"][i] >= 0 else None
            if label is None:  # There is nothing to move away from.
                settings.pop("guidance", None)
            images[target] = model.decode(codes[i : i + 1], level, seed, labels=label, **settings)[0]
        else:
            images[target] = model.sample(1, given["label"][i : i + 1], seed, **settings)[0]
    return images


@pytest.fixture(scope="module")
def model():
    model = make_model(levels=[LEVEL, TOLD])
    model.sampling_defaults = SAMPLING
    model.freeze("codes")  # As one that is being fine-tuned.
    model.compile()
    return model


@pytest.fixture(scope="module")
def version(model, tmp_path_factory):
    return saved_model.export(model, tmp_path_factory.mktemp("exports") / "tiny", batch_sizes=[2, 1])


def test_every_signature_gives_the_same_without_haim_tf_and_keras(model, version, tmp_path):
    inputs = inputs_of(model)
    called = called_by_signatures(version)
    for other, one in ALIKE.items():  # Compiled once more, it would give the same.
        assert called[other] == called[one], other
        del inputs[other]
    assert len({function for function, *_ in called.values()}) == len(inputs)
    outputs, found = probe(sys.executable, version, inputs, tmp_path)
    assert found["modules"] == []
    assert found["signatures"] == sorted([*inputs, *ALIKE])
    check_against(model, inputs, outputs)
    given = {name: x[5:] for name, x in inputs["sample"].items()}
    for one in ({"temperature": 1.0}, {"top_p": 1.0}, {"guidance": 1.0}):  # Each of the own values tells.
        other = model.sample(1, given["label"], given["seed"], **one)
        assert (other != outputs["sample/image"][5]).any(), one
    # Encoders, codebooks, main decoders and prior, and nothing that only training needs.
    used = [v for a in model.autoencoders for v in (*a.encoder.weights, a.quantizer.codebook)]
    used += [v for network in model.networks for v in network.weights]
    assert found["variables"] == len(used) < len(model.weights)


def test_the_version_folder(model, version):
    assert version.name == "1"
    assert sorted(path.name for path in version.parent.iterdir()) == ["1"]
    description = json.loads((version / "assets.extra/haim_tf.json").read_text())
    assert description["image_shape"] == [8, 8, 3] and description["codebook_sizes"] == [6, 6]
    assert description["code_grids"] == [[4, 4], [2, 2]] and description["batch_sizes"] == [1, 2]
    assert description["name"] == "tiny"
    assert description["sampling"] == model.sampling_defaults
    for name, values in SAMPLING.items():
        np.testing.assert_allclose(description["sampling"][name], values, rtol=1e-6)


def test_decoders_without_a_label_where_none_needs_one():
    def without(*levels):
        program = saved_model.Program(make_model(levels=levels), "float32", [1], xla=False)
        return program.description("float32")["decode_without_label"]

    needy = {**TOLD, "decoder": {**TOLD["decoder"], "label_dropout": 0.0}}
    of_level_1 = ["decode_level_1", "reconstruct_level_1", "reconstruct"]
    assert without(LEVEL, LEVEL) == without(LEVEL, needy) == without(needy, TOLD) == []
    assert without(TOLD, needy) == of_level_1
    assert without(TOLD, LEVEL) == [*of_level_1, "decode_level_2", "reconstruct_level_2", "decode"]


def test_guidance_is_an_input_where_a_network_knows_what_no_label_is():
    def inputs_of_all(**arguments):
        program = saved_model.Program(make_model(**arguments), "float32", [1], xla=False)
        return {name: set(inputs) for name, (_, inputs) in program.signatures().items()}

    def which(found, name):
        return {signature for signature, inputs in found.items() if name in inputs}

    samples, of_level_2 = {"sample", "serving_default"}, {"decode", "decode_level_2", "reconstruct_level_2"}

    plain = {**PRIOR, "label_dropout": 0.0}
    found = inputs_of_all()
    assert which(found, "guidance") == samples and which(found, "label") == {*samples, "log_prob"}
    found = inputs_of_all(levels=[LEVEL, TOLD], prior=plain)
    assert which(found, "guidance") == samples | of_level_2
    assert which(found, "label") == {*samples, *of_level_2, "log_prob"}
    for arguments in ({"prior": plain}, {"levels": []}, {"prior": plain, "num_classes": None}):
        assert not which(inputs_of_all(**arguments), "guidance")


def prediction_log():
    """The message class, from what of its definition matters here: `tensorflow_serving/apis/*.proto`."""
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", syntax="proto3")
    kinds = {"string": 9, "bytes": 12}
    for name, fields in {
        "ModelSpec": [("name", 1, "string"), ("signature_name", 3, "string")],
        "Input": [("key", 1, "string"), ("value", 2, "bytes")],
        "PredictRequest": [("model_spec", 1, "ModelSpec"), ("inputs", 2, "Input")],
        "PredictLog": [("request", 1, "PredictRequest")],
        "PredictionLog": [("predict_log", 6, "PredictLog")],
    }.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated = 3 if field == "inputs" else 1
            added = message.field.add(name=field, number=number, label=repeated, type=kinds.get(kind, 11))
            if kind not in kinds:
                added.type_name = f".{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("PredictionLog"))


def test_warmup_requests_name_every_signature_at_every_size(model, version):
    found = set()
    for record in tf.data.TFRecordDataset(str(version / "assets.extra/tf_serving_warmup_requests")):
        request = prediction_log().FromString(record.numpy()).predict_log.request
        assert request.model_spec.name == "tiny"
        inputs = {}
        for entry in request.inputs:
            inputs[entry.key] = tf.make_ndarray(tensor_pb2.TensorProto.FromString(entry.value))
        sizes = {len(x) for x in inputs.values()}
        assert len(sizes) == 1
        found.add((request.model_spec.signature_name, *sizes))
        if request.model_spec.signature_name == "sample":
            assert inputs["label"].dtype == np.int32 and inputs["seed"].shape == (*sizes, 2)
            assert (inputs["temperature"] == -1).all() and inputs["top_p"].dtype == np.float32
            assert (inputs["guidance"] == -1).all() and inputs["guidance"].dtype == np.float32
    assert found == {(signature, size) for signature in inputs_of(model) for size in (1, 2)}


@pytest.mark.parametrize(
    ("form", "mode"),
    [("PNG", "L"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "L"), ("JPEG", "RGB")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_read_as_pillow_reads_them(form, mode, channels):
    image = Image.fromarray(RNG.integers(0, 256, (8, 6, 4), "uint8")).convert(mode)
    image.save(file := io.BytesIO(), format=form)
    with Image.open(file) as image:
        expected = np.asarray(image.convert("L" if channels == 1 else "RGB")).reshape(8, 6, channels)
    found = decode_image(file.getvalue(), (8, 6, channels))
    np.testing.assert_array_equal(found, expected)


def moving(size=(8, 6)):
    """A GIF of three pictures, and the first of them."""
    frames = [Image.fromarray(RNG.integers(0, 256, (*size, 3), "uint8")).convert("P") for _ in range(3)]
    frames[0].save(file := io.BytesIO(), format="GIF", save_all=True, append_images=frames[1:])
    return file.getvalue(), frames[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_of_a_gif_that_moves_the_first_picture_is_read(channels):
    file, first = moving()
    expected = np.asarray(first.convert("L" if channels == 1 else "RGB")).reshape(8, 6, channels)
    read = tf.function(lambda files: tf.map_fn(lambda x: decode_image(x, (8, 6, channels)), files, tf.uint8))
    Image.fromarray(expected[..., 0] if channels == 1 else expected).save(png := io.BytesIO(), format="PNG")
    np.testing.assert_array_equal(read(tf.constant([png.getvalue(), file])), [expected, expected])


def test_pictures_of_another_size_are_cropped_and_resized():
    strip = decode_image(tf.io.encode_png(np.full((1, 30, 3), 7, "uint8")), (16, 1, 3))
    assert (strip.numpy() == 7).all()
    y, x = np.mgrid[:40, :64]
    smooth = np.stack([x * 3, y * 5, x + y], axis=-1).astype("uint8")
    for form, tolerance in (("PNG", 2), ("JPEG", 4)):
        Image.fromarray(smooth).save(file := io.BytesIO(), format=form, quality=95)
        found = decode_image(file.getvalue(), (16, 8, 3))
        with Image.open(file) as image:
            expected = haim_tf.data.image_files.fit_image(image, (16, 8, 3))
        assert np.abs(found.numpy().astype(int) - expected.astype(int)).max() <= tolerance


def test_half_the_size_and_the_same_codes(version, tmp_path):
    unconditional = {**PRIOR, "label_dropout": 0.0}
    flat = make_model(image_shape=(4, 4, 1), levels=[LEVEL], prior=unconditional, num_classes=None)
    images = RNG.integers(0, 256, (6, 4, 4, 1), "uint8")
    stored = {}
    for dtype in ("float32", "bfloat16"):
        path = saved_model.export(flat, tmp_path / "half", dtype=dtype, batch_sizes=[2], warmup=False)
        assert not (path / "assets.extra/tf_serving_warmup_requests").exists()
        loaded = tf.saved_model.load(str(path))
        stored[dtype] = sum(v.dtype.size * int(tf.size(v)) for v in loaded.weights)
        np.testing.assert_array_equal(
            loaded.signatures["encode"](image=images)["codes_1"], flat.encode(images)[0]
        )
        found = loaded.signatures["log_prob"](image=images)["log_prob"]
        np.testing.assert_allclose(found, flat.log_prob(images), rtol=1e-4 if dtype == "float32" else 0.03)
    assert path.name == "2"
    encoder = [*flat.autoencoders[0].encoder.weights, flat.autoencoders[0].quantizer.codebook]
    exact = 4 * sum(int(tf.size(v)) for v in encoder)
    assert stored["bfloat16"] - exact == (stored["float32"] - exact) / 2


def test_a_flat_unconditional_model_without_xla(tmp_path, caplog):
    unconditional = {**PRIOR, "label_dropout": 0.0}
    flat = make_model(image_shape=(4, 4, 1), levels=[], prior=unconditional, num_classes=None)
    flat.sampling_defaults = {"temperature": 0.3}
    with caplog.at_level("INFO", logger="tensorflow"):  # As in a notebook.
        path = saved_model.export(flat, tmp_path / "flat", batch_sizes=[3], xla=False)
    assert not caplog.records
    signatures = tf.saved_model.load(str(path)).signatures
    assert sorted(signatures) == ["log_prob", "sample", "serving_default"]
    ones, seed = tf.ones(3), tf.constant(seed_pairs(5, 3))
    found = signatures["sample"](seed=seed, temperature=-ones, top_p=-ones)
    np.testing.assert_array_equal(found["image"], flat.sample(3, seed=5))
    found = signatures["sample"](seed=seed, temperature=ones, top_p=ones)
    np.testing.assert_array_equal(found["image"], flat.sample(3, seed=5, temperature=1.0))
    found = signatures["sample"](seed=seed, temperature=-0.5 * ones, top_p=[-1.0, 0.0, -2.0])
    assert not found["image"].numpy().any()


def test_large_grids_go_through_in_smaller_pieces(monkeypatch):
    """As `model.sample` has them: the two programs of a server would otherwise give wrong pixels."""
    drawn = []

    def spy(network, noise, **inputs):
        drawn.append(noise.shape[:2])
        return sampling.sample_grid(network, noise, **inputs)

    monkeypatch.setattr("haim_tf.saved_model.program.sample_grid", spy)
    monkeypatch.setattr("haim_tf.sampling.sampler.POSITIONS_AT_ONCE", 8 * 8 * 8)
    network = {"width": 4, "blocks": 1}
    level = {
        "downsampling": 4,
        "codebook_size": 4,
        "code_dim": 2,
        "width": 4,
        "blocks": 1,
        "decoder": network,
    }
    model = haim_tf.HierarchicalModel((8, 8, 1), [level], network, mixtures=1)
    program = saved_model.Program(model, "float32", [2, 32], xla=False)
    seeds, ones = tf.constant(seed_pairs(0, 9)), tf.ones(9)
    found = program.sample(seed=seeds, temperature=ones, top_p=ones)["image"]
    assert {(size, side) for size, side in drawn} == {(8, 8), (32, 2)}  # Parts, and sides of their grids.
    np.testing.assert_array_equal(found, model.sample(9, seed=0))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        ({"batch_sizes": []}, "batch_sizes must be a list of positive ints"),
        ({"batch_sizes": 8}, "batch_sizes must be a list of positive ints, got 8"),
        ({"batch_sizes": [0, 1]}, "batch_sizes must be an integer of at least 1, got 0"),
        ({"folder": "file/exports"}, "folder must be a folder, or a new one"),
    ],
)
def test_bad_arguments_leave_nothing_behind(model, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    # Only the last one gets as far as tracing, which takes its time.
    monkeypatch.setattr(saved_model.Program, "signatures", lambda self: {})
    with pytest.raises(ValueError, match=message):
        saved_model.export(**({"model": model, "folder": "exports"} | arguments))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow(reason="installs tensorflow into an environment of its own")
def test_in_a_fresh_environment_with_tensorflow_alone(model, version, tmp_path):
    """A true environment: nothing installed but tensorflow, of the version here."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", f"tensorflow=={tf.__version__}"], check=True)
    inputs = inputs_of(model)
    outputs, found = probe(python, version, inputs, tmp_path)
    assert found["signatures"] == sorted(inputs)
    check_against(model, inputs, outputs)
    shown = subprocess.run(
        [tmp_path / "venv/bin/saved_model_cli", "show", "--all", "--dir", version],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in (
        "signature_def['decode_level_1']",
        "inputs['codes_1'] tensor_info",
        "outputs['image_bytes']",
    ):
        assert name in shown


def test_configuration_of_tensorflow_serving():
    folder = Path(__file__).resolve().parents[1] / "export/tensorflow_serving"
    batching = (folder / "batching.config").read_text()
    sizes = re.findall(r"^allowed_batch_sizes: (\d+)$", batching, re.MULTILINE)
    assert tuple(map(int, sizes)) == saved_model.BATCH_SIZES
    # The server insists on it.
    assert f"max_batch_size {{ value: {sizes[-1]} }}" in batching
    # By a module of it: the folder in export/ may pass for the package itself.
    pytest.importorskip("tensorflow_serving.config", reason="tensorflow-serving-api is not installed")
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    models = text_format.Parse(
        (folder / "models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    (model,) = models.model_config_list.config
    assert model.name in haim_tf.list_models() and model.base_path.endswith(model.name)


def test_a_full_disk_is_one_line(tmp_path, full_disk):
    flat = make_model(image_shape=(4, 4, 1), levels=[])
    with full_disk(20_000), pytest.raises(ValueError, match="cannot write .*new: .") as caught:
        saved_model.export(flat, tmp_path / "new", batch_sizes=[1], warmup=False)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named_before_any_work(model, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_model, "Program", lambda *args: pytest.fail("it began"))
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder must be a folder, or a new one, got .*file/new, where"):
        saved_model.export(model, tmp_path / "file" / "new")
    for name in ("caf\udce9", b"name"):
        with pytest.raises(ValueError, match="name must be text that is UTF-8, got"):
            saved_model.export(model, tmp_path / "new", name=name)
    with pytest.raises(ValueError, match="must be a path without ~"):
        saved_model.export(model, "~nobody-is-called-so/new")
