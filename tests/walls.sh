#!/bin/sh
# The house's walls, held by grep: three worlds meet only at headers; no CUDA switch in shared code; no file without a name.
set -u
cd "$(dirname "$0")/.." || exit 1
bad=0
refuse() { # what, matches
    [ -z "$2" ] && return
    echo "wall: $1"
    echo "$2"
    bad=1
}
refuse "engine/ includes gRPC, protobuf-c or SQLite" \
    "$(grep -rnE '#include *[<"](grpc|protobuf-c|sqlite3|[a-z/0-9_]*\.pb-c)' engine --include='*.[ch]')"
refuse "SQLite outside server/store/" \
    "$(grep -rnE '#include *[<"]sqlite3' server client --include='*.[ch]' | grep -v '^server/store/')"
refuse "gRPC outside server/rpc/ and client/rpc/" \
    "$(grep -rnE '#include *[<"]grpc/[a-z_]*\.h' server client --include='*.[ch]' | grep -vE '^(server|client)/rpc/')"
# client/cmd_merge.c: LoRA files, which need no engine. A .def is a table of names, no code.
refuse "the daemon links the engine (only draft-engine may)" \
    "$(grep -rnE '#include *[<"](engine\.h|(train|models|rewards|ops|autograd|backend|sampler|tensor)/)' server client --include='*.[ch]' | grep -v '^server/worker/' | grep -vE '\.def"$|^client/cmd_merge.c:[0-9]+:#include "tensor/lora_merge.h"')"
refuse "#ifdef CUDA in ops, models, rewards, sampler or train" \
    "$(grep -rnE '^ *# *if.*CUDA' engine/ops engine/models engine/rewards engine/sampler engine/train --include='*.[ch]')"
# The picture at the head of engine/state.h.
refuse "engine/'s own files know one that stands beside or above them" \
    "$(grep -nE '#include "(training|memory_plan|profiling)\.h"' engine/state.[ch] engine/fingerprint.[ch] engine/memory_plan.h engine/training.h /dev/null; \
       grep -nE '#include "(training|profiling)\.h"' engine/memory.c /dev/null; \
       grep -nE '#include "(memory_plan|profiling)\.h"' engine/training.c engine/step.c engine/pictures.c /dev/null)"
refuse "unfinished work" \
    "$(grep -rnwE 'TODO|FIXME|XXX|HACK' engine server client proto migrations --include='*.[ch]' --include='*.proto' --include='*.sql')"
refuse "a file name that says nothing" \
    "$(find engine server client tests -regextype posix-extended -regex '.*/(utils?|helpers?|misc|common)\.[ch]')"
refuse "a file above 1000 lines" \
    "$(find engine server client tests \( -name '*.c' -o -name '*.h' \) -exec wc -l {} + | awk '$2 != "total" && $1 > 1000')"
[ $bad -eq 0 ] && echo "the walls hold"
exit $bad
