"""A hub on this machine: files by repository and revision, by as much of its HTTP as downloads use."""

import hashlib
import http.server
import json
import threading
import urllib.parse


class Hub:
    """Serves `repositories`, `{"owner/name": {revision: {file name: bytes}}}`; each request for weights takes
    one of `faults` first, while there are any: "cut" half-way, or "damaged".

    Attributes:
        url: what `HF_ENDPOINT` is to be.
        files: names of the files whose content was asked for.
        requests: how many requests there were.
    """

    def __init__(self):
        self.repositories, self.faults, self.files, self.requests = {}, [], [], 0
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.hub = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def commit(self, repository, revision):
        """The commit that a branch, tag or commit stands for, or `None`."""
        for name, files in self.repositories[repository].items():
            sha = hashlib.sha1(
                json.dumps([[k, v.hex()] for k, v in sorted(files.items())]).encode()
            ).hexdigest()
            if revision in (name, sha):
                return sha, files
        return None

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self._answer(body=True)

    def do_HEAD(self):
        self._answer(body=False)

    def _answer(self, body):
        hub = self.server.hub
        hub.requests += 1
        parts = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/").split("/")
        listing = parts[:2] == ["api", "models"]
        repository, parts = (
            "/".join(parts[2:4] if listing else parts[:2]),
            parts[4:] if listing else parts[2:],
        )
        if repository not in hub.repositories:
            return self._refuse("RepoNotFound", "Repository not found")
        kind, revision = parts[0], parts[1]
        found = hub.commit(repository, revision)
        if found is None:
            return self._refuse("RevisionNotFound", "Revision not found")
        sha, files = found
        if kind == "revision":
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": repository, "modelId": repository, "sha": sha, "siblings": siblings})
        if kind == "tree":
            return self._json(
                [
                    {"type": "file", "path": name, "size": len(content), "oid": _oid(content)}
                    for name, content in files.items()
                ]
            )
        name = "/".join(parts[2:])
        if name not in files:
            return self._refuse("EntryNotFound", "Entry not found")
        self._file(files[name], sha, body, name)

    def _file(self, content, sha, body, name):
        hub, whole = self.server.hub, content
        fault = None
        if body:
            hub.files.append(name)
            fault = hub.faults.pop(0) if hub.faults and name.endswith(".h5") else None
        if fault == "damaged":
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if asked := self.headers.get("Range"):
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if asked else 200)
        self.send_header("X-Repo-Commit", sha)
        self.send_header("ETag", f'"{_oid(whole)}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            content = content[start:]
            self.wfile.write(content[: len(content) // 2] if fault == "cut" else content)
        self.close_connection = True

    def _json(self, value):
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, code, message):
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


def _oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
