"""Run where a client is installed: one leaf's round, by the usage that the published client tells.

Arguments: the module of the client, the file of the credentials, the update. Prints JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import time


def main() -> None:
    module, credentials_path, update = sys.argv[1:]
    with open(credentials_path, encoding="utf-8") as file:
        credentials = json.load(file)
    client = importlib.import_module(module).Client(credentials, credentials["host"])
    said = {"before": client.run_status, "authenticated": client.authenticate()}
    said["file_id"] = client.file_upload(update)
    until = time.monotonic() + 60
    while time.monotonic() < until and client.queue.empty():
        time.sleep(0.05)
    try:
        aggregation_id = client.queue.get(block=False)
    except queue.Empty:
        aggregation_id = ""
    client.file_download(aggregation_id)
    said["aggregation_id"] = aggregation_id
    said["metrics"] = client.send_performance_metrics(aggregation_id, '{"loss": 0.5}', "test")
    while time.monotonic() < until and client.run_status == "pause":
        time.sleep(0.05)
    said["after"] = client.run_status
    with open("said.json", "w", encoding="utf-8") as file:
        json.dump(said, file)
    os._exit(0)  # the published client can't be closed


if __name__ == "__main__":
    main()
