#!/usr/bin/env bash
# Replace the running replicas of compose.yaml one by one with new ones of the current image. Each
# starts before its predecessor stops: no request is lost, and the capacity stays the same.
#
# IMAGE         the image (default: house_price:latest)
# COMPOSE_FILE  Compose's files in this folder, separated by colons, if there are more than compose.yaml
# REPLAY_LOG    a folder with the prediction log of the replicas. Replay it with the model of the image
#               first, and replace nothing if the model fails the replay, or the replay ends with an
#               error (docs/after-the-request.md)
set -euo pipefail

fail() { echo "$*" >&2; exit 1; }

image_model() { # print the tag of the model in an image
    docker run --rm --network none --entrypoint cat "$1" /home/bentoml/bento/bento.yaml |
        # the first `- tag:` after the first line that ends in `models:`
        sed -n '/models:$/,$ s/^ *- tag: //p' | head -n 1
}

if [ -n "${REPLAY_LOG:-}" ]; then
    REPLAY_LOG=$(realpath "$REPLAY_LOG")
    image=${IMAGE:-house_price:latest}
    model=$(image_model "$image") || true
    [ -n "$model" ] || fail "The image $image has no bento.yaml with a model: build it with make image"
    (cd "$(dirname "$0")/.." && .venv/bin/python -m training replay "$REPLAY_LOG" --model "$model") || exit
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
    fail "A replica is not healthy after 60 s (docker ps); the others continue to serve"
}

await_health
old=$(compose ps -q service)
for replica in $old; do
    compose up --detach --no-deps --no-recreate --scale "service=$(($(wc -w <<<"$old") + 1))" service
    await_health
    docker stop "$replica" >/dev/null
    docker rm "$replica" >/dev/null
done
