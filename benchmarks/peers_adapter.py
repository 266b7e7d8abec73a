"""Sluice as one of the systems of a harness that runs the same two-hop workload on several of them.

The harness is a folder of its own (its ``run.py``, ``system.py`` and ``work.py``); `make bench-peers PEERS=FOLDER` runs
it with this adapter. Everything is on: durable register (every write synced), leases, audit, create-once results.
This module runs in the harness; :mod:`benchmarks.peers_worker` in the workers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import Any

import infra
import work
from system import System

from handlers.producer import Producer
from scaling import keyfiles
from scaling.stack import redis_server
from tasks.settings import Settings

AUDIT_BUCKET = "sluice-audit"
WORKERS = 2


def _make_audit_bucket(client: Any) -> None:
    with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou, client.exceptions.BucketAlreadyExists):
        client.create_bucket(Bucket=AUDIT_BUCKET, ObjectLockEnabledForBucket=True)
    retention = {"Mode": "COMPLIANCE", "Days": 1}
    client.put_object_lock_configuration(
        Bucket=AUDIT_BUCKET,
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )


class Sluice(System):  # type: ignore[misc]  # the harness is not typed
    name = "sluice"

    def __init__(self, env: dict[str, str]) -> None:
        super().__init__(env)
        self.workers: list[subprocess.Popen[bytes] | None] = [None] * WORKERS

    def start_broker(self) -> None:
        folder = infra.DATA / "sluice-redis"
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.rglob("*.aof*"):
            old.unlink()
        durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
        where = ["--port", infra.REDIS_PORT, "--bind", "127.0.0.1", "--dir", folder]
        self.redis = infra.spawn([redis_server(), *where, *durable], "sluice-redis.log")
        infra.wait_port(infra.REDIS_PORT)
        keys = {"AWS_ACCESS_KEY_ID": "peer", "AWS_SECRET_ACCESS_KEY": "peerpeer"}
        signing = keyfiles.ensure(infra.DATA / "sluice-home" / "keys")
        self.variables = {
            **keys,
            **keyfiles.environment(signing),
            "SLUICE_REDIS_URL": infra.REDIS_URL,
            "SLUICE_S3_ENDPOINT": os.environ["PEERS_S3"],
            "SLUICE_DATA_BUCKET": work.BUCKET,
            "SLUICE_AUDIT_BUCKET": AUDIT_BUCKET,
            "SLUICE_HOME": str(infra.DATA / "sluice-home"),
            "SLUICE_LOG_LEVEL": "WARNING",
        }
        os.environ.update(keys)
        settings = Settings(
            redis_url=infra.REDIS_URL,
            s3_endpoint=os.environ["PEERS_S3"],
            data_bucket=work.BUCKET,
            audit_bucket=AUDIT_BUCKET,
            signing=signing,
        )
        _make_audit_bucket(work.s3_client())
        self.producer = Producer(settings)
        self.producer.__enter__()

    def start(self) -> None:
        for number in range(WORKERS):
            self._start(number)

    def _start(self, number: int) -> None:
        root = str(infra.pathlib.Path(__file__).resolve().parent.parent)
        path = os.pathsep.join([root, str(infra.HERE)])
        self.workers[number] = infra.spawn(
            [sys.executable, "-m", "benchmarks.peers_worker"],
            f"sluice_{number}.log",
            **{**self.env, **self.variables, "PYTHONPATH": path},
        )

    def submit(self, requests: list[dict[str, Any]]) -> None:
        if len(requests) == 1:
            self.producer.submit(requests[0]["text"], id=requests[0]["id"])
        else:
            self.producer.submit_many([{"id": request["id"], "text": request["text"]} for request in requests])

    def pids(self) -> dict[str, list[int]]:
        return {"system": [worker.pid for worker in self.workers if worker], "broker": [self.redis.pid]}

    def victim(self) -> int:
        worker = self.workers[0]
        assert worker is not None
        return worker.pid

    def revive(self) -> None:
        infra.stop(self.workers[0])
        self._start(0)

    def stop(self) -> None:
        for worker in self.workers:
            infra.stop(worker, grace=20)
        self.producer.__exit__()
        infra.stop(self.redis)
