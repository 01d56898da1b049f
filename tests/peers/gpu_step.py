"""The DRaFT+ step of tests/gpu/run in PyTorch on the same GPU: draft_plus.py's bench in bf16 autocast and channels_last, told
with the keys of `gpu_check bench`.

    python gpu_step.py PIPELINE REWARD [--batch N] [--steps N] [--T N] [--compile]

Exit status 77 where there is no PyTorch, no diffusers beside it, or no GPU it can use.
"""
import argparse, contextlib, io, json, pathlib, runpy, sys

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("pipeline"); p.add_argument("reward")
p.add_argument("--batch", type=int, default=1); p.add_argument("--steps", type=int, default=5)
p.add_argument("--T", type=int, default=50); p.add_argument("--compile", action="store_true")
a = p.parse_args()
try:
    import torch, diffusers, transformers
except ImportError as missing:
    print(f"skipped: no PyTorch to compare with here: {missing}")
    sys.exit(77)
if not torch.cuda.is_available():
    print(f"skipped: PyTorch {torch.__version__} finds no GPU here")
    sys.exit(77)

sys.argv = ["draft_plus.py", a.pipeline, a.reward, "--bench", str(a.steps), "--warm", "2", "--batch", str(a.batch), "--T", str(a.T), "--K", "1",
            "--cfg", "7.5", "--kl", "0.25", "--rank", "32", "--autocast", "--channels-last", "--device", "cuda"] + ["--compile"] * a.compile
said = io.StringIO()
with contextlib.redirect_stdout(said):
    runpy.run_path(str(pathlib.Path(__file__).with_name("draft_plus.py")), run_name="__main__")
lines = [line for line in said.getvalue().splitlines() if line.startswith("{")]
told = json.loads(lines[-1])
free, total = torch.cuda.mem_get_info()                                      # its allocator keeps what it took at most
told["device_peak_gb"] = (total - free) / 1e9
sampling = told.get("seconds_by_phase", {}).get("sample")
if sampling:
    told["guided_steps_per_s"] = (a.T - 1) * a.batch / sampling
told["versions"] = {m.__name__: m.__version__ for m in (torch, diffusers, transformers)}
print(json.dumps(told))
