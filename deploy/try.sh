#!/bin/sh
# The main job in one command: installs what is missing, builds, and fine-tunes the built-in demo model through a private
# daemon: live progress, the curve, curve.png, grid.png and a LoRA file in ./draft-demo. Options go to `draft demo`.
set -eu
top=$(cd "$(dirname "$0")/.." && pwd)
"$top/deploy/build.sh" "$top/build"
exec "$top/build/draft" demo "$@"
