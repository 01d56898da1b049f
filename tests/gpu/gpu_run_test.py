"""tests/gpu/run over the fakes: the report's structure, a spoiled op found by name, a part that hangs ended, no device, and
that the programs need nothing beyond the C library.

    gpu_run_test.py TOP PROGRAMS PLUGIN
"""
import json, os, pathlib, subprocess, sys, tempfile

TOP, PROGRAMS, PLUGIN = (pathlib.Path(p).resolve() for p in sys.argv[1:4])
NAMES = ("gpu_run", "gpu_check", "random_model")


def run(*options, fakes=True, environment=None):
    """Exit status, output, the report."""
    with tempfile.TemporaryDirectory() as out:
        host = ["--host", str(PLUGIN)] if fakes else []
        done = subprocess.run([TOP / "tests/gpu/run", "--programs", PROGRAMS, "--out", out, *host, *options], timeout=300,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})})
        files = sorted(pathlib.Path(out).iterdir())
        report = json.loads(files[0].read_text()) if files else None
        page = files[1].read_text() if files else ""
        return done.returncode, done.stdout, report, page


def part(report, name):
    return next(p for p in report["parts"] if p["name"] == name)


def test_programs_need_the_c_library_only():
    for name in NAMES:
        text = subprocess.run(["readelf", "-d", PROGRAMS / name], check=True, capture_output=True, text=True).stdout
        needed = {line.split("[")[1].split("]")[0] for line in text.splitlines() if "(NEEDED)" in line}
        assert needed <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}, (name, needed)


def test_no_device_is_skipped():
    status, said, report, _ = run(fakes=False, environment={"DRAFT_CUDA_PLUGIN": str(PLUGIN), "FAKE_CUDA": "no-device"})
    assert status == 77 and said.splitlines()[-1] == "skipped: no CUDA device" and report is None, (status, said)


def test_all_parts_pass_and_are_reported():
    status, said, report, page = run()
    assert status == 0, said
    assert report["schema"] == 1 and report["result"] == "passed" and report["over_fakes"] and report["device"]["name"], report
    for p in report["parts"]:
        assert p["result"] == "passed" and 0 <= p["seconds"] <= p["limit_seconds"] and p["group"] and p["name"] in page, p
    assert {p["group"] for p in report["parts"]} == {"device", "ops", "golden", "job", "models", "bench"}
    listed = {line.split("(")[1].split(")")[0] for line in (TOP / "engine/ops/ops.def").read_text().splitlines()
              if line.startswith("DRAFT_OP(")}
    for name in ("ops", "ops-bf16"):
        assert {item["name"] for item in part(report, name)["items"]} == listed
    bench = part(report, "bench/batch1")["data"]
    assert bench["samples_per_s"] > 0 and len(bench["profile"]["rows"]) == 10 and bench["profile"]["left_out"] > 0
    assert sum(row["launches"] for row in bench["profile"]["by_op"]) > 100 and "Look first at " in page and "bound by" in page
    assert set(part(report, "job/eager")["data"]) == {"graphs", "eager"}


def test_what_is_spoiled_is_named():
    status, said, report, page = run("--only", "ops", "--spoil", "geglu")
    assert status == 1 and report["result"] == "failed", said
    bad = [item for item in part(report, "ops")["items"] if item["result"] != "passed"]
    assert [item["name"] for item in bad] == ["geglu"] and "off the CPU's" in bad[0]["why"], bad
    assert "geglu" in page and "geglu" in said


def test_what_hangs_is_ended_and_the_rest_goes_on():
    status, said, report, _ = run("--only", "golden/clip_l", "--only", "golden/vae", "--limit", "golden/vae=0.05")
    assert status == 1 and part(report, "golden/vae")["result"] == "timed out", said
    assert part(report, "golden/vae")["why"] == "no end after 0.05 s" and part(report, "golden/clip_l")["result"] == "passed", said


def test_what_dies_is_named():
    status, said, report, _ = run("--only", "ops", environment={"FAKE_CUDA": "dies"})
    assert status == 1 and report["result"] == "failed" and part(report, "device")["result"] == "failed", said


def test_a_budget_that_is_spent_leaves_parts_out():
    status, said, report, _ = run("--only", "golden", "--budget", "0.5")
    assert part(report, "golden/vae")["result"] == "not run" and "was up" in part(report, "golden/vae")["why"], said


def random_half(name, i, shape):
    """tests/tools/random_model.py's values(), without numpy."""
    h, mask, fan, exponent = 0xcbf29ce484222325, (1 << 64) - 1, 1, 0
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001b3 & mask
    for d in shape[1:]:
        fan *= d
    while 4 ** exponent < fan:
        exponent += 1
    z = h + i & mask
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9 & mask
    z = (z ^ z >> 27) * 0x94d049bb133111eb & mask
    v = (z >> 40 & 1023) - 512
    return v / 512 * 2.0 ** -exponent if len(shape) > 1 else (v >> 3) / 512 + name.endswith("weight")


def test_random_models_are_those_of_the_python_program():
    import struct
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([PROGRAMS / "random_model", "tiny-sd1", out], check=True)
        rows = json.loads((TOP / "tests/fixtures/single_file/tiny-sd1.json").read_text())
        expected = {of: shape for _, shape, parts in rows for of in parts if not of.startswith("unused/")}
        seen = {}
        for path in pathlib.Path(out).glob("*/*.safetensors"):
            data = path.read_bytes()
            size = struct.unpack("<Q", data[:8])[0]
            for name, entry in json.loads(data[8:8 + size]).items():
                if name == "__metadata__":
                    continue
                full, start = f"{path.parent.name}/{name}", 8 + size + entry["data_offsets"][0]
                seen[full] = entry["shape"]
                count = (entry["data_offsets"][1] - entry["data_offsets"][0]) // 2
                for i in {0, 1, count // 2, count - 1}:
                    assert struct.unpack_from("<e", data, start + 2 * i)[0] == random_half(full, i, entry["shape"]), (full, i)
        assert set(seen) == set(expected), set(seen) ^ set(expected)
        for name, shape in seen.items():                          # the single file has the VAE's attention as 1x1 convolutions
            assert [d for d in shape if d != 1] == [d for d in expected[name] if d != 1], (name, shape, expected[name])


for name, test in [(n, t) for n, t in globals().items() if n.startswith("test_")]:
    test()
    print("ok", name, flush=True)
