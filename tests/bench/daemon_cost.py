#!/usr/bin/python3
"""What the daemon adds to a training step: the wall time between two steps as recorded by the daemon, against the time
that the engine itself spent in the step, in the same run; and that wall time against the same steps run by libdraft
alone (bench_step), alternated.

    tests/bench/daemon_cost.py [--build DIR] [--steps N] [--rounds N]      (Debian: python3-grpcio, python3-protobuf)
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP / "tests/server/api"))
from draftd_api import DEMO, ENDED, Daemon, Job, pb, tiny_spec  # noqa: E402


def through_the_daemon(daemon, folder, steps):
    """Seconds per step: (between steps, inside the engine), medians."""
    spec = tiny_spec(folder, steps=steps, checkpoint_every=100000, threads=0)
    spec.sampling.steps, spec.sampling.guidance = 10, 7.5
    spec.length.micro_batch = spec.length.global_batch = 8
    job = daemon.submit(spec)
    job = daemon.wait(job.id, lambda j: j.state in ENDED, seconds=600)
    assert job.state == Job.STATE_SUCCEEDED, job.reason
    reply = daemon.metrics.QueryMetrics(pb.metrics.QueryMetricsRequest(job_id=job.id, max_points=10000))
    series = {s.name: {p.step: p for p in s.points} for s in reply.series}
    times = [series["loss"][step].time_us / 1e6 for step in range(3, steps + 1)]
    between = [b - a for a, b in zip(times, times[1:])]
    parts = [s for name, s in series.items() if name.startswith("seconds/")]
    inside = [sum(s[step].value for s in parts) for step in range(4, steps + 1)]
    return between, inside


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=TOP / "build")
    p.add_argument("--steps", type=int, default=30)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    daemon = Daemon(str(a.build))
    added, ratios = [], []
    try:
        for _ in range(a.rounds):
            between, inside = through_the_daemon(daemon, daemon.folder, a.steps)
            added += [b - i for b, i in zip(between, inside)]
            alone = subprocess.run([f"{a.build}/tests/bench_step", f"{DEMO}/emoji-sd", f"{DEMO}/emoji-clip", "--steps", str(a.steps)],
                                   capture_output=True, text=True, check=True, env=dict(os.environ))
            ratios.append(statistics.median(between) / json.loads(alone.stdout)["seconds_per_step"])
    finally:
        daemon.remove()
    print(f"the daemon adds {1e3 * statistics.median(added):.2f} ms to a step (median of {len(added)}); "
          f"a step through it takes {statistics.median(ratios):.3f}x what libdraft alone takes (median of {a.rounds} alternated runs)")


if __name__ == "__main__":
    main()
