#!/usr/bin/env python3
"""Makes tests/fixtures/clip_reward.safetensors: the demo's CLIP reward, and its gradient, of pictures that are not the model's size.

    python tests/tools/clip_reward.py deploy/demo/emoji-clip tests/fixtures/clip_reward.safetensors

PyTorch and transformers, in float64; CLIPImageProcessor's rule written with torch's own bicubic resize.
"""
import sys
import torch, torch.nn.functional as F
from safetensors.torch import save_file
from transformers import CLIPModel, CLIPTokenizer

folder, target = sys.argv[1:]
model, tokenizer = CLIPModel.from_pretrained(folder).double().requires_grad_(False).eval(), CLIPTokenizer.from_pretrained(folder)
mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).double().view(1, 3, 1, 1)
std = torch.tensor((0.26862954, 0.26130258, 0.27577711)).double().view(1, 3, 1, 1)
size = model.config.vision_config.image_size
prompts = ["a lion", "A small Owl on a BLUE background!"]
gen = torch.Generator().manual_seed(3)
case = {}
for name, (h, w) in dict(wide=(36, 64), tall=(75, 52), same=(64, 64), half=(64, 96)).items():
    # smooth pictures: coarse noise made larger
    x = F.interpolate(torch.rand(2, 3, 6, 6, generator=gen).double(), size=(h, w), mode="bilinear").float().double().requires_grad_()
    to = (size, int(size * w / h)) if h <= w else (int(size * h / w), size)
    y = F.interpolate(x, size=to, mode="bicubic", antialias=True, align_corners=False)
    top, left = (to[0] - size) // 2, (to[1] - size) // 2
    y = y[..., top:top + size, left:left + size]
    ids = tokenizer(prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt").input_ids
    out = model(input_ids=ids, pixel_values=(y - mean) / std)
    reward = torch.diagonal(out.logits_per_image)
    (reward * torch.tensor([1.0, -2.0]).double()).sum().backward()
    case.update({f"{name}/image": x.detach().permute(0, 2, 3, 1), f"{name}/reward": reward.detach(), f"{name}/d_image": x.grad.permute(0, 2, 3, 1)})
save_file({k: v.float().contiguous() for k, v in case.items()}, target, metadata=dict(prompts="|".join(prompts)))
