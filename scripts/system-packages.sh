#!/usr/bin/env bash
# System packages the tests need and pip cannot bring: Debian's Chromium, and the GL libraries that MediaPipe
# loads. Installs what is missing where this user may (root, apt-get); elsewhere says what to install.
#   scripts/system-packages.sh chromium    required: fails where it cannot be had
#   scripts/system-packages.sh libraries   wanted: tests that need them fail by name where they are absent
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin"  # where Debian keeps ldconfig

missing_libraries() {
    local lib known
    known=$(ldconfig -p)
    for lib in libGLESv2.so.2 libEGL.so.1 libGL.so.1 libglib-2.0.so.0; do
        [[ $known == *"$lib"* ]] || echo "$lib"
    done
}

apt_install() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

case "${1:-}" in
chromium)
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" >/dev/null && exit 0
    done
    echo "Installing Chromium for the browser tests"
    apt_install chromium chromium-driver fonts-dejavu-core && exit 0
    echo "Chromium was not found and cannot be installed here (that needs root and apt-get)." >&2
    echo "Install it (Debian: apt-get install chromium chromium-driver), or leave the browser tests out: make test-all BROWSER=no" >&2
    exit 1
    ;;
libraries)
    [ "$(uname -s)" = Linux ] && command -v ldconfig >/dev/null || exit 0
    missing=$(missing_libraries)
    [ -z "$missing" ] && exit 0
    echo "MediaPipe needs system libraries that are missing here:" $missing
    apt_install libgl1 libegl1 libgles2 libglib2.0-0 && exit 0
    echo "Install them (Debian: apt-get install libgl1 libegl1 libgles2 libglib2.0-0) to read faces from clips." >&2
    exit 0
    ;;
*)
    echo "usage: $0 chromium|libraries" >&2
    exit 2
    ;;
esac
