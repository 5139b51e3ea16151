"""The same agent as an HTTP server beside the worker host.

    python3 server.py 8000
    pinrail worker http support --bundle v1 --url http://127.0.0.1:8000/pinrail
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pinrail_exec as pinrail
from agent import STEPS


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = json.dumps(pinrail.respond(STEPS, message)).encode("utf-8")
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
