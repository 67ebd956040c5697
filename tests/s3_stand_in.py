"""A server on this machine that plays S3: it can be unplugged and plugged in again, and counts what it is asked."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    from werkzeug.serving import BaseWSGIServer

HOST = "127.0.0.1"


class S3:
    """Moto's S3 under ``http://127.0.0.1:port``; what is stored outlives `unplug`.

    Attributes
    ----------
    asked
        Requests by method and the first part of the name below the run, such as ``("PUT", "trials")``.
    """

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.asked: Counter[tuple[str, str]] = Counter()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._handler = MotoRequestHandler
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self.plug_in()

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which a program reaches it, and nothing else."""
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.port}",
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    @property
    def is_plugged_in(self) -> bool:
        """Whether it answers."""
        return self._server is not None

    def make_bucket(self, name: str) -> None:
        """Make an empty bucket, or empty the one that is there; the environment must be that of this server."""
        from data_io.location import located

        fs: Any = located(f"s3://{name}/any").fs  # type: ignore[attr-defined]
        fs.invalidate_cache()
        if fs.exists(name):
            if left := fs.find(name):
                fs.rm(left)
            return  # not deleted: what an earlier test still writes there would forbid it
        fs.call_s3("create_bucket", Bucket=name)

    def plug_in(self) -> None:
        """Answer, at the same port as before."""
        self._server = make_server(HOST, self.port, self._counted, threaded=True, request_handler=self._handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def unplug(self) -> None:
        """Refuse every connection."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _counted(self, request: dict[str, Any], answer: Any) -> Iterable[bytes]:
        parts = [part for part in request["PATH_INFO"].split("/") if part]
        self.asked[request["REQUEST_METHOD"], parts[2] if len(parts) > 2 else ""] += 1
        return self._app(request, answer)  # type: ignore[no-any-return]
