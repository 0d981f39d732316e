"""A small web service that tells who it is: two clones of one snapshot must answer differently."""

import json
import os
import socket
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# Made once, before the snapshot: the same in every clone. What has to be unique must be made after the restore.
STARTED_AS = str(uuid.uuid4())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            self.answer({"status": "ok"})
        elif self.path == "/":
            self.answer(
                {
                    "hostname": socket.gethostname(),
                    "role": os.environ.get("MVM_ROLE"),
                    "startedAs": STARTED_AS,
                    "requestId": str(uuid.uuid4()),
                }
            )
        else:
            self.answer({"error": "not found"}, status=404)

    def answer(self, document, status=200):
        body = (json.dumps(document) + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
