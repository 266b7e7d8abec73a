"""Check offline what `sluice audit prove` wrote: python check_inclusion.py proof.json ring.json (needs pynacl)."""

import base64
import hashlib
import json
import sys
from pathlib import Path

from nacl.signing import VerifyKey


def need(holds, problem):
    if not holds:
        sys.exit(f"does not hold: {problem}")


def sha(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def signed(ring, kid, data, signature, purpose):
    """The ring must allow the key to sign this, and the key must have signed it (else PyNaCl raises)."""
    [key] = [key for key in ring["keys"] if key["kid"] == kid]
    allowed = key["scope"]["purposes"]
    need(any(purpose == p or (p[-1:] == "*" and purpose.startswith(p[:-1])) for p in allowed), f"{kid} signs {purpose}")
    VerifyKey(base64.urlsafe_b64decode(key["x"] + "==")).verify(data, signature)


def root_of(leaf, index, size, path):
    """From a leaf upwards (RFC 6962, 2.1.1)."""
    node, last = sha(b"\0", leaf), size - 1
    for sibling in map(bytes.fromhex, path):
        need(0 <= index <= last and last, "the path")
        while not index & 1 and index == last:
            index, last = index >> 1, last >> 1
        node = sha(b"\1", sibling, node) if index & 1 else sha(b"\1", node, sibling)
        index, last = index >> 1, last >> 1
    need(index == last == 0, "the path")
    return node


def main(proof, ring):
    need(proof["segments"] and all(part["records"] for part in proof["segments"]), "it proves nothing")
    for part in proof["segments"]:
        leaf, header, hashes = json.loads(part["leaf"]), json.loads(part["header"]), part["hashes"]
        body, _, line = part["checkpoint"].rpartition("\n\n")  # a C2SP signed note
        _, kid, blob = line.split()
        signed(ring, kid, f"{body}\n".encode(), base64.b64decode(blob)[4:], "checkpoint")
        _, size, root = body.split("\n")[:3]
        computed = root_of(part["leaf"].encode(), part["index"], int(size), part["path"])
        need(computed == base64.b64decode(root), "the segment is not in the tree")
        purpose = "audit:" + header["stream"].split("~")[0]
        signed(ring, header["kid"], part["header"].encode(), bytes.fromhex(part["signature"]), purpose)
        need(
            leaf["key"].endswith("~{stream}~{first:012d}.jsonl.zst".format(**header)), "the leaf is of another segment"
        )
        need((leaf["last"], leaf["count"]) == (hashes[-1], len(hashes)), "the leaf has other records")
        need(sha(*map(bytes.fromhex, hashes)).hex() == header["digest"], "the header is of other records")
        for place, record in part["records"].items():
            need(sha(record.encode()).hex() == hashes[int(place)], "the segment has another record")
            need(json.loads(record)["request_id"] == proof["request_id"], "the record is of another request")
            print(record)


main(*(json.loads(Path(name).read_bytes()) for name in sys.argv[1:3]))
