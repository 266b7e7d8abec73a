#!/bin/sh
# Ends with 0 while a worker's heart beats: it touches this file at each beat, every leases.heartbeat_seconds.
beat=$(stat -c %Y "${SLUICE_LEASES__ALIVE_FILE:-/tmp/alive}") && test $(($(date +%s) - beat)) -lt 120
