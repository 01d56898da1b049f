"""`draft bench --profile` on the demo: times of ops beside those of phases and step, FLOPs of both directions, refusals.

    bench_profile_test.py DRAFT [PLUGIN]     PLUGIN: once more on the CUDA backend, over fakes
"""
import json, os, subprocess, sys, tempfile

DRAFT, PLUGIN = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
SMALL = ["--profile", "--steps", "1", "-T", "3", "--size", "16x16", "--threads", "2", "--reward", "jpeg", "--rank", "4"]


def draft(*options, **environment):
    return subprocess.run([DRAFT, "bench", *options], capture_output=True, text=True, timeout=300, env={**os.environ, **environment})


def profile(device, **environment):
    with tempfile.NamedTemporaryFile() as file:
        done = draft(*SMALL, "--device", device, "--precision", "fp32", "--json", file.name, **environment)
        assert done.returncode == 0, done.stderr
        told = json.load(open(file.name))
    rows = told["rows"]
    total = sum(row["seconds"] for row in rows)
    assert 0.4 * told["step_seconds"] < total <= 1.02 * told["step_seconds"], (total, told["step_seconds"])
    assert told["flops_per_second"] > 1e6 and told["bytes_per_second"] > 1e6
    assert {row["phase"] for row in rows} == {"sampling", "last steps", "frozen prediction", "decoding", "reward", "backward"}
    assert all(row["backward"] == (row["phase"] == "backward") for row in rows)
    by_phase = lambda phase, key: sum(row[key] for row in rows if row["phase"] == phase)
    assert by_phase("sampling", "seconds") <= 1.02 * told["phases"]["sample"] + 1e-3
    # T = 3, K = 1: two guided calls without gradient, one with, one of the frozen network
    convolutions = lambda phase: sum(row["flops"] for row in rows if row["phase"] == phase and row["op"].startswith("conv2d"))
    assert convolutions("sampling") == 2 * convolutions("frozen prediction") > 0
    assert by_phase("last steps", "flops") > by_phase("frozen prediction", "flops")         # the LoRA's
    for key in ("seconds", "flops", "bytes", "launches", "calls"):
        sums = [sum(row[key] for row in told[of]) for of in ("by_phase", "by_op", "rows")]
        assert max(sums) - min(sums) <= 1e-9 * max(sums), (key, sums)
    for row in told["by_phase"] + told["by_op"] + rows:
        least = {"FLOPs": row["flops"] / told["flops_per_second"], "bytes": row["bytes"] / told["bytes_per_second"],
                 "launches": row["launches"] * told["launch_seconds"]}
        share = max(least.values()) / row["seconds"]
        assert abs(row["share"] - share) <= 1e-9 * share, row
        assert row["bound"] == (max(least, key=least.get) if share >= 0.1 else "nothing"), row
    assert told["left_out"] == 0 and (told["launch_seconds"] > 0) == ("replayed_seconds" in told) == (device != "cpu")
    for word in ("bound by", "conv2d, backward", "GFLOP/s", "sampling", "Look first at "):
        assert word in done.stdout, done.stdout
    return rows


def test_cpu():
    rows = profile("cpu")
    assert all(row["launches"] == 0 for row in rows)


def test_cuda_over_fakes():
    if PLUGIN:
        ours, cpu = profile("cuda:0", DRAFT_CUDA_PLUGIN=PLUGIN), profile("cpu")
        key = lambda row: (row["phase"], row["op"], row["backward"])
        flops = {key(row): row["flops"] for row in cpu}
        assert all(abs(row["flops"] - flops[key(row)]) <= 1e-9 * row["flops"] for row in ours if key(row) in flops)
        assert sum(key(row) in flops for row in ours) > 0.9 * len(ours)
        assert sum(row["launches"] for row in ours) > 500


def test_refusals():
    done = draft(*SMALL, "--server")
    assert done.returncode != 0 and "leave --server and --socket out" in done.stderr, done.stderr
    done = draft(*SMALL, "/nowhere")
    assert done.returncode != 0 and "/nowhere" in done.stderr, done.stderr


for name, test in [(n, t) for n, t in globals().items() if n.startswith("test_")]:
    test()
    print("ok", name, flush=True)
