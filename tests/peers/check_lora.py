#!/usr/bin/env python3
"""An exported LoRA in diffusers: does it load, and does it change the picture as `draft preview` does?

    python tests/peers/check_lora.py [--build DIR] [--steps N]      (PyPI: torch, diffusers, transformers, peft, safetensors, pillow)

Trains the demo model for a few steps through a private daemon, asks it for previews (tuned, half strength, base), exports
the LoRA in kohya's and in diffusers' names, loads each with load_lora_weights and draws the same seeds with
StableDiffusionPipeline; likewise the merged model, and what `draft merge` makes of the job and its own export. Passes when 99.9 % of all values are within 2/255 of the preview's PNG, and when the LoRA changes
the picture at all.
"""
import argparse, os, pathlib, signal, subprocess, sys, tempfile, time
import numpy as np
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from PIL import Image

TOP = pathlib.Path(__file__).resolve().parents[2]
DEMO = TOP / "deploy/demo"
PROMPT, SEEDS, SAMPLING_STEPS, GUIDANCE = "an animal", (11, 12, 13), 10, 5.0


class Drawing:
    """What diffusers draws: one prompt, some seeds."""

    def __init__(self, model, prompt, seeds, steps, guidance, side=None):
        self.model, self.prompt, self.seeds, self.steps, self.guidance, self.side = model, prompt, seeds, steps, guidance, side

    def pictures(self, lora=None, scale=1.0, model=None):
        """[seeds, height, width, 3] from 0 to 255. `model`: another folder, or a single file."""
        model = pathlib.Path(model or self.model)
        options = dict(safety_checker=None, torch_dtype=torch.float32)
        if model.is_dir():
            pipe = StableDiffusionPipeline.from_pretrained(str(model), **options)
        else:                                   # what a single file lacks comes from the model it was made of
            base = pathlib.Path(self.model)
            pipe = StableDiffusionPipeline.from_single_file(str(model), config=str(base), local_files_only=True, **options)
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        extra = {}
        if lora:
            pipe.load_lora_weights(str(lora.parent), weight_name=lora.name)
            extra = dict(cross_attention_kwargs={"scale": scale})
        out = []
        for seed in self.seeds:
            image = pipe(self.prompt, num_inference_steps=self.steps, guidance_scale=self.guidance, height=self.side, width=self.side,
                         generator=torch.Generator().manual_seed(seed), output_type="np", **extra).images[0]
            out.append(np.asarray(image) * 255)
        return np.stack(out)


def read_pngs(folder):
    """The pictures of a `draft preview --output`, by name: seeds in order."""
    return np.stack([np.asarray(Image.open(f).convert("RGB")).astype(float) for f in sorted(folder.glob("*.png"))])


def near(ours, theirs):
    """Per cent of values within 2/255."""
    return np.mean(np.abs(ours - theirs) <= 2) * 100


class Daemon:
    def __init__(self, build, state):
        self.build, self.state, self.env = build, state, dict(os.environ, DRAFTD_SOCKET=f"{state}/draftd.sock")
        self.start()

    def start(self):
        with open(f"{self.state}.log", "ab") as log:
            self.process = subprocess.Popen([f"{self.build}/draftd", "--state-dir", str(self.state), "--socket", f"{self.state}/draftd.sock"],
                                            stderr=log)
        end = time.time() + 60
        while subprocess.run([f"{self.build}/draft", "jobs"], env=self.env, capture_output=True).returncode:
            if time.time() > end:
                sys.exit(f"draftd is not ready after a minute, see {self.state}.log")
            time.sleep(0.1)

    def draft(self, *args):
        out = subprocess.run([f"{self.build}/draft", *map(str, args)], env=self.env, capture_output=True, text=True)
        if out.returncode:
            sys.exit(f"draft {' '.join(map(str, args))}: exit {out.returncode}\n{out.stderr}")
        return out.stdout.strip()

    def close(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--build", default=TOP / "build")
    p.add_argument("--steps", type=int, default=12)
    a = p.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "prompts.txt").write_text(PROMPT + "\n")
        daemon = Daemon(a.build, folder / "state")
        try:
            job = daemon.draft("submit", "--model", DEMO / "emoji-sd", "--dataset", folder / "prompts.txt", "--reward", f"clip:{DEMO / 'emoji-clip'}",
                               "--kl-coeff", 0, "--steps", a.steps, "--sampling-steps", SAMPLING_STEPS, "--guidance", GUIDANCE, "--batch", 8,
                               "--micro-batch", 8, "--rank", 8, "--lr", 3e-3, "--warmup", 0, "--eval-every", -1, "--watch").split()[0]
            previews = {}
            for name, scale in (("base", 0), ("half", 0.5), ("tuned", 1)):
                daemon.draft("preview", job, "--prompt", PROMPT, "--seed", SEEDS[0], "--count", len(SEEDS), "--scale", scale, "--output", folder / name)
                previews[name] = read_pngs(folder / name)
            loras = {f: folder / f"{f}.safetensors" for f in ("kohya", "diffusers")}
            for form, path in loras.items():
                daemon.draft("export", job, "--format", form, "--f32", "--output", path)
            daemon.draft("export", job, "--format", "merged", "--f32", "--output", folder / "merged")
            daemon.draft("merge", job, loras["diffusers"], "--weights", "1.5,-0.5", "--f32", "--out", folder / "sum.safetensors")
        finally:
            daemon.close()
        drawing = Drawing(DEMO / "emoji-sd", PROMPT, SEEDS, SAMPLING_STEPS, GUIDANCE)
        peers = {"base": drawing.pictures()}
        for form, path in loras.items():
            peers[f"tuned, {form}"] = drawing.pictures(path)
            peers[f"half, {form}"] = drawing.pictures(path, 0.5)
        peers["tuned, merged model"] = drawing.pictures(model=folder / "merged")
        peers["tuned, sum of 1.5 and -0.5 times itself"] = drawing.pictures(folder / "sum.safetensors")
        for name, peer in peers.items():
            share = near(previews[name.split(",")[0]], peer)
            ok = share >= 99.9
            bad += not ok
            print(f"{'ok  ' if ok else 'FAIL'} {name}: {share:.3f} % of values within 2/255 of diffusers' picture")
        changed = np.mean(np.abs(peers["tuned, kohya"] - peers["base"]))
        bad += changed < 1
        print(f"{'ok  ' if changed >= 1 else 'FAIL'} the LoRA changes diffusers' picture by {changed:.1f}/255 on average")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
