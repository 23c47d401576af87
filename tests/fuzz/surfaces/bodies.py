"""Bodies of requests, as the server parses them, in this process."""

import base64
import json
import sys
from pathlib import Path

from damage import RefusedError, damaged_bytes, damaged_json, pick

from surfaces.pictures import picture

sys.path.append(str(Path(__file__).resolve().parents[3] / "export"))
from serving.requests import RequestError, check_picture, parse

DESCRIPTION = {"num_classes": 10, "codebook_sizes": [8, 19], "sampling": {"temperature": [0.9, 0.8, 1.0]}}
SAMPLING = {"temperature": ("float32", ()), "top_p": ("float32", ())}
SIGNATURES = {
    "sample": {"label": ("int32", ()), "seed": ("int32", (2,)), **SAMPLING},
    "encode": {"image": ("uint8", (2, 2, 1))},
    "encode_bytes": {"image_bytes": ("string", ())},
    "decode": {"codes_2": ("int32", (2, 2)), "seed": ("int32", (2,)), **SAMPLING},
}
FILLED = {
    "label": 1,
    "seed": [0, 1],
    "temperature": 0.5,
    "top_p": 0.9,
    "image": [[[0], [255]], [[3], [4]]],
    "codes_2": [[0, 18], [1, 2]],
}


def odd_body(rng, inputs, filled):
    """JSON, bytes, of a request for a signature with such inputs, right but for some damage."""
    instance = {name: filled[name] for name in inputs if name in filled and rng.random() < 0.98}
    if "image_bytes" in inputs:
        file = damaged_bytes(rng, picture(rng)[1])
        instance["image_bytes"] = {"b64": base64.b64encode(file).decode()}
    request = {"instances": [instance] * int(rng.integers(1, 4))}
    if rng.random() < 0.2:
        request["outputs"] = ["image"]
    if "image_bytes" in inputs and rng.random() < 0.7:
        return json.dumps(request).encode()
    if rng.random() < 0.03:
        return b"[" * int(rng.integers(1, 200_000))
    return damaged_json(rng, request)


class Bodies:
    """One request; pictures in it are checked as the server checks them."""

    LIMIT = 60

    def __init__(self, folder):
        pass

    def attempt(self, rng):
        inputs = SIGNATURES[pick(rng, list(SIGNATURES))]
        body = odd_body(rng, inputs, FILLED)
        try:
            examples, _ = parse("sample", body, inputs, ["image", "codes_1"], DESCRIPTION, max_examples=8)
            for example in examples:
                if "image_bytes" in example:
                    check_picture(example["image_bytes"])
        except RequestError as error:
            assert 400 <= error.status < 500 and str(error).isprintable()
            raise RefusedError(str(error)) from error
