"""The deployment: HTTP in, examples of many requests in shared batches, HTTP out."""

import asyncio
import concurrent.futures
import logging
import threading
import time
import urllib.request
from pathlib import Path

from ray import serve
from ray.exceptions import TaskCancelledError
from ray.util import metrics
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse

from serving.batching import Batcher
from serving.exported import Exported, contents, limit_threads, newest_version
from serving.requests import RequestError, check_picture, parse, to_json

PAGE = Path(__file__).with_name("page.html")
SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]
SIZES = [1, 2, 4, 8, 16, 32, 64]
CLIENT_LEFT = 499  # As nginx counts it.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # By no proxy: it is this machine.
DRAINED = 8  # Times max_bytes of a body that are received before the connection is closed.
log = logging.getLogger("ray.serve")


class Batched:
    """A model whose signatures take single examples, and run them together with those of other requests."""

    def __init__(self, model, wait_seconds, parallel, observe):
        self.model = model
        executor = concurrent.futures.ThreadPoolExecutor(parallel)

        def batcher(name):
            def run(examples):
                observe(len(examples), tags={"route": f"/{name}"})
                return model.run(name, examples)

            return Batcher(run, model.sizes, wait_seconds, executor, parallel)

        self.run = {name: batcher(name) for name in model.signatures}


@serve.deployment
class Server:
    """A replica: the newest version of the model in `folder`, and its HTTP interface (docs/serving.md).

    A newer version is loaded and warmed up beside the one that serves, and then takes its place; requests
    that are under way end with the version that they began with.

    Args:
        folder: of the versions.
        threads: tensorflow's.
        parallel: how many batches of a signature run side by side, see `limit_threads`.
        max_batch_size, wait_seconds: of a batch: its examples, and how long its first one waits for others.
        max_examples, max_bytes: of a request.
        read_seconds, answer_seconds: how long a client may take to send its request, and an answer to come.
        poll_seconds: between two looks for a newer version.
        metrics_port: of Ray's exporter on this machine.
    """

    def __init__(
        self,
        folder,
        threads,
        parallel,
        max_batch_size,
        wait_seconds,
        max_examples,
        max_bytes,
        read_seconds,
        answer_seconds,
        poll_seconds,
        metrics_port,
    ):
        self.parallel = limit_threads(threads, parallel)
        self.folder, self.max_batch_size, self.wait_seconds = folder, max_batch_size, wait_seconds
        self.max_examples, self.max_bytes = max_examples, max_bytes
        self.read_seconds, self.answer_seconds = read_seconds, answer_seconds
        self.metrics_port = metrics_port
        self._requests = metrics.Counter("haim_tf_requests", "Requests.", ("route", "status"))
        self._seconds = metrics.Histogram("haim_tf_request_seconds", "Latency.", SECONDS, ("route",))
        self._sizes = metrics.Histogram("haim_tf_batch_examples", "Batches' sizes.", SIZES, ("route",))
        self._version = metrics.Gauge("haim_tf_model_version", "What is served.")
        self._load(newest_version(folder))
        threading.Thread(target=self._watch, args=(poll_seconds,), daemon=True).start()

    def _load(self, version):
        model = Exported(self.folder, version, self.max_batch_size)
        model.warm_up()
        self.current = Batched(model, self.wait_seconds, self.parallel, self._sizes.observe)
        self._version.set(version)

    def _watch(self, poll_seconds):
        tried = None
        while True:
            time.sleep(poll_seconds)
            try:
                version = newest_version(self.folder)
                if version is None or version <= self.current.model.version:
                    continue
                found = version, contents(self.folder, version)
                if found != tried:  # Once more where files have come since then.
                    tried = found
                    self._load(version)
                    log.info("serving version %d", version)
            except Exception:  # Whatever is wrong with a new version, the old one goes on.
                log.exception("a new version in %s cannot be loaded; going on with the old one", self.folder)

    async def __call__(self, request):
        start, path = time.monotonic(), request.url.path
        batched = self.current
        known = path in GET or path.removeprefix("/") in batched.run
        status = CLIENT_LEFT
        try:
            response = await self._answer(request, path, batched)
            status = response.status_code
        except RequestError as error:
            status = error.status
            response = JSONResponse({"error": str(error)}, status, error.headers)
        except asyncio.TimeoutError:
            status = 504
            error = f"no answer within {self.answer_seconds:g} seconds: the server is busy"
            response = JSONResponse({"error": error}, status)
        except (ClientDisconnect, TaskCancelledError):
            response = JSONResponse({"error": "the client went away"}, status)
        except Exception:
            status = 500
            log.exception("%s failed", path[:80])
            response = JSONResponse({"error": "the model failed: the server's log says how"}, status)
        finally:  # Ray cancels what a client has given up.
            # Unknown paths share one name: clients must not be able to make metrics.
            route = path if known else "other"
            self._requests.inc(tags={"route": route, "status": str(status)})
            self._seconds.observe(time.monotonic() - start, tags={"route": route})
        return response

    async def _answer(self, request, path, batched):
        name, model = path.removeprefix("/"), batched.model
        if path in GET:
            if request.method not in ("GET", "HEAD"):
                raise RequestError(f"{path} takes GET, got {request.method}", 405, {"Allow": "GET, HEAD"})
            return await GET[path](self)
        if name not in batched.run:
            known = ", ".join([*GET, *(f"/{known}" for known in model.signatures)])
            raise RequestError(f"there is no {path[:80]}; there are {known}", 404)
        if request.method != "POST":
            raise RequestError(f"{path} takes POST, got {request.method}", 405, {"Allow": "POST"})
        body = await self._body(request)
        inputs, outputs = model.inputs[name], model.outputs[name]
        # What takes long runs beside the loop, which other requests and health checks wait for.
        examples, names = await asyncio.to_thread(
            parse, name, body, inputs, outputs, model.description, self.max_examples
        )
        for file in [x["image_bytes"] for x in examples if "image_bytes" in x]:
            await asyncio.to_thread(check_picture, file)
        found = await asyncio.wait_for(
            asyncio.gather(*(batched.run[name](x) for x in examples)), self.answer_seconds
        )

        def response():
            predictions = [{key: to_json(x[key]) for key in names} for x in found]
            return JSONResponse({"predictions": predictions, "version": model.version})

        return await asyncio.to_thread(response)

    async def _body(self, request):
        async def read():
            body, length = bytearray(), 0
            async for chunk in request.stream():
                length += len(chunk)
                if length <= self.max_bytes:
                    body += chunk
                # Clients read the answer only once they have sent all: what is too much is thrown away.
                elif length > DRAINED * self.max_bytes:
                    break
            if length > self.max_bytes:
                raise RequestError(f"the body may have at most {self.max_bytes} bytes, got {length}", 413)
            return bytes(body)

        try:
            return await asyncio.wait_for(read(), self.read_seconds)
        except asyncio.TimeoutError:
            raise RequestError(f"the body did not arrive within {self.read_seconds:g} seconds", 408) from None

    async def page(self):
        return HTMLResponse(PAGE.read_text())

    async def health(self):
        return JSONResponse({"status": "alive"})

    async def ready(self):
        return JSONResponse({"status": "ready", "version": self.current.model.version})

    async def model(self):
        model = self.current.model
        served = {"version": model.version, "signatures": model.signatures}
        served["inputs"] = {name: list(inputs) for name, inputs in model.inputs.items()}
        return JSONResponse({**model.description, **served})

    async def metrics(self):
        def fetch():
            with DIRECT.open(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5) as answer:
                return answer.read().decode()

        try:
            return PlainTextResponse(await asyncio.to_thread(fetch))
        except OSError as error:
            return JSONResponse({"error": f"Ray's exporter does not answer: {error}"}, 503)


GET = {
    "/": Server.func_or_class.page,
    "/health": Server.func_or_class.health,
    "/ready": Server.func_or_class.ready,
    "/model": Server.func_or_class.model,
    "/metrics": Server.func_or_class.metrics,
}
