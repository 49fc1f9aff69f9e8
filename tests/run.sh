#!/bin/sh
# Installs what the tests need on a bare Debian or Ubuntu, as root or as a user who may sudo, and runs everything.
set -eu
cd "$(dirname "$0")/.."

as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi; }

# An answer of the package mirror may fail for a moment; a second try is cheaper than a lost run.
again() { "$@" || { sleep 5; "$@"; }; }

export DEBIAN_FRONTEND=noninteractive
again as_root apt-get -qq update
again as_root apt-get -qq install --yes --no-install-recommends \
    python3 python3-venv openssh-server openssh-client chromium curl gcc libc6-dev fonts-dejavu-core >/dev/null

[ -x .venv/bin/python ] || python3 -m venv .venv
again .venv/bin/pip install --quiet --disable-pip-version-check --editable '.[test]'

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy tunnelweb forwards
.venv/bin/python manage.py makemigrations --check --dry-run
# Forwards once more on the plain path, which carries them wherever the fast one must not be used.
(cd tests/engine && TUNNELWEB_FAST_PATH=0 ../../.venv/bin/python -m pytest -q -n 4 --dist worksteal \
    test_connection.py test_listeners.py test_probe.py test_relay.py test_runner.py test_socks_front.py test_supervisor.py)
exec .venv/bin/python -m pytest -q -n 4 --dist worksteal "$@"
