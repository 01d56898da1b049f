#!/bin/sh
# Every tracked source is as clang-format 14 (Debian 12's; others differ) writes it by .clang-format.
cd "$(dirname "$0")/.." || exit 1
clang_format=$(command -v clang-format-14 || command -v clang-format) || {
    echo "skipped: no clang-format; apt-get install clang-format"
    exit 77
}
"$clang_format" --version | grep -q 'version 14\.' || {
    echo "skipped: $("$clang_format" --version) is not 14, which formats otherwise"
    exit 77
}
git rev-parse --git-dir >/dev/null 2>&1 || {
    echo "skipped: no git checkout, which says what the sources are"
    exit 77
}
git ls-files -z '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' | xargs -0 -n 64 "$clang_format" --dry-run -Werror && exit 0
echo "clang-format -i FILE mends each of them"
exit 1
