#!/bin/sh
# What deploy/ names must be there: files that containers copy and pages link, options of draftd, packages that both containers
# need. No container is built.
#
#   tests/deploy.sh DRAFTD
set -u
draftd=$1
cd "$(dirname "$0")/.." || exit 1
bad=0
complain() {
    echo "deploy: $1"
    bad=1
}
for file in deploy/Dockerfile deploy/Dockerfile.cuda; do
    for path in $(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' "$file"); do
        [ -e "$path" ] || complain "$file copies $path, which is not there"
    done
    for stage in $(sed -n 's/^COPY --from=\([a-z]*\) .*/\1/p; s/^FROM \([a-z]*\)\( AS .*\)*$/\1/p' "$file"); do
        grep -q "^FROM .* AS $stage\$" "$file" || complain "$file has no stage $stage"
    done
    for option in $(grep '^ENTRYPOINT' "$file" | grep -oE -- '--[a-z-]+'); do
        "$draftd" --help | grep -q -- "$option" || complain "$file gives draftd $option, which it does not take"
    done
done
# Both run the same programs: Dockerfile.cuda's libraries are Dockerfile's and NVIDIA's.
for package in $(sed -n '/fonts-dejavu-core/,/rm -rf/p' deploy/Dockerfile | grep -oE '(fonts|lib)[a-z0-9-]+'); do
    sed -n '/fonts-dejavu-core/,/rm -rf/p' deploy/Dockerfile.cuda | grep -qw -- "$package" ||
        complain "Dockerfile.cuda lacks $package"
done
for target in $(grep -oE 'ninja -C /build [a-z_ -]+' deploy/Dockerfile.cuda | cut -d' ' -f4-); do
    grep -qE "add_(executable|library)\($target " CMakeLists.txt || complain "Dockerfile.cuda builds $target, which is no target"
done
for link in $(grep -oE '\]\([^)#]+\)' deploy/gpu.md | tr -d '])(' | grep -v '^http'); do
    [ -e "deploy/$link" ] || complain "gpu.md links $link, which is not there"
done
for key in $(sed -n 's/^\([A-Za-z]*\)=.*/\1/p' deploy/draftd-gpu.conf); do
    case $key in
    After | Wants | PrivateDevices | DevicePolicy | DeviceAllow | MemoryDenyWriteExecute | CacheDirectory | CacheDirectoryMode | Environment) ;;
    *) complain "draftd-gpu.conf sets $key: does the unit know it?" ;;
    esac
done
[ $bad -eq 0 ] && echo "what deploy/ names is there"
exit $bad
