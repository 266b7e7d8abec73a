#!/usr/bin/env bash
# Validates, applies and destroys examples/complete with the real AWS provider, against moto in server mode. Where the provider
# cannot be had (no network, no TF_PLUGIN_CACHE_DIR), it says so and ends well: the stand-in has been run before.
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v terraform >/dev/null || { echo "skipped: the real provider (no terraform here)"; exit 0; }
work=$(mktemp -d) && trap 'kill "${moto:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cp -r terraform pipeline.yaml "$work/" && cd "$work/terraform/examples/complete" && printf 'no code' > "$work/handlers.zip"
if ! timeout 120 terraform init -no-color -backend=false -input=false > "$work/init.log" 2>&1; then
  echo "skipped: the real provider (it cannot be downloaded here, and is in no TF_PLUGIN_CACHE_DIR)"; exit 0
fi
terraform validate -no-color
command -v moto_server >/dev/null || { echo "skipped: apply on the real provider (no moto_server: pip install 'moto[server]')"; exit 0; }
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
moto_server -H 127.0.0.1 -p "$port" > "$work/moto.log" 2>&1 & moto=$!
for _ in $(seq 50); do (: < "/dev/tcp/127.0.0.1/$port") 2>/dev/null && break; sleep 0.2; done
given=(-var name=acme -var region=us-east-1 -var "endpoint=http://127.0.0.1:$port" -var "handlers_zip=$work/handlers.zip")
terraform apply -no-color -input=false -auto-approve "${given[@]}"
terraform state rm module.sluice.module.audit
terraform destroy -no-color -input=false -auto-approve "${given[@]}"
