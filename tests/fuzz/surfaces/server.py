"""Requests to a server that runs: it answers each, and is well afterwards."""

import http.client
import sys
from pathlib import Path

import numpy as np
from damage import ODD, RefusedError, damaged_bytes, pick

import haim_tf
from haim_tf import saved_model
from surfaces.bodies import odd_body

sys.path.append(str(Path(__file__).resolve().parents[2] / "serving"))
import running

# Machines on which much else is tried start it slowly.
running.START_SECONDS = 900
METHODS = ("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW")
PATHS = ("/", "/health", "/model", "/sample/", "/../model", "/%00", "/caf%E9", "/" + "a" * 5000, "/nothing")


class Server:
    """An export of `debug` on one replica."""

    LIMIT = 120

    def __init__(self, folder):
        model = haim_tf.load("debug")
        saved_model.export(model, folder / "debug", batch_sizes=[1], warmup=False)
        flags = ("--replicas=1", "--max_batch_size=1", "--max_bytes=300000", "--read_seconds=3")
        self.server = running.Running(folder / "debug", folder / "log", *flags)
        self.signatures = self.server.ask("/model")[1]["inputs"]
        height, width = model.grid_shapes[-1]
        self.filled = {
            "label": 1,
            "seed": [0, 1],
            "temperature": -1,
            "top_p": 0.9,
            "image": np.zeros(model.image_shape, int).tolist(),
            **{f"codes_{i}": np.zeros(s, int).tolist() for i, s in enumerate(model.grid_shapes) if i},
        }

    def attempt(self, rng):
        status, answer = self._ask(rng)
        assert 200 <= status < 500, f"{status}: {answer}"
        assert "Traceback" not in str(answer), answer
        if rng.random() < 0.1:
            assert self.server.ask("/health", timeout=20) == (200, {"status": "alive"})
        if status >= 400:
            raise RefusedError(f"{status}: {answer}")

    def _ask(self, rng):
        kind = rng.random()
        try:
            if kind < 0.1:
                return self.server.ask(pick(rng, PATHS), method=pick(rng, METHODS), timeout=60)
            signature = pick(rng, list(self.signatures))
            body = odd_body(rng, self.signatures[signature], self.filled)
            if kind < 0.15:
                body = damaged_bytes(rng, body) + bytes(pick(rng, [0, 400_000]))
            elif kind < 0.2:
                body = repr(pick(rng, ODD)).encode(errors="backslashreplace")
            return self.server.ask(f"/{signature}", body, timeout=60)
        except (http.client.InvalidURL, ValueError) as error:  # Of the client's: nothing was sent.
            raise RefusedError(str(error)) from error
        except OSError as error:
            raise AssertionError(f"no answer: {error!r}") from error

    def close(self):
        self.server.stop()
