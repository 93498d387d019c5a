#!/usr/bin/env bash
# Sets the toolkit up with the test tools and runs all tests: unit tests first, then the slow ones (marker `slow`).
# As root on Debian it also installs Chromium, which the tests of the served page use; elsewhere,
# without a browser, they are skipped.
# Up to four cores share the tests out among them: each takes them in the order of their files, and what is left
# from another that is behind.
# Arguments go to pytest, e.g. bash test/run.sh -m "not slow".
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export OMP_NUM_THREADS=1
# shellcheck source=path.sh
. "$root/path.sh"
setup_environment "$root" requirements.txt test/requirements.txt </dev/null
# shellcheck source=test/browser.sh
. "$root/test/browser.sh"
install_browser

cd "$root"
export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1  # the tests need no network; one that tries fails at once
# OMP_NUM_THREADS is what nproc would print.
cores=$(env -u OMP_NUM_THREADS nproc)
workers=$((cores < 4 ? cores : 4))
# -rfEs prints failures, and what was not run with the reason, just before pytest's closing line.
exec python -m pytest -q -rfEs --timeout 900 --durations 10 --numprocesses "$workers" --dist worksteal "$@" </dev/null
