#!/usr/bin/env python3
"""Makes tests/fixtures/demo_pictures.tar.xz: 200 pictures of the demo model, 64 x 64, 8-bit RGB, one after the other.

    python tests/tools/demo_pictures.py deploy/demo demo_pictures.rgb && tar cJf tests/fixtures/demo_pictures.tar.xz demo_pictures.rgb

Needs PyTorch and diffusers. Prompts are every file's, in turn; seed = index + 7000; 20 DDIM steps, guidance 5.
"""
import sys
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

demo, target = sys.argv[1:]
torch.set_grad_enabled(False)
pipe = StableDiffusionPipeline.from_pretrained(f"{demo}/emoji-sd", safety_checker=None, torch_dtype=torch.float32)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
pipe.set_progress_bar_config(disable=True)
lists = [open(f"{demo}/prompts/{name}.txt").read().split("\n")[:-1] for name in ("scenes", "things", "general")]
with open(target, "wb") as out:
    for first in range(0, 200, 20):
        prompts = [lists[i % 3][7 * i % len(lists[i % 3])] for i in range(first, first + 20)]
        seeds = [torch.Generator().manual_seed(7000 + i) for i in range(first, first + 20)]
        pictures = pipe(prompts, generator=seeds, num_inference_steps=20, guidance_scale=5.0, output_type="np").images
        out.write((pictures * 255).round().astype("uint8").tobytes())
