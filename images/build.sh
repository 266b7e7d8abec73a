#!/bin/sh
# Builds what an image runs: a virtual environment in PREFIX. The Dockerfile runs these steps and no others.
#
#   images/build.sh tools                         what installs and builds, in $TOOLS
#   images/build.sh dependencies STAGE PREFIX     a new environment with what images/STAGE.lock names
#   images/build.sh project STAGE PREFIX          Sluice itself, without what the stage has no use for; and a check that
#                                                 it starts, and has nothing it must not have
#   images/build.sh all STAGE PREFIX              all of that
set -eu

TOOLS=${TOOLS:-/opt/tools}
PYTHON=${PYTHON:-python3}
STEP=${1:?STEP} STAGE=${2:-} PREFIX=${3:-}

tools() {
  "$PYTHON" -m venv "$TOOLS"
  "$TOOLS/bin/python" -m pip install -q --disable-pip-version-check --no-cache-dir --require-hashes -r images/build.lock
}

dependencies() {
  "$PYTHON" -m venv --clear --without-pip "$PREFIX"
  "$TOOLS/bin/uv" pip install -q --python "$PREFIX/bin/python" --no-deps --only-binary :all: --compile-bytecode \
    --require-hashes -r "images/$STAGE.lock"
}

project() {
  wheels=$(mktemp -d)
  "$TOOLS/bin/uv" build -q --wheel --no-build-isolation --python "$TOOLS/bin/python" --out-dir "$wheels"
  "$TOOLS/bin/uv" pip install -q --python "$PREFIX/bin/python" --no-deps --compile-bytecode "$wheels"/*.whl
  rm -r "$wheels"
  packages=$("$PREFIX/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  case $STAGE in
    intent-*) rm -r "$packages/intent/data" ;;
    *) rm -r "$packages/intent" ;;
  esac
  # Descriptions of 400 services; functions of your own, which agents may call, may want any of them.
  case $STAGE in
    agent) ;;
    *) find "$packages/botocore/data" -mindepth 1 -maxdepth 1 -type d ! -name kms ! -name s3 ! -name secretsmanager \
      ! -name sns ! -name sqs ! -name 'sso*' ! -name sts -exec rm -r {} + ;;
  esac
  install -m 755 images/alive.sh "$PREFIX/bin/alive"
  check
}

check() {
  # Elsewhere: what lies here must not be what is imported.
  (cd / && "$PREFIX/bin/sluice" worker --help >/dev/null)
  (cd / && "$PREFIX/bin/python" - "$STAGE") <images/check.py
}

case $STEP in
  tools) tools ;;
  dependencies | project) "$STEP" ;;
  all) tools && dependencies && project ;;
  *) echo "there is no step $STEP" >&2 && exit 2 ;;
esac
