#!/usr/bin/env python3
"""Models of full size, with random weights, beside PyTorch in fp32: one command, minutes to an hour, some 12 GB of memory.

    python full_size.py OUT [--build DIR] [--only NAME ...] [--side N] [--keep]

For each model: tests/tools/random_model.py makes its folder under OUT (SD 1.5, SD 2.1, CLIP-L, CLIP-H: 8 GB together in
float16), PyTorch computes results and gradients from the same weights, `golden_check --full-size` compares: relative L2 of
each tensor, at most 5e-5 forward and 5e-4 for gradients. A UNet gets a LoRA of rank 8 on the layers that a job trains,
both matrices random; its gradients are those of the latents, of the context and of every matrix. --side: of the latents
(default 64; SD 2.1's own is 96). Without --keep a model's folder is removed once it has been compared.
"""
import argparse, pathlib, shutil, subprocess, sys, time
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTextModel
from draft_plus import add_lora

TOP = pathlib.Path(__file__).resolve().parents[2]
RANK = 8


def save(folder, case, meta=None):
    case = {k: v.detach().to(v.dtype if v.dtype == torch.int64 else torch.float32).contiguous().clone() for k, v in case.items()}
    save_file(case, f"{folder}/case.safetensors", metadata=meta)


def frozen(cls, folder):
    return cls.from_pretrained(folder, torch_dtype=torch.float32).requires_grad_(False).eval()


def unet(folder, side):
    m = frozen(UNet2DConditionModel, folder)
    m.enable_gradient_checkpointing()
    m.train()                                   # which checkpointing asks for; there is no dropout
    lora, case = add_lora(m, RANK), {}
    for name, pair in lora.items():
        torch.nn.init.normal_(pair.up, std=.02)
        case[f"lora/{name}.lora.down.weight"], case[f"lora/{name}.lora.up.weight"] = pair.down.clone(), pair.up.clone()
    x = torch.randn(1, 4, side, side).requires_grad_()
    c = torch.randn(1, 77, m.config.cross_attention_dim).requires_grad_()
    y = m(x, 501, encoder_hidden_states=c).sample
    dy = torch.randn(y.shape)
    y.backward(dy)
    case.update(sample=x, context=c, timestep=torch.tensor([501]), output=y, d_output=dy, d_sample=x.grad, d_context=c.grad)
    for name, pair in lora.items():
        case[f"grad/{name}.lora.down.weight"], case[f"grad/{name}.lora.up.weight"] = pair.down.grad, pair.up.grad
    save(folder, case, dict(rank=str(RANK)))


def vae(folder, side):
    m = frozen(AutoencoderKL, folder)
    z = torch.randn(1, 4, side, side).requires_grad_()
    y = m.decode(z).sample
    dy = torch.randn(y.shape)
    y.backward(dy)
    x = torch.rand(1, 3, 4 * side, 4 * side) * 2 - 1
    with torch.no_grad():
        dist = m.encode(x).latent_dist
    save(folder, dict(latent=z, decoded=y, d_decoded=dy, d_latent=z.grad, image=x, mean=dist.mean, logvar=dist.logvar))


def prompt_ids(n):
    ids = torch.randint(300, 40000, (n, 77))
    ids[:, 0] = 49406
    for row, end in enumerate((9, 76)[:n]):
        ids[row, end:] = 49407
    return ids


def text(folder, side):
    ids = prompt_ids(2)
    with torch.no_grad():
        save(folder, dict(ids=ids, text_hidden=frozen(CLIPTextModel, folder)(input_ids=ids).last_hidden_state))


def clip(folder, side):
    m, ids = frozen(CLIPModel, folder), prompt_ids(2)
    x = torch.randn(2, 3, 224, 224).requires_grad_()
    o = m(input_ids=ids, pixel_values=x)
    score = torch.diagonal(o.logits_per_image)
    weight = torch.tensor([1., -2.])
    (score * weight).sum().backward()
    save(folder, dict(ids=ids, pixels=x, text_hidden=o.text_model_output.last_hidden_state, text_embeds=o.text_embeds, image_embeds=o.image_embeds,
                      vision_hidden=o.vision_model_output.last_hidden_state, score=score, d_score=weight, d_pixels=x.grad))


CASES = {                                       # name -> preset, part of it, how; SD 2.1's VAE is SD 1.5's
    "clip-l": ("clip-l", "", clip), "clip-h": ("clip-h", "", clip),
    "sd15-text": ("sd15", "text_encoder", text), "sd15-vae": ("sd15", "vae", vae), "sd15-unet": ("sd15", "unet", unet),
    "sd21-text": ("sd21", "text_encoder", text), "sd21-unet": ("sd21", "unet", unet),
}


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("out", type=pathlib.Path)
    a.add_argument("--build", type=pathlib.Path, default=TOP / "build")
    a.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    a.add_argument("--side", type=int, default=64)
    a.add_argument("--keep", action="store_true")
    a = a.parse_args()
    transformers.utils.logging.disable_progress_bar()
    failed = []
    for name in a.only:
        preset, part, make = CASES[name]
        model = a.out / preset
        if not model.exists():
            subprocess.run([sys.executable, TOP / "tests/tools/random_model.py", preset, model], check=True)
        torch.manual_seed(0)
        start = time.time()
        make(str(model / part), a.side)
        print(f"{name}: PyTorch took {time.time() - start:.0f} s", flush=True)
        start = time.time()
        done = subprocess.run([a.build / "tests/golden_check", "--full-size", model / part], capture_output=True, text=True)
        lines = done.stdout.splitlines()
        print("\n".join([line for line in lines if "PAST" in line or "FAILED" in line] or lines[-2:-1]), done.stderr)
        print(f"{name}: ours took {time.time() - start:.0f} s, {'ok' if done.returncode == 0 else 'FAILED'}", flush=True)
        failed += [name] * (done.returncode != 0)
        later = [CASES[other][0] for other in a.only[a.only.index(name) + 1:]]
        if not a.keep and preset not in later:
            shutil.rmtree(model)
    sys.exit(f"past the bounds: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
