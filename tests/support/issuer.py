"""An OpenID Connect issuer: it publishes its keys, and signs whatever a test wants to be signed."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.algorithms import OKPAlgorithm, RSAAlgorithm

KEY = Ed25519PrivateKey.generate()


def jwks(keys: dict[str, Any]) -> dict[str, Any]:
    """Return public ``keys`` by name as a JSON Web Key Set."""
    found = []
    for kid, key in keys.items():
        of: Any = OKPAlgorithm if isinstance(key, Ed25519PublicKey) else RSAAlgorithm
        found.append({**of.to_jwk(key, as_dict=True), "kid": kid})
    return {"keys": found}


def token(key: Any = KEY, *, kid: str | None = "k1", algorithm: str = "EdDSA", **claims: Any) -> str:
    """Return the ``Authorization`` header of alice, a user of acme; a claim that is None is left out."""
    whole = {"aud": "sluice", "sub": "alice", "exp": time.time() + 60, "tenant": "acme", "roles": ["user"], **claims}
    kept = {name: value for name, value in whole.items() if value is not None}
    return "Bearer " + jwt.encode(kept, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """Yield the address of an issuer that answers over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here = f"http://{self.headers['host']}"
            found = {"jwks_uri": f"{here}/keys"} if "openid" in self.path else jwks({"k1": KEY.public_key()})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
