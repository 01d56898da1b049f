"""Running one measured program at a time: its last line of JSON, the peak of its anonymous memory, and whether memory ran
out. Debian's python3 alone is needed."""
import dataclasses
import json
import os
import signal
import subprocess
import tempfile
import time

EVERY_SECONDS = 0.05
SPARE_BYTES = 400 << 20  # with less than this left on the machine, a program that holds most of it is ended
# glibc keeps big blocks instead of giving them back at every free: up to twice as fast in PyTorch
TUNED_MALLOC = dict(MALLOC_MMAP_THRESHOLD_="17179869184", MALLOC_TRIM_THRESHOLD_="17179869184", MALLOC_TOP_PAD_="268435456")


class Failed(Exception):
    """A program that ended badly for another reason than memory; the text is its last words."""


@dataclasses.dataclass
class Outcome:
    result: dict | None    # None: out of memory
    peak_anonymous: int    # bytes: the highest RssAnon seen, of the program and the processes it started

    @property
    def out_of_memory(self):
        return self.result is None


def field(path, name):
    """"RssAnon:    1234 kB" -> bytes; 0 when the process is gone."""
    try:
        with open(path) as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) << 10
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def family(pid):
    """The process and its descendants: torch.compile starts some."""
    found = [pid]
    for parent in found:
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as file:
                    found += map(int, file.read().split())
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found


def end(process):
    """With all it started: torch.compile's helpers have sessions of their own."""
    for pid in family(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()


def first_to_die():
    """Should the machine run out all the same, the kernel is to choose this process."""
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def needed(command, environment=None):
    """The result of a program that cannot be done without."""
    outcome = run(command, environment)
    if outcome.out_of_memory:
        raise Failed(f"{command[0]} ran out of memory")
    return outcome.result


def last_json(text):
    for line in reversed(text.strip().splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return None


def run(command, environment=None, limit=float("inf")):
    """Runs it to its end, watching its memory. Failed: with what it said last, or that `limit` seconds were not enough."""
    command = [str(word) for word in command]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, stdin=subprocess.DEVNULL, preexec_fn=first_to_die,
                                   start_new_session=True, env=os.environ | (environment or {}))
        peak, spent, most, began = 0, False, field("/proc/meminfo", "MemTotal") / 2, time.monotonic()
        try:
            while process.poll() is None:
                held = sum(field(f"/proc/{pid}/status", "RssAnon") for pid in family(process.pid))
                peak = max(peak, held)
                if held > most and field("/proc/meminfo", "MemAvailable") < SPARE_BYTES:
                    spent = True
                    end(process)
                elif time.monotonic() - began > limit:
                    raise Failed(f"not done after {limit:.0f} s, ended")
                time.sleep(EVERY_SECONDS)
        finally:
            if process.poll() is None:
                end(process)
        out.seek(0)
        errors.seek(0)
        said, words = out.read(), errors.read()
    killed = process.returncode == -signal.SIGKILL  # when not by us, then by the kernel
    if spent or (killed and peak > most) or "can't allocate memory" in words or "MemoryError" in words:
        return Outcome(None, peak)
    if killed:
        raise Failed(f"{command[0]} was killed while it held {peak / 2**30:.1f} GiB: does something else need the memory?")
    if process.returncode != 0:
        raise Failed((words or said).strip()[-2000:] or f"{command[0]} ended with status {process.returncode}")
    return Outcome(last_json(said) or {}, peak)
