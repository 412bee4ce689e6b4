#!/usr/bin/env bash
# Replace the running replicas of compose.yaml one by one with new ones, of the image as it is now.
# Each starts before its predecessor stops, so that no request is lost and no capacity is missing.
#
# REPLAY_LOG  a folder with the prediction log of the replicas: replay it with the model of the new image, and
#             replace nothing if that model is refused (docs/after-the-request.md); needs MODEL
# MODEL       the tag of that model
set -euo pipefail
if [ -n "${REPLAY_LOG:-}" ]; then
    REPLAY_LOG=$(realpath "$REPLAY_LOG")
    (cd "$(dirname "$0")/.." && .venv/bin/python -m training replay "$REPLAY_LOG" \
        --model "${MODEL:?Say with MODEL which model the image holds}") || exit
fi
cd "$(dirname "$0")"

compose() { if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi; }

healthy() {
    local states
    states=$(compose ps -q service | xargs docker inspect --format '{{.State.Health.Status}}')
    [ -n "$states" ] && ! grep -qv '^healthy$' <<<"$states"
}

await_health() {
    for _ in {1..60}; do
        healthy && return
        sleep 1
    done
    echo "A replica is not healthy after 60 s (docker ps); the others serve on" >&2
    exit 1
}

await_health
old=$(compose ps -q service)
for replica in $old; do
    compose up --detach --no-deps --no-recreate --scale "service=$(($(wc -w <<<"$old") + 1))" service
    await_health
    docker stop "$replica" >/dev/null
    docker rm "$replica" >/dev/null
done
