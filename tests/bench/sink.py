"""A plain HTTP server as fast as Python can: takes bodies and forgets them, serves one file.

    python tests/bench/sink.py FILE

It prints its port, and ends when its standard input is closed. POST reads a body of a known length
and answers 201 as the service does; GET /file serves FILE; any other GET names the URL of it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading

_BUFFER = bytearray(1 << 20)


def _answer(connection: socket.socket, status: int, told: dict[str, str]) -> None:
    body = json.dumps({"data": told}).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    connection.sendall(head.encode() + body)


def _take(connection: socket.socket, head: bytes, nbytes_read: int) -> None:
    lines = head.lower().split(b"\r\n")
    lengths = [line.partition(b":")[2] for line in lines if line.startswith(b"content-length:")]
    left = int(lengths[0]) - nbytes_read
    while left and (nbytes := connection.recv_into(_BUFFER)):
        left -= nbytes
    if not left:
        _answer(connection, 201, {"file_id": "file-1"})


def _give(connection: socket.socket, path: str) -> None:
    with open(path, "rb") as file:
        nbytes = os.fstat(file.fileno()).st_size
        head = f"HTTP/1.1 200 X\r\nContent-Length: {nbytes}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        connection.sendfile(file)


def _serve(connection: socket.socket, port: int, path: str) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        if not (data := connection.recv(1 << 16)):
            return
        head += data
    head, _, rest = head.partition(b"\r\n\r\n")
    if head.startswith(b"POST "):
        _take(connection, head, len(rest))
    elif head.startswith(b"GET /file "):
        _give(connection, path)
    else:
        _answer(connection, 200, {"download_url": f"http://127.0.0.1:{port}/file"})


def _main(path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        print(port, flush=True)
        threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
        while True:
            connection, _ = listener.accept()
            with connection:
                _serve(connection, port, path)


if __name__ == "__main__":
    _main(sys.argv[1])
