"""Verifies recorded messages, each as of the moment in which it was sent, with the library from PyPI.

    check.py SECRET FILE    one JSON object a line: {"headers": {…}, "body": "…"}; prints how many are good
"""

import json
import sys
from datetime import datetime, timezone

from standardwebhooks import webhooks


class At(datetime):
    moment = 0.0

    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(cls.moment, tz=tz or timezone.utc)


webhooks.datetime = At
webhook = webhooks.Webhook(sys.argv[1])
good = 0
with open(sys.argv[2], encoding="utf-8") as lines:
    for line in lines:
        message = json.loads(line)
        At.moment = float(message["headers"]["webhook-timestamp"])
        webhook.verify(message["body"], message["headers"])
        good += 1
print(good)
