#!/usr/bin/env bash
# The browser of the tests of the served page. To be sourced; defines functions, runs nothing.

BROWSERS="chromium chromium-browser google-chrome"  # as in tools/bench/serve_shot.py

has_browser() {
  local name
  for name in $BROWSERS; do
    command -v "$name" >/dev/null 2>&1 && return 0
  done
  return 1
}

# Root on Debian: only there can a package named chromium be installed without asking anyone.
may_install() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1 && grep -qs '^ID=debian$' /etc/os-release
}

# Installs Chromium where there is no browser and it can be had. Never fails: without one its tests
# are skipped, and pytest says so.
install_browser() {
  local log
  has_browser && return 0
  if ! may_install; then
    echo "no browser: the tests of the page will be skipped (Debian: apt-get install chromium)"
    return 0
  fi
  log=$(mktemp) || return 0
  echo "installing chromium with apt-get for the tests of the page (once, about 400 MB)"
  if (run_apt update && run_apt install --yes --no-install-recommends chromium) >"$log" 2>&1; then
    echo "installed chromium"
  else
    echo "no chromium from apt-get: the tests of the page will be skipped; its last lines:" >&2
    tail -n 5 "$log" >&2
  fi
  rm -f "$log"
}

# An apt-get that asks nothing and ends by itself where there is no network.
run_apt() {
  DEBIAN_FRONTEND=noninteractive timeout 900 \
    apt-get -qq -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o DPkg::Lock::Timeout=60 \
    "$@" </dev/null
}
