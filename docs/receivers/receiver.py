"""A receiver of certwright's webhooks: `pip install standardwebhooks`, then

    WEBHOOK_SECRET=whsec_… PORT=8000 python3 receiver.py
"""

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])
seen = set()  # keep this where it survives a restart


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        # The signature is over the body as it came: read it before anything parses it.
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            message = webhook.verify(body, dict(self.headers))
        except WebhookVerificationError as error:
            return self.answer(401, str(error))
        if self.headers["webhook-id"] not in seen:  # a repeat is no news
            seen.add(self.headers["webhook-id"])
            print(message["type"], message["data"].get("name", ""), flush=True)
        self.answer(204)

    def answer(self, status, text=""):
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Receiver).serve_forever()
