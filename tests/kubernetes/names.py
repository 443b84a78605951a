#!/usr/bin/env python3
"""Names of a cluster's services for its pods, over UDP: A records of NAME.NAMESPACE.svc.cluster.local (the service's address; of a headless one
those of its pods) and of POD.NAME.NAMESPACE.svc.cluster.local, read from the API server at every question.

usage: names.py ADDRESS APISERVER TOKEN"""
import json
import socket
import ssl
import struct
import sys
import urllib.error
import urllib.request

ADDRESS, API, TOKEN = sys.argv[1:4]
NOBODY = ssl._create_unverified_context()  # on one machine, in a network of its own
SUFFIX = ["svc", "cluster", "local"]
A, CLASS_IN, TTL_S, NO_SUCH_NAME = 1, 1, 1, 3


def get(path):
    request = urllib.request.Request(API + path, headers={"Authorization": "Bearer " + TOKEN})
    try:
        with urllib.request.urlopen(request, context=NOBODY, timeout=2) as answer:
            return json.load(answer)
    except urllib.error.HTTPError:
        return None


def look_up(name):
    """Its addresses; None: there is no such name."""
    labels = name.lower().rstrip(".").split(".")
    if labels[-3:] != SUFFIX or len(labels) not in (5, 6):
        return None
    pod = labels[0] if len(labels) == 6 else None
    service, namespace = labels[-5:-3]
    spec = (get(f"/api/v1/namespaces/{namespace}/services/{service}") or {}).get("spec")
    if spec is None:
        return None
    if spec.get("clusterIP") != "None":
        return [spec["clusterIP"]] if pod is None else None
    subsets = (get(f"/api/v1/namespaces/{namespace}/endpoints/{service}") or {}).get("subsets", [])
    found = [a for s in subsets for a in s.get("addresses", []) + (s.get("notReadyAddresses", []) if spec.get("publishNotReadyAddresses") else [])]
    return [a["ip"] for a in found if pod is None or a.get("hostname") == pod] or None


def answer(question):
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1:at + 1 + question[at]].decode())
        at += question[at] + 1
    kind, = struct.unpack(">H", question[at + 1:at + 3])
    addresses = look_up(".".join(labels))
    records = addresses if addresses and kind == A else []
    head = question[:2] + struct.pack(">HHHHH", 0x8580 | (NO_SUCH_NAME if addresses is None else 0), 1, len(records), 0, 0)
    return head + question[12:at + 5] + b"".join(b"\xc0\x0c" + struct.pack(">HHIH", A, CLASS_IN, TTL_S, 4) + socket.inet_aton(a) for a in records)


def main():
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((ADDRESS, 53))
    while True:
        question, peer = server.recvfrom(1500)
        try:
            server.sendto(answer(question), peer)
        except (OSError, ValueError, IndexError, struct.error) as error:
            print(error, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
