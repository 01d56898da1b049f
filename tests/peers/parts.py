"""One part of a model by itself in plain PyTorch, timed: the peer of build/tests/bench_unet, bench_vae and bench_clip.

    python parts.py ROW MODEL CASE --write [--latent N]        makes the inputs and PyTorch's fp32 results of them
    python parts.py ROW MODEL CASE [--runs N] [--autocast] [--channels-last] [--compile]

ROW: unet_forward, unet_forward_backward (LoRA of rank 32), vae_decode, vae_decode_grad (gradient to the latent), clip_h
(score, gradient to the picture). MODEL: the folder of that part. CASE: a .safetensors file; a LoRA lies beside it. Timing
prints one JSON line, with the relative difference of each result from the case's.
"""
import argparse, json, os, pathlib, statistics, time
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from draft_plus import add_lora

RANK = 32
SHOWN = ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
         "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_v")  # layers whose LoRA gradients are compared


class Part:
    """`inputs(latent, randn)` draws a case, `run(case)` gives the results as a dict; `model` holds what is compiled."""
    grad = False

    def prepare(self, case, path):
        pass


class UnetForward(Part):
    def __init__(self, folder):
        from diffusers import UNet2DConditionModel
        self.model = UNet2DConditionModel.from_pretrained(folder).float().requires_grad_(False).eval()

    def inputs(self, latent, randn):
        c = self.model.config  # a guided pair: one latent, twice
        return {"sample": randn(1, c.in_channels, latent, latent).repeat(2, 1, 1, 1), "context": randn(2, 77, c.cross_attention_dim),
                "timestep": torch.tensor([500])}

    def run(self, case):
        return {"output": self.model(case["sample"], int(case["timestep"][0]), encoder_hidden_states=case["context"]).sample}


class UnetForwardBackward(UnetForward):
    grad = True

    def inputs(self, latent, randn):
        case = super().inputs(latent, randn)
        return case | {"d_output": randn(*case["sample"].shape)}

    def prepare(self, case, path):
        """The adapter's values: from the file beside the case, or drawn and written there."""
        file = path.with_suffix(".lora.safetensors")
        self.lora = add_lora(self.model, RANK)
        if file.exists():
            values = load_file(file)
        else:
            draw, values = torch.Generator().manual_seed(1), {}
            for name, m in self.lora.items():
                for half, p in (("down", m.down), ("up", m.up)):
                    size = 1 if half == "down" else 0.05       # a tuned adapter changes its layer by a little
                    values[f"unet.{name}.lora.{half}.weight"] = torch.randn(p.shape, generator=draw) * size / p.shape[1] ** 0.5
            save_file(values, file)
        with torch.no_grad():
            for name, m in self.lora.items():
                m.down.copy_(values[f"unet.{name}.lora.down.weight"])
                m.up.copy_(values[f"unet.{name}.lora.up.weight"])

    def run(self, case):
        for m in self.lora.values():
            m.down.grad = m.up.grad = None
        out = super().run(case)
        out["output"].backward(case["d_output"].to(out["output"].dtype))
        for name in SHOWN:
            if name in self.lora:
                out[f"grad/{name}.lora.down.weight"] = self.lora[name].down.grad
                out[f"grad/{name}.lora.up.weight"] = self.lora[name].up.grad
        return out


class VaeDecode(Part):
    def __init__(self, folder):
        from diffusers import AutoencoderKL
        self.vae = AutoencoderKL.from_pretrained(folder).float().requires_grad_(False).eval()
        self.model = self.vae.decoder

    def inputs(self, latent, randn):
        return {"latent": randn(1, self.vae.config.latent_channels, latent, latent)}

    def run(self, case):
        return {"decoded": self.model(self.vae.post_quant_conv(case["latent"]))}


class VaeDecodeGrad(VaeDecode):
    grad = True

    def inputs(self, latent, randn):
        case = super().inputs(latent, randn)
        side = latent * 2 ** (len(self.vae.config.block_out_channels) - 1)
        return case | {"d_decoded": randn(1, 3, side, side)}

    def run(self, case):
        case["latent"].requires_grad_(True).grad = None
        out = super().run(case)
        out["decoded"].backward(case["d_decoded"].to(out["decoded"].dtype))
        return out | {"d_latent": case["latent"].grad}


class Clip(Part):
    grad, batch = True, 4

    def __init__(self, folder):
        from transformers import CLIPModel
        self.clip = CLIPModel.from_pretrained(folder).float().requires_grad_(False).eval()
        self.model = self.clip.vision_model

    def inputs(self, latent, randn):
        c = self.clip.config
        shape = (self.batch, min(77, c.text_config.max_position_embeddings))
        ids = torch.randint(3, c.text_config.vocab_size - 1, shape, generator=torch.Generator().manual_seed(2))
        ids[:, -1] = c.text_config.vocab_size - 1      # the largest: where old configs pool the text
        return {"pixels": randn(self.batch, 3, c.vision_config.image_size, c.vision_config.image_size), "ids": ids}

    def prepare(self, case, path):
        """The text's side has no gradient and is remembered, in ours as here."""
        with torch.no_grad():
            self.text = F.normalize(self.clip.text_projection(self.clip.text_model(case["ids"]).pooler_output), dim=-1)

    def run(self, case):
        case["pixels"].requires_grad_(True).grad = None
        image = self.clip.visual_projection(self.model(case["pixels"]).pooler_output).float()
        score = self.clip.logit_scale.exp() * (F.normalize(image, dim=-1) * self.text).sum(-1)
        score.mean().backward()
        return {"score": score, "d_pixels": case["pixels"].grad}


ROWS = {"unet_forward": UnetForward, "unet_forward_backward": UnetForwardBackward, "vae_decode": VaeDecode,
        "vae_decode_grad": VaeDecodeGrad, "clip_h": Clip}


def relative(ours, reference):
    reference = reference.double()
    return float((ours.detach().double() - reference).norm() / reference.norm())


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("row", choices=ROWS)
    p.add_argument("model", type=pathlib.Path)
    p.add_argument("case", type=pathlib.Path)
    p.add_argument("--write", action="store_true")
    p.add_argument("--latent", type=int, default=64)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--autocast", action="store_true", help="bfloat16")
    p.add_argument("--channels-last", action="store_true")
    p.add_argument("--compile", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    begun = time.time()
    part = ROWS[a.row](a.model)
    loaded = time.time() - begun
    if a.write:
        draw = torch.Generator().manual_seed(0)
        case = part.inputs(a.latent, lambda *shape: torch.randn(shape, generator=draw))
    else:
        case = load_file(a.case)
    part.prepare(case, a.case)
    if a.channels_last:
        part.model.to(memory_format=torch.channels_last)
        case = {k: v.to(memory_format=torch.channels_last) if v.dim() == 4 and k in ("sample", "latent", "pixels") else v
                for k, v in case.items()}
    if a.compile:
        part.model = torch.compile(part.model)

    def once():
        begun = time.time()
        with torch.set_grad_enabled(part.grad), torch.autocast("cpu", torch.bfloat16, enabled=a.autocast):
            out = part.run(case)
        return time.time() - begun, out

    first, out = once()
    if a.write:
        results = {k: v.detach().float().contiguous() for k, v in out.items()}
        save_file({k: v.detach().contiguous() for k, v in case.items()} | results, a.case.with_suffix(".new"))
        a.case.with_suffix(".new").rename(a.case)
        return
    difference = {k: relative(v, case[k]) for k, v in out.items()}
    del out
    runs = [once()[0] for _ in range(a.runs)]
    print(json.dumps(dict(seconds=statistics.median(runs), runs=runs, first_seconds=first, load_seconds=loaded, difference=difference,
                          version=torch.__version__, threads=torch.get_num_threads())))


if __name__ == "__main__":
    main()
