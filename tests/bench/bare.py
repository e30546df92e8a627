"""A Bolt app that acknowledges commands and does nothing else: `python -m tests.bench.bare URL`."""

import sys

from slack_bolt import Ack, App
from slack_bolt.adapter.socket_mode import SocketModeHandler
from slack_sdk import WebClient

client = WebClient(token="xoxb-local-bare", base_url=sys.argv[1])
app = App(client=client, process_before_response=True)


@app.command("/travis")
def acknowledge(ack: Ack) -> None:
    ack("On it.")


handler = SocketModeHandler(app, "xapp-local-bare", concurrency=50)
handler.connect()  # type: ignore[no-untyped-call]
sys.stdout.write("{}\n")
sys.stdout.flush()
sys.stdin.read()
