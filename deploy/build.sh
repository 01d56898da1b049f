#!/bin/sh
# Installs the Debian packages that are missing and builds draft, draftd and its worker into BUILD (default: build/); with
# --tests the tests as well, which are more than half of the work.
#
#   deploy/build.sh [--tests] [BUILD [CMAKE-OPTION ...]]
#
# Needs Debian 12 or newer, and root (or sudo) only when a package is missing.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
with_tests=
if [ "${1:-}" = --tests ]; then
    with_tests=1
    shift
fi
build=${1:-$top/build}
[ $# -eq 0 ] || shift

missing=
while read -r package purpose; do
    case $package in '' | '#'*) continue ;; esac
    [ -z "$purpose" ] || [ -n "$with_tests" ] || continue
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done <"$top/deploy/packages.txt"
if [ -n "$missing" ]; then
    echo "installing:$missing"
    as_root=
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || {
            echo "these packages are missing, and installing them needs root:$missing" >&2
            exit 1
        }
        as_root=sudo
    fi
    $as_root apt-get update -qq
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

cmake -S "$top" -B "$build" -G Ninja "$@" >"$build.log" 2>&1 || {
    cat "$build.log" >&2
    exit 1
}
rm -f "$build.log"
# What the build takes depends on the machine; how far it is and for how long it has run is told all the time.
export NINJA_STATUS='[%p of %t, %es] '
target=programs
[ -z "$with_tests" ] || target=all
if [ -f "$build/draftd" ]; then
    echo "building what has changed in $build"
else
    echo "building in $build: the first time takes minutes on few cores ($(nproc) here), later ones seconds"
fi
if [ -t 1 ]; then
    ninja -C "$build" "$target" # one line that counts
else
    ninja -C "$build" --quiet "$target"
fi
