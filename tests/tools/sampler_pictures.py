#!/usr/bin/env python3
"""Makes tests/fixtures/sampler_pictures/<sampler>.safetensors: diffusers' pictures of the demo model under other samplers than DDIM.

    python tests/tools/sampler_pictures.py deploy/demo/emoji-sd tests/fixtures/sampler_pictures

PyTorch and diffusers, fp32; 2 prompts, one seed, 12 steps, guidance 7.5. Each is the class's from_config of the model's own scheduler file.
"""
import json, os, sys
import torch
from diffusers import (DPMSolverMultistepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, PNDMScheduler,
                       StableDiffusionPipeline)
from safetensors.torch import save_file

folder, target = sys.argv[1:]
samplers = {
    "pndm": (PNDMScheduler, dict(skip_prk_steps=True)),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_karras": (EulerDiscreteScheduler, dict(use_karras_sigmas=True)),
    "euler_a": (EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m_karras": (DPMSolverMultistepScheduler, dict(use_karras_sigmas=True)),
}
prompts, seeds, steps, guidance = ["a lion", "a small banana on a red background"], (3,), 12, 7.5
os.makedirs(target, exist_ok=True)
torch.set_grad_enabled(False)
pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
own = pipe.scheduler.config
for name, (cls, more) in samplers.items():
    pipe.scheduler = cls.from_config(own, **more)
    out = {}
    for i, prompt in enumerate(prompts):
        for seed in seeds:
            picture = pipe(prompt, num_inference_steps=steps, guidance_scale=guidance, generator=torch.Generator().manual_seed(seed),
                           output_type="np").images[0]
            out[f"{i}/{seed}"] = torch.from_numpy(picture.copy())
    save_file(out, f"{target}/{name}.safetensors", metadata=dict(prompts=json.dumps(prompts), steps=str(steps), guidance_scale=str(guidance),
                                                                 sampler=name, layout="NHWC without N, [0, 1]"))
