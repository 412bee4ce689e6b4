#!/usr/bin/env bash
# Build a Bento of this folder and its image, and start a container as a test; called by `make image`.
# With --check, only check that Docker can build it.
#
# BASE_IMAGE        the base image (default: python:VERSION-slim, with the version of Python in .venv)
# TAG               the name of the image (default: house_price:latest)
# UV_DEFAULT_INDEX  the package index (default: the one in the configuration of pip)
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PWD/.venv/bin:$PATH DOCKER_BUILDKIT=1

fail() { echo "$*" >&2; exit 1; }

command -v docker >/dev/null || fail "There is no docker command: install Docker Engine"
docker version >/dev/null 2>&1 || fail "No Docker engine answers: start it (docker version says more)"
docker build --quiet - <<<$'FROM scratch\nLABEL probe=buildkit' >/dev/null ||
    fail "docker build needs BuildKit: install docker-buildx, or put a docker command that has it first on PATH"

base=$(python -c 'from serving._bentoml.container_image import BASE_IMAGE; print(BASE_IMAGE)')
docker image inspect "$base" >/dev/null 2>&1 || docker pull --quiet "$base" ||
    fail "There is no base image $base: name another one with BASE_IMAGE, or make one (deploy/base-image.sh)"
[ "${1:-}" != --check ] || exit 0

UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$(python -m pip config get global.index-url 2>/dev/null || true)}
export UV_DEFAULT_INDEX

built=$(bentoml build --output tag) || fail "The Bento was not built"
bento=${built##*__tag__:}
tag=${TAG:-${bento%:*}:latest}
bentoml containerize "$bento" --image-tag "$tag" >/dev/null # its output advises a docker run without limits

# If the image lacks a package that service.py imports, only the start of a container shows it.
hardened=(--user 1034:1034 --read-only --tmpfs /tmp -e BENTOML_HOME=/tmp/bentoml --cap-drop ALL --security-opt no-new-privileges)
container=${bento/:/-}-check-$$
trap 'docker rm --force "$container" >/dev/null 2>&1 || true' EXIT
trap 'exit 130' INT # without it, bash continues after a docker command that handled the signal

is_running() { [ "$(docker container inspect --format '{{.State.Running}}' "$container")" = true ]; }

is_ready() {
    docker exec "$container" python -c "import http.client as h; c = h.HTTPConnection('127.0.0.1', 3000, 5)
c.request('GET', '/readyz'); exit(c.getresponse().status != 200)" 2>/dev/null
}

await_ready() {
    for _ in {1..60}; do
        is_ready && return
        is_running || break
        sleep 1
    done
    docker logs "$container" >&2
    fail "A container of $tag did not get ready; its log is above"
}

docker run --detach --name "$container" "${hardened[@]}" "$tag" >/dev/null
await_ready

bytes() { docker image inspect --format '{{.Size}}' "$1"; }
over=$(($(bytes "$tag") - $(bytes "$base")))
cat <<END
Built $tag: $(($(bytes "$tag") / 1000000)) MB, $((over / 1000000)) MB of it over $base
Run it with
  docker run --rm -p 3000:3000 ${hardened[*]} $tag
END
