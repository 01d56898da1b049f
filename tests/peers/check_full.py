#!/usr/bin/env python3
"""Jobs that train every weight, averages, and single files, in diffusers: does each export draw what `draft preview` draws?

    python tests/peers/check_full.py [--build DIR] [--steps N]      (PyPI: torch, diffusers, transformers, peft, safetensors, pillow)

Trains through a private daemon, with an average kept: every weight of the demo model; every weight, and a LoRA, of a tiny
random Stable Diffusion (tests/tools/random_model.py), which unlike the demo has the shape that readers of single files
expect. Exports each as a folder, a single file and a LoRA where there is one, last weights and average, and draws the same
seeds with StableDiffusionPipeline. Passes when 99.9 % of all values are within 2/255 of the preview's PNG and both last
weights and average differ from the base and from each other.

The LoRA's strength is bounded for a reason. With alpha 64 and a learning rate of 3e-2 its product outgrows the tiny model's
weights (up to 12 times their norm), and the network amplifies rounding: beside float64, one call of the UNet is 3.0e-3 off
in PyTorch's fp32 and 2.3e-3 in ours, weights moved by 1e-6 of themselves move 5 % of a picture's values by more than 2/255
in float64 alone, and of the picture in float64 diffusers' fp32 has 95 % of values, we 91 %. The merged weights are
W + alpha/rank B A in float64, rounded once, in every bit there too.
"""
import argparse, pathlib, subprocess, sys, tempfile
import numpy as np
from check_lora import DEMO, TOP, Daemon, Drawing, near, read_pngs

PROMPT, SEEDS, SAMPLING_STEPS, GUIDANCE = "an animal", (11, 12), 6, 3.0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=TOP / "build")
    p.add_argument("--steps", type=int, default=6)
    a = p.parse_args()
    bad = 0

    def report(ok, text):
        nonlocal bad
        bad += not ok
        print(f"{'ok  ' if ok else 'FAIL'} {text}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "prompts.txt").write_text(PROMPT + "\n")
        tiny = folder / "tiny"
        subprocess.run([sys.executable, TOP / "tests/tools/random_model.py", "tiny-sd1", tiny, "--tokenizer", TOP / "tests/fixtures/era15/tokenizer"],
                       check=True)
        daemon = Daemon(a.build, folder / "state")
        try:
            for name, model, forms, more in (
                    ("demo, every weight", DEMO / "emoji-sd", ["merged"], ["--train", "full", "--lr", 1e-4]),
                    ("tiny, every weight", tiny, ["merged", "merged-single"], ["--train", "full", "--lr", 3e-3, "--size", "64x64"]),
                    ("tiny, LoRA", tiny, ["kohya", "merged", "merged-single"], ["--rank", 8, "--alpha", 16, "--lr", 1e-2, "--size", "64x64"])):
                where = folder / name.replace(", ", "-").replace(" ", "-")
                where.mkdir()
                job = daemon.draft("submit", "--model", model, "--dataset", folder / "prompts.txt", "--reward", f"clip:{DEMO / 'emoji-clip'}",
                                   "--kl-coeff", 0, "--steps", a.steps, "--sampling-steps", SAMPLING_STEPS, "--guidance", GUIDANCE, "--batch", 4,
                                   "--micro-batch", 4, "--warmup", 0, "--eval-every", -1, "--ema-decay", 0.7, *more, "--watch").split()[0]
                shown = {}
                for what, flags in (("base", ["--scale", 0]), ("last", []), ("average", ["--ema"])):
                    daemon.draft("preview", job, "--prompt", PROMPT, "--seed", SEEDS[0], "--count", len(SEEDS), *flags, "--output", where / what)
                    shown[what] = read_pngs(where / what)
                for x, y in (("last", "base"), ("average", "base"), ("average", "last")):
                    changed = np.mean(np.abs(shown[x] - shown[y]))
                    report(changed > 0.5, f"{name}: {x} and {y} differ by {changed:.1f}/255 on average")
                drawing = Drawing(model, PROMPT, SEEDS, SAMPLING_STEPS, GUIDANCE, 64)
                share = near(shown["base"], drawing.pictures())
                report(share >= 99.9, f"{name}: base: {share:.3f} % of values within 2/255 of diffusers' picture")
                for form in forms:
                    for what, flags in (("last", []), ("average", ["--ema"])):
                        path = where / f"{form}-{what}{'' if form == 'merged' else '.safetensors'}"
                        daemon.draft("export", job, "--format", form, "--f32", *flags, "--output", path)
                        theirs = drawing.pictures(lora=path) if form == "kohya" else drawing.pictures(model=path)
                        share = near(shown[what], theirs)
                        report(share >= 99.9, f"{name}: {what}, {form}: {share:.3f} % of values within 2/255 of diffusers' picture")
        finally:
            daemon.close()
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
