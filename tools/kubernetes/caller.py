"""Calls a service without end, on a connection of its own each time, and prints what each call is answered.

Usage: caller.py HOST PORT
"""

import socket
import sys
import time

REQUEST = b"GET / HTTP/1.1\r\nhost: service\r\nconnection: close\r\n\r\n"


def call(host: str, port: int) -> str:
    """Returns the status of one call, or what went wrong."""
    try:
        with socket.create_connection((host, port), timeout=120) as sock:
            sock.sendall(REQUEST)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
    except OSError as error:
        return type(error).__name__
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split(b" ")[1].decode() if body else "no answer"


while True:
    print(call(sys.argv[1], int(sys.argv[2])), flush=True)
    time.sleep(0.02)
