"""PyTorch's variants, and which is the fastest: found once for a machine and a version, and remembered."""
import itertools
import json
import os
import sys

import processes

FLAGS = {"bf16": "--autocast", "channels_last": "--channels-last", "compile": "--compile"}
PLAIN = "fp32"
ALL = [" ".join([precision, *layout, *compiled]) for precision, layout, compiled in
       itertools.product(("fp32", "bf16"), ((), ("channels_last",)), ((), ("compile",)))]


def flags(variant):
    """"bf16 channels_last" -> the peers' options."""
    return [FLAGS[word] for word in variant.split() if word in FLAGS]


def processor():
    """A name that tells machines apart, where a virtual one says only "AMD EPYC"."""
    told = {}
    with open("/proc/cpuinfo") as file:
        for line in file:
            name, _, value = line.partition(":")
            told.setdefault(name.strip(), value.strip())
    name = told.get("model name", "processor")
    return f"{name} (family {told['cpu family']}, model {told['model']})" if "cpu family" in told else name


class Memory:
    """best-variant.json beside the models."""

    def __init__(self, path, machine):
        self.path, self.machine = path, machine
        try:
            self.known = json.loads(path.read_text())
        except FileNotFoundError:
            self.known = {}

    def fastest(self, work, command, seconds_of, again, say):
        """The fastest variant of `command(variant)`. Compiling, or memory, may fail a variant: then it is left out."""
        key = f"{work}; {self.machine}"
        if key not in self.known or again:
            times = {}
            for variant in ALL:
                try:
                    outcome = processes.run(command(variant), processes.TUNED_MALLOC)
                except processes.Failed as failure:
                    say(f"{work}, PyTorch {variant}: failed: {str(failure).splitlines()[-1][:160]}")
                    continue
                if outcome.out_of_memory:
                    say(f"{work}, PyTorch {variant}: out of memory")
                    continue
                times[variant] = seconds_of(outcome.result)
                say(f"{work}, PyTorch {variant}: {times[variant]:.3f} s")
            if not times:
                sys.exit(f"no variant of PyTorch ran {work}")
            self.known[key] = {"best": min(times, key=times.get), "seconds": times}
            partial = self.path.with_suffix(".new")
            partial.write_text(json.dumps(self.known, indent=1) + "\n")
            os.replace(partial, self.path)
        return self.known[key]["best"]
