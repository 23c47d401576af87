"""What the server accepts and refuses, and how batches are filled up; no Ray runs here."""

import base64
import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "export"))
sys.path.insert(0, str(Path(__file__).parent))
from running import free_port
from serving import exported, requests

SCRIPT = Path(__file__).resolve().parents[2] / "export/serve.py"

# An export of before it knew the model's own sampling values; and one that does.
BEFORE = {"num_classes": 10, "codebook_sizes": [8, 19]}
DESCRIPTION = {**BEFORE, "sampling": {"temperature": [0.9, 0.8], "top_p": [1.0, 1.0], "guidance": 2.0}}
SAMPLE = {
    "label": ("int32", ()),
    "seed": ("int32", (2,)),
    "temperature": ("float32", ()),
    "top_p": ("float32", ()),
}
GUIDED = {**SAMPLE, "guidance": ("float32", ())}
CODES = {"codes_2": ("int32", (2, 2)), "seed": ("int32", (2,))}
IMAGE = {"image": ("uint8", (2, 2, 1))}
BYTES = {"image_bytes": ("string", ())}


def parse(body, inputs=SAMPLE, max_examples=4, description=DESCRIPTION, signature="sample"):
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.parse(signature, body, inputs, ["image", "image_bytes"], description, max_examples)


def test_examples_are_arrays_of_the_signatures_types():
    examples, names = parse(
        {"instances": [{"label": 9, "seed": [0, -5], "temperature": 1}], "outputs": ["image"]}
    )
    assert names == ["image"]
    (example,) = examples
    assert {name: (x.dtype.name, x.shape) for name, x in example.items()} == SAMPLE
    assert example["seed"].tolist() == [0, -5] and example["temperature"] == 1 and example["top_p"] == -1
    assert parse({"instances": [{"label": 0, "seed": [0, 0]}]})[1] == ["image", "image_bytes"]
    ((example,), _) = parse({"instances": [{"image_bytes": {"b64": "aGk="}}]}, BYTES)
    assert example == {"image_bytes": b"hi"}


GOOD = {"label": 1, "seed": [0, 1]}


def test_what_is_decoded_may_be_without_a_label():
    inputs = {**CODES, "label": ("int32", ())}
    description = {**DESCRIPTION, "decode_without_label": ["decode_level_2"]}
    decoded = {"codes_2": [[0, 0], [0, 0]], "seed": [0, 1]}

    def label_of(given, signature="decode_level_2", description=description):
        found = parse({"instances": [{**decoded, **given}]}, inputs, 4, description, signature)
        return found[0][0]["label"]

    for given, label in (({}, -1), ({"label": -1}, -1), ({"label": 9}, 9)):
        assert label_of(given) == label
    with pytest.raises(requests.RequestError, match="one int from 0 to 9, or -1 for none, got 10"):
        label_of({"label": 10})
    # Where a decoder needs one, and where a prior does.
    for given in ({"signature": "decode_level_3"}, {"description": DESCRIPTION}):
        with pytest.raises(requests.RequestError, match="lacks label"):
            label_of({}, **given)
    with pytest.raises(requests.RequestError, match="label must be one int from 0 to 9, got -1"):
        parse({"instances": [{**GOOD, "label": -1}]}, description=description)


def test_the_models_own_sampling_values():
    own = {"temperature": -1, "top_p": -1.0, "guidance": -1}
    for instance in (GOOD, {**GOOD, **own}):
        ((example,), _) = parse({"instances": [instance]}, GUIDED)
        assert [example[name] for name in own] == [-1] * 3
    ((example,), _) = parse({"instances": [{**GOOD, "guidance": 0}]}, GUIDED)
    assert example["guidance"] == 0 and example["guidance"].dtype == np.float32
    # An export of before.
    ((example,), _) = parse({"instances": [GOOD]}, description=BEFORE)
    assert example["temperature"] == example["top_p"] == 1
    with pytest.raises(requests.RequestError, match="number from 0.0 to 100.0, got -1"):
        parse({"instances": [{**GOOD, "temperature": -1}]}, description=BEFORE)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "must be JSON"),
        (b"\xff\xfe", "must be JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"9" * 5000, "must be JSON"),
        ([], "got \\[\\]"),
        ({"instances": []}, "at least one example"),
        ({"instances": [GOOD] * 5}, "at most 4 examples, got 5"),
        ({"instances": [GOOD], "signature": "x"}, "unknown field 'signature'"),
        ({"instances": [GOOD], "outputs": ["codes"]}, "outputs must be a list of image, image_bytes"),
        ({"instances": [GOOD], "outputs": [{}]}, "outputs must be"),
        ({"instances": [GOOD, 3]}, r"instances\[1\] must be an object, got 3"),
        ({"instances": [{**GOOD, "lable": 1}]}, "unknown input 'lable'; the inputs are label, seed"),
        ({"instances": [{"seed": [0, 1]}]}, "lacks label"),
        ({"instances": [{**GOOD, "label": -1}]}, "label must be one int from 0 to 9, got -1"),
        ({"instances": [{**GOOD, "label": 10}]}, "from 0 to 9, got 10"),
        ({"instances": [{**GOOD, "label": 1.0}]}, "got 1.0"),
        ({"instances": [{**GOOD, "label": True}]}, "got True"),
        ({"instances": [{**GOOD, "label": None}]}, "got None"),
        ({"instances": [{**GOOD, "label": 10**30}]}, "got 10"),
        ({"instances": [{**GOOD, "label": "1"}]}, "got '1'"),
        ({"instances": [{**GOOD, "seed": [0]}]}, r"of shape \[2\], ints from .*, got shape \[1\]"),
        ({"instances": [{**GOOD, "seed": [0, [1]]}]}, "unequal lengths"),
        ({"instances": [{**GOOD, "seed": [0, 2**31]}]}, "seed must be"),
        ({"instances": [{**GOOD, "seed": [0, 10**30]}]}, "seed must be"),
        ({"instances": [{**GOOD, "temperature": float("nan")}]}, "NaN is not a number in JSON"),
        (
            b'{"instances": [{"label": 1, "seed": [0, 1], "temperature": 1e999}]}',
            "from 0.0 to 100.0, or -1 for the model's own, got inf",
        ),
        ({"instances": [{**GOOD, "temperature": -0.1}]}, "temperature must be one number"),
        ({"instances": [{**GOOD, "temperature": [-1]}]}, r"got shape \[1\]"),
        ({"instances": [{**GOOD, "top_p": 0}]}, "top_p must be one number"),
        ({"instances": [{**GOOD, "guidance": 1}]}, "unknown input 'guidance'"),
        ({"instances": [{**GOOD, "top_p": "high"}]}, "got 'high'"),
    ],
)
def test_bad_requests_are_told_what_is_wrong(body, message):
    with pytest.raises(requests.RequestError, match=message) as caught:
        parse(body)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("inputs", "instance", "message"),
    [
        (CODES, {"codes_2": [[0, 1], [2, 19]], "seed": [0, 0]}, "from 0 to 18, got others among them"),
        (CODES, {"codes_2": [[0] * 9] * 9, "seed": [0, 0]}, r"got shape \[9, 9\]"),
        (IMAGE, {"image": [[[0], [256]], [[0], [0]]]}, "from 0 to 255"),
        (IMAGE, {"image": [[[0], [0.5]], [[0], [0]]]}, "image must be of shape"),
        (IMAGE, {"image": "aGk="}, r"got shape \[\]"),
        (BYTES, {"image_bytes": "aGk="}, 'must be {"b64"'),
        (BYTES, {"image_bytes": {"b64": "a"}}, "base64"),
        (BYTES, {"image_bytes": {"b64": "ä"}}, "base64"),
        (BYTES, {"image_bytes": {"b64": 3}}, "base64"),
    ],
)
def test_bad_codes_and_pictures(inputs, instance, message):
    with pytest.raises(requests.RequestError, match=message):
        parse({"instances": [instance]}, inputs)


def picture(form, size=(8, 8)):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), "uint8")).save(
        f := io.BytesIO(), form
    )
    return f.getvalue()


def test_pictures_are_read_before_they_join_a_batch():
    for form in ("PNG", "JPEG", "GIF"):
        file = picture(form)
        requests.check_picture(file)
        with pytest.raises(requests.RequestError, match="cannot be read|must be"):
            requests.check_picture(file[: len(file) // 2])
    still = Image.fromarray(np.zeros((8, 8, 3), "uint8"))
    other = Image.fromarray(np.full((8, 8, 3), 9, "uint8"))
    still.save(moving := io.BytesIO(), "GIF", save_all=True, append_images=[other])
    requests.check_picture(moving.getvalue())
    for bad in (b"", b"GIF89a", b"BM12", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        with pytest.raises(requests.RequestError, match="picture|PNG"):
            requests.check_picture(bad)
    file = picture("PNG")
    huge = file[:16] + (30_000).to_bytes(4, "big") * 2 + file[24:]
    with pytest.raises(requests.RequestError, match="at most 4096 pixels a side, got 30000 by 30000"):
        requests.check_picture(huge)


def gif(sides, frames=1):
    """A GIF with a screen of 8x8, and frames of other sides."""
    still = Image.fromarray(np.zeros((8, 8, 3), "uint8"))
    still.save(f := io.BytesIO(), "GIF", save_all=True, comment=b"of zeros")
    head, _, rest = f.getvalue().partition(b",")
    size = b"".join(side.to_bytes(2, "little") for side in sides)
    return head + (b"," + rest[:4] + size + rest[8:-1]) * frames + b";"


def test_frames_of_a_gif_count():
    requests.check_picture(gif((8, 8)))
    with pytest.raises(requests.RequestError, match="at most 4096 pixels a side, got 12000 by 12000"):
        requests.check_picture(gif((12000, 12000)))
    with pytest.raises(requests.RequestError, match="at most 16777216 pixels in all, got 25165824"):
        requests.check_picture(gif((4096, 4096 // 2), frames=3))


def test_outputs_as_json():
    assert requests.to_json(np.array([[1, 2]])) == [[1, 2]]
    assert base64.b64decode(requests.to_json(b"hi")["b64"]) == b"hi"
    assert requests.to_json(np.float32(0.5)) == 0.5


@pytest.fixture(scope="module")
def tiny():
    import haim_tf

    level = {"downsampling": 2, "codebook_size": 8, "code_dim": 2, "width": 4, "blocks": 1}
    decoder = {"width": 4, "blocks": 1, "condition_width": 4, "condition_blocks": 1}
    model = haim_tf.HierarchicalModel(
        image_shape=(4, 4, 3),
        levels=[{**level, "decoder": decoder}],
        prior={"width": 4, "blocks": 1},
        num_classes=10,
        mixtures=2,
    )
    model.sampling_defaults = {"temperature": [0.5, 0.7], "top_p": [1.0, 0.8]}
    return model


@pytest.fixture(scope="module")
def exports(tiny, tmp_path_factory):
    from haim_tf import saved_model

    folder = tmp_path_factory.mktemp("exports") / "tiny"
    saved_model.export(tiny, folder, batch_sizes=[1, 2, 4], warmup=False, xla=False)
    return folder


def test_what_is_absent_is_sampled_as_the_model_samples(tiny, exports):
    model = exported.Exported(exports, 1, max_batch_size=1)
    plain = {"temperature": 1.0, "top_p": 1.0}
    drawn = []
    for given in ({}, plain):
        body = json.dumps({"instances": [{"label": 3, "seed": [0, 0], **given}]})
        (example,), _ = requests.parse(
            "sample", body, model.inputs["sample"], ["image"], model.description, 1
        )
        drawn.append(model.run("sample", [example])[0]["image"])
        np.testing.assert_array_equal(drawn[-1], tiny.sample(1, 3, seed=0, **given)[0])
    assert (drawn[0] != drawn[1]).any()


def test_batches_are_filled_up_to_compiled_sizes(tiny, exports, monkeypatch):
    model = exported.Exported(exports, 1, max_batch_size=3)
    assert model.sizes == [1, 2]  # 4 is too large.
    model = exported.Exported(exports, 1, max_batch_size=32)
    sizes, encode = [], model._functions["encode"]
    monkeypatch.setitem(
        model._functions, "encode", lambda image: sizes.append(len(image)) or encode(image=image)
    )
    images = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), "uint8")
    (expected,) = tiny.encode(images)
    for count in (1, 2, 3, 4):
        found = model.run("encode", [{"image": x} for x in images[:count]])
        assert len(found) == count
        for i, x in enumerate(found):
            np.testing.assert_array_equal(x["codes_1"], expected[i])
    assert sizes == [1, 2, 4, 4]
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        exported.Exported(exports, 1, max_batch_size=0)


def serve(*flags):
    """`export/serve.py`, which ends before there is a server."""
    command = [sys.executable, SCRIPT, *(f"--{flag}" for flag in flags)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("flag", ["port", "metrics_port"])
def test_a_port_that_is_taken_is_named_at_once(exports, flag):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        done = serve(
            f"folder={exports}",
            f"{'port' if flag == 'metrics_port' else 'metrics_port'}={free_port()}",
            f"{flag}={port}",
        )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f":{port}, the --{flag}: Address already in use" in done.stderr


def test_what_cannot_be_served_is_said_at_once(exports, tmp_path):
    other = tmp_path / "other" / "1"
    for name in exported.OF_A_VERSION:
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).touch()
    (other / "assets.extra").mkdir()
    (other / "assets.extra/haim_tf.json").write_text("{}")
    for damaged in ([], ["a"], 3):
        (other / "assets.extra/haim_tf.json").write_text(json.dumps({"batch_sizes": damaged}))
        with pytest.raises(ValueError, match="is not written by haim_tf export"):
            exported.read_description(other.parent, 1, max_batch_size=8)
    (other / "assets.extra/haim_tf.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for flags, message in (
        ([f"folder={tmp_path / 'empty'}"], "has no version folder 1, 2, ..."),
        ([f"folder={other.parent}"], "is not written by haim_tf export: KeyError('batch_sizes')"),
    ):
        done = serve(*flags)
        assert done.returncode == 2 and done.stderr.count("\n") == 1
        assert message in done.stderr
    with pytest.raises(ValueError, match="max_batch_size must be at least 1, got 0"):
        exported.read_description(exports, 1, max_batch_size=0)


def test_without_ray_the_server_says_what_it_needs(exports, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no ray here')")
    ports = [f"{name}={free_port()}" for name in ("port", "metrics_port")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        done = serve(f"folder={exports}", *ports)
    assert done.returncode == 2
    assert done.stderr == 'serve: serving needs Ray Serve, pip install "haim-tf[serve]": no ray here\n'


def test_the_newest_complete_version(tmp_path):
    assert exported.newest_version(tmp_path) is None
    for name in ("2", "10", "011", "latest", ".unfinished.x"):
        (tmp_path / name / "variables").mkdir(parents=True)
        (tmp_path / name / "variables" / "variables.index").touch()
        (tmp_path / name / "saved_model.pb").touch()
    (tmp_path / "11").mkdir()  # Still being copied.
    (tmp_path / "11" / "saved_model.pb").touch()
    assert exported.newest_version(tmp_path) == 10
    before = exported.contents(tmp_path, 10)
    (tmp_path / "10" / "variables" / "variables.index").write_text("more")
    assert exported.contents(tmp_path, 10) != before
    with pytest.raises(ValueError, match="not written by haim_tf export"):
        exported.Exported(tmp_path, 10, 32)


def test_what_cannot_be_served_is_one_clear_line(tmp_path):
    (tmp_path / "1").mkdir()
    script = Path(__file__).resolve().parents[2] / "export/serve.py"
    done = subprocess.run([sys.executable, script, f"--folder={tmp_path}"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "has no version folder" in done.stderr and done.stderr.count("\n") == 1
