"""PyTorch's variants, and which is the fastest: found once for a machine and a version, and remembered."""
import itertools
import json
import os
import sys
import time

import processes

FLAGS = {"bf16": "--autocast", "channels_last": "--channels-last", "compile": "--compile"}
PLAIN = "fp32"
ALL = [" ".join([precision, *layout, *compiled]) for compiled, precision, layout in  # those that compile last: they may take long
       itertools.product(((), ("compile",)), ("fp32", "bf16"), ((), ("channels_last",)))]


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
    """best-variant.json beside the models: of each work its "seconds" and, of variants that gave none, why ("failed")."""

    def __init__(self, path, machine):
        self.path, self.machine = path, machine
        try:
            self.known = json.loads(path.read_text())
        except FileNotFoundError:
            self.known = {}

    def keep(self):
        partial = self.path.with_suffix(".new")
        partial.write_text(json.dumps(self.known, indent=1) + "\n")
        os.replace(partial, self.path)

    def fastest(self, work, command, seconds_of, again, minutes, say):
        """The fastest variant of `command(variant)`. A search takes `minutes` at most: each variant may take its share of
        what the ones before it left. Compiling, memory or the time may fail a variant: then it is left out. What is found
        is kept at once, so a search that was stopped goes on where it was."""
        key = f"{work}; {self.machine}"
        found = self.known.setdefault(key, {})
        if again:
            found.clear()
        seconds, failed = found.setdefault("seconds", {}), found.setdefault("failed", {})
        left = [v for v in ALL if v not in seconds and v not in failed]
        if "best" not in found and left:
            say(f"{work}: searching for PyTorch's fastest of {len(ALL)} variants, {len(left)} of them not tried yet, at most {minutes:g} minutes")
            end = time.monotonic() + 60 * minutes
            for i, variant in enumerate(left):
                limit = max(0, end - time.monotonic()) / (len(left) - i)
                say(f"{work}, PyTorch {variant} ({i + 1} of {len(left)}, at most {limit:.0f} s) ...")
                try:
                    outcome = processes.run(command(variant), processes.TUNED_MALLOC, limit)
                    if outcome.out_of_memory:
                        failed[variant] = "out of memory"
                    else:
                        seconds[variant] = seconds_of(outcome.result)
                except processes.Failed as failure:
                    failed[variant] = f"failed: {str(failure).splitlines()[-1][:160]}"
                say(f"{work}, PyTorch {variant}: {failed.get(variant) or f'{seconds[variant]:.3f} s'}")
                self.keep()
        if not seconds:
            sys.exit(f"no variant of PyTorch ran {work}")
        if "best" not in found:
            found["best"] = min(seconds, key=seconds.get)
            say(f"{work}: PyTorch is fastest as {found['best']}")
            self.keep()
        return found["best"]
