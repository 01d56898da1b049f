#!/bin/sh
# libdraft_cuda.so as users get it: it exports one function, needs cuBLASLt, cuDNN and the C library, and no symbol of ours.
#   cuda_plugin.sh PLUGIN
set -eu
bad=0
expect() { # what, got, wanted
    [ "$2" = "$3" ] && return
    echo "$1: \"$2\", expected \"$3\""
    bad=1
}
needed=$(readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vE '^(libc|libm|ld-linux.*)\.so\.[0-9]$' | tr '\n' ' ')
expect "needed libraries" "$needed" "libcublasLt.so.13 libcudnn.so.9 "
expect "exported symbols" "$(nm -D --defined-only "$1" | awk '{print $3}' | tr '\n' ' ')" "draft_backend "
expect "undefined symbols of ours" "$(nm -D --undefined-only "$1" | grep -c ' draft_' || true)" 0
exit $bad
