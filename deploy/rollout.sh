#!/usr/bin/env bash
# Replace the running replicas of compose.yaml one by one with new ones, of the image as it is now.
# Each starts before its predecessor stops, so that no request is lost and no capacity is missing.
set -euo pipefail
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
