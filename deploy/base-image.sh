#!/usr/bin/env bash
# Make a stand-in for python:3.11-slim from Debian packages, for hosts that reach no image registry.
#
#   sudo deploy/base-image.sh [NAME]     then: make image BASE_IMAGE=NAME
#
# The image gets the certificate authorities of the host, the addresses of its Debian archive, and uv
# from .venv, with which BentoML installs the packages.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${1:-python-slim-stand-in:3.11}
suite=bookworm # it has Python 3.11
default="http://deb.debian.org/debian $suite"

[ "$(id -u)" = 0 ] || { echo "Run this as root: debootstrap needs it" >&2; exit 1; }
command -v debootstrap >/dev/null || { echo "Install debootstrap first" >&2; exit 1; }
docker version >/dev/null || { echo "Start the Docker engine first" >&2; exit 1; }
[ -x .venv/bin/uv ] || { echo "Run make .venv/ready first: it installs uv" >&2; exit 1; }

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

# The archives of this suite (also -updates, -security) that the host uses, as "address suite".
archives=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
    grep " $suite" | sort -u || true)
archives=${archives:-$default}
mirror=$(awk -v suite="$suite" '$2 == suite { print $1; exit }' <<<"$archives")

debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,python3-pip \
    "$suite" "$root" "$mirror"
awk '{ print "deb", $1, $2, "main" }' <<<"$archives" >"$root/etc/apt/sources.list"
cp -r /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/"
cp /etc/resolv.conf "$root/etc/"
chroot "$root" sh -euc '
    update-ca-certificates
    apt-get update
    apt-get upgrade --yes
    apt-get clean
    ln -s /usr/bin/python3 /usr/local/bin/python
    # As in python:3.11-slim, pip may install packages.
    rm /usr/lib/python3.11/EXTERNALLY-MANAGED
    rm -rf /var/lib/apt/lists/* /var/log/* /usr/share/doc/* /usr/share/man/* /usr/share/locale/*
'
rm "$root/etc/resolv.conf"
install .venv/bin/uv "$root/usr/local/bin/"

tar -C "$root" -c . | docker import \
    --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' --change 'CMD ["python3"]' - "$name"
