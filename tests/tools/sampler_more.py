#!/usr/bin/env python3
"""Makes tests/fixtures/samplers_more.safetensors: what golden/samplers.safetensors leaves out: each sampler with every spacing, v-prediction,
zero terminal SNR, a cosine schedule, few and many steps; and tests/fixtures/torch_generator.safetensors: draws one after the other.

    python tests/tools/sampler_more.py tests/fixtures

PyTorch and diffusers, in float64 as far as diffusers goes; the network is eps(x, t) = sin(x) + cos(t / 1000), as there.
"""
import json, sys
import diffusers, torch
from safetensors.torch import save_file

target, = sys.argv[1:]
model = lambda x, t: torch.sin(x) + torch.cos(torch.as_tensor(t).double() / 1000)
sd = dict(beta_start=.00085, beta_end=.012, beta_schedule="scaled_linear", num_train_timesteps=1000, steps_offset=1)
classes = {
    "pndm": (diffusers.PNDMScheduler, dict(skip_prk_steps=True)),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_karras": (diffusers.EulerDiscreteScheduler, dict(use_karras_sigmas=True)),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_karras": (diffusers.DPMSolverMultistepScheduler, dict(use_karras_sigmas=True)),
}
kinds = {
    "leading": dict(timestep_spacing="leading"),
    "trailing_v": dict(timestep_spacing="trailing", prediction_type="v_prediction"),
    "linspace": dict(timestep_spacing="linspace"),
    "cosine": dict(beta_schedule="squaredcos_cap_v2"),
    "zero_snr": dict(timestep_spacing="trailing", prediction_type="v_prediction", rescale_betas_zero_snr=True),
    "sample": dict(prediction_type="sample"),
}
gen = torch.Generator().manual_seed(6)
case, meta = {}, {}
for name, (cls, own) in classes.items():
    for kind, more in kinds.items():
        # the last two: diffusers finds its first timestep twice and runs off the end of its sigmas
        if (name, kind) in (("pndm", "zero_snr"), ("pndm", "sample"), ("euler_ancestral", "sample"),
                            ("dpmpp_2m_karras", "cosine"), ("dpmpp_2m_karras", "zero_snr")):
            continue
        cfg = dict(sd, **own, **more)
        for T in (7, 30) if kind == "zero_snr" else (1, 2, 7, 30):  # fewer start from sigma 4096: fp32 is not good to 1e-5 then
            s = cls(**cfg)
            s.set_timesteps(T)
            x = torch.randn(1, 4, 2, 2, generator=gen).double()
            key = f"{name}_{kind}/{T}"
            case[f"{key}/noise"] = x.clone()
            x = x * s.init_noise_sigma
            xs, fresh = [], []
            for i, t in enumerate(s.timesteps):
                extra = {}
                if name == "euler_ancestral":
                    fresh.append(torch.randn(x.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64))
                    extra = dict(generator=torch.Generator().manual_seed(i))
                x = s.step(model(s.scale_model_input(x, t), t), t, x, **extra).prev_sample.double()
                xs.append(x.clone())
            if fresh:
                case[f"{key}/fresh"] = torch.stack(fresh)
            case[f"{key}/timesteps"], case[f"{key}/x"] = s.timesteps.double(), torch.stack(xs)
            assert all(torch.isfinite(x).all() for x in xs), key
        meta[f"{name}_{kind}"] = json.dumps(dict(cfg, _class_name=cls.__name__))
save_file({k: v.float().contiguous() for k, v in case.items()}, f"{target}/samplers_more.safetensors", metadata=meta)

draws = {}
for seed in (0, 7, 2 ** 31 + 5):
    generator = torch.Generator().manual_seed(seed)
    for i, n in enumerate((5, 17, 3, 1, 64, 15, 1024, 2, 16, 700, 1)):
        draws[f"{seed}/{i:02}/{n}"] = torch.randn(n, generator=generator)
save_file(draws, f"{target}/torch_generator.safetensors")
