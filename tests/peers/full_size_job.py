#!/usr/bin/env python3
"""A DRaFT+ job at full size through daemon and client, as rough as a user can be to it, and what diffusers makes of the result.

    python full_size_job.py OUT [--build DIR] [--demo] [--size N] [--sampling-steps T] [--steps N] [--memory MODE]

Makes a random SD 1.5 and a random CLIP-H with CLIP's own vocabulary under OUT (tests/tools/random_model.py, 4 GB; --demo: takes
the demo models instead, for a rehearsal of a minute), submits a job, watches it, asks for a preview while it trains, pauses and
resumes it, kills its worker and its daemon with SIGKILL, and waits for its end. Then exports the LoRA and the merged model
(folder and single file), draws the same seed with diffusers from each, and compares with the daemon's own preview: 99.9 % of
all values within 2/255, but fewer of the tuned picture's to the base's. What each step took and every line of `draft watch` is
printed. PyPI: as check_lora.py.
"""
import argparse, json, os, pathlib, shutil, signal, subprocess, sys, threading, time
import numpy as np
from check_lora import DEMO, TOP, Daemon, Drawing, near, read_pngs

PROMPT, SEED, GUIDANCE = "a lighthouse at night, oil on canvas", 7, 5.0


def make_models(out):
    """(model, reward) folders."""
    model, reward, tools = out / "sd15", out / "clip-h", TOP / "tests/tools"
    for preset, folder, tokenizer in (("sd15", model, model / "tokenizer"), ("clip-h", reward, reward)):
        if not (folder / "config.json").exists() and not (folder / "unet").exists():
            subprocess.run([sys.executable, tools / "random_model.py", preset, folder], check=True)
        subprocess.run([sys.executable, tools / "clip_vocabulary.py", TOP / "tests/fixtures/clip_vocabulary/merges.txt.gz", tokenizer], check=True)
    return model, reward


class Run:
    def __init__(self, daemon):
        self.daemon, self.start, self.job = daemon, time.time(), None

    def say(self, text):
        print(f"{time.time() - self.start:7.1f} s  {text}", flush=True)

    def draft(self, *args):
        since = time.time()
        out = self.daemon.draft(*args)
        self.say(f"draft {args[0]} took {time.time() - since:.1f} s")
        return out

    def state(self):
        for _ in range(60):                     # a machine that swaps may keep a daemon from answering at once
            shown = subprocess.run([f"{self.daemon.build}/draft", "show", self.job, "--json"], env=self.daemon.env, capture_output=True, text=True)
            if shown.returncode == 0:
                break
            time.sleep(2)
        else:
            sys.exit(shown.stderr)
        job = json.loads(shown.stdout)
        return job["state"].removeprefix("STATE_").lower(), job["progress"]["step"], job

    def wait(self, condition, what):
        while True:
            state, step, job = self.state()
            if condition(state, step):
                self.say(f"{what}: {state}, step {step}, attempt {job['attempt']}")
                return job
            if state in ("failed", "cancelled", "succeeded"):
                sys.exit(f"{state} before {what}: {job['reason']}")
            time.sleep(0.5)

    def watch(self):
        """Every line that a user sees; goes on over a restart of the daemon by itself."""
        watching = subprocess.Popen([f"{self.daemon.build}/draft", "watch", self.job], env=self.daemon.env, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT, text=True)
        thread = threading.Thread(target=lambda: [self.say("| " + line.rstrip()) for line in watching.stdout], daemon=True)
        thread.start()
        return thread

    def worker(self):
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and open(f"/proc/{entry}/stat").read().rsplit(")", 1)[1].split()[1] == str(self.daemon.process.pid):
                    return int(entry)
            except OSError:
                pass                            # it ended meanwhile
        return None


def train(run, a, model, reward, prompts):
    run.job = run.draft("submit", "--model", model, "--dataset", prompts, "--reward", f"clip:{reward}", "--kl-coeff", 0.25, "--steps", a.steps,
                        "--sampling-steps", a.sampling_steps, "--guidance", GUIDANCE, "--batch", 1, "--rank", 8, "--lr", 3e-3, "--warmup", 0,
                        "--size", f"{a.size}x{a.size}", "--eval-every", -1, "--memory", a.memory).split()[0]
    print(run.daemon.draft("show", run.job))
    watching = run.watch()
    run.wait(lambda state, step: state == "running" and step >= 1, "the first step is done")
    run.draft("preview", run.job, "--prompt", PROMPT, "--seed", SEED, "--output", a.out / "midway")
    run.draft("pause", run.job)
    run.wait(lambda state, step: state == "paused", "paused")
    run.draft("resume", run.job)
    step = run.wait(lambda state, step: state == "running", "resumed")["progress"]["step"]
    os.kill(run.worker(), signal.SIGKILL)
    run.say("killed the worker")
    run.wait(lambda state, now: state == "running" and now > step, "trained on after the worker's death")
    run.daemon.close(signal.SIGKILL)
    run.say("killed the daemon")
    run.daemon.start()
    run.wait(lambda state, step: state == "succeeded", "the end")
    watching.join(60)
    print(run.daemon.draft("show", run.job))


def draw(run, a, model):
    """Our own previews and what was exported: {name: pictures}, {name: file or folder}."""
    ours, files = {}, {}
    for name, scale in (("base", 0), ("tuned", 1)):
        run.draft("preview", run.job, "--prompt", PROMPT, "--seed", SEED, "--scale", scale, "--output", a.out / name)
        ours[name] = read_pngs(a.out / name)
    single = [] if a.demo else [("merged-single", "merged.safetensors")]  # a single file can't tell of the demo's shapes
    for form, name in [("kohya", "lora.safetensors"), ("merged", "merged"), *single]:
        files[form] = a.out / name
        run.draft("export", run.job, "--format", form, "--f32", "--output", files[form])
    return ours, files


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--build", type=pathlib.Path, default=TOP / "build")
    p.add_argument("--demo", action="store_true")
    p.add_argument("--size", type=int, default=256)
    p.add_argument("--sampling-steps", type=int, default=4)
    p.add_argument("--steps", type=int, default=6)  # enough to be disturbed four times before the last
    p.add_argument("--memory", default="low", choices=("low", "fast", "auto"))
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for old in ("state", "base", "tuned", "midway", "merged"):
        shutil.rmtree(a.out / old, ignore_errors=True)
    for old in ("lora.safetensors", "merged.safetensors"):
        (a.out / old).unlink(missing_ok=True)
    model, reward = (DEMO / "emoji-sd", DEMO / "emoji-clip") if a.demo else make_models(a.out)
    (a.out / "prompts.txt").write_text(PROMPT + "\n")
    daemon = Daemon(a.build, a.out / "state")
    run = Run(daemon)
    try:
        train(run, a, model, reward, a.out / "prompts.txt")
        ours, files = draw(run, a, model)
    finally:
        daemon.close()
    drawing = Drawing(model, PROMPT, [SEED], a.sampling_steps, GUIDANCE, a.size)
    theirs = {"base": drawing.pictures(), "tuned, LoRA": drawing.pictures(files["kohya"])}
    theirs.update({f"tuned, {form}": drawing.pictures(model=path) for form, path in files.items() if form != "kohya"})
    bad = 0
    for name, picture in theirs.items():
        share = near(ours[name.split(",")[0]], picture)
        bad += share < 99.9
        print(f"{'ok  ' if share >= 99.9 else 'FAIL'} {name}: {share:.3f} % of values within 2/255 of diffusers' picture")
    share = near(ours["tuned"], theirs["base"])  # or the bound above could not tell them apart
    bad += share >= 99.9
    print(f"{'ok  ' if share < 99.9 else 'FAIL'} the tuned picture is not the base's: {share:.3f} % of its values within 2/255 of that, "
          f"{np.mean(np.abs(ours['tuned'] - theirs['base'])):.2f}/255 apart on average")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
