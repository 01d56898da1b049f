"""tests/fixtures/single_file: what random_model.py's tiny models must give, computed by diffusers and transformers.

    python make_single_file.py OUT

For tiny-sd1 and tiny-sd2: NAME.json lists the tensors of the single file (original name, shape, the names its values are a
function of), so that the test writes the file itself; NAME.safetensors holds inputs and results in float64 arithmetic from
the diffusers layout. On the way diffusers' own converters of single files must turn one layout into the other.
"""
import json, pathlib, subprocess, sys, tempfile
import torch
from safetensors.torch import load_file, save_file
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint,
                                                 convert_open_clip_checkpoint)
from transformers import CLIPTextModel
import random_model

TOOL = pathlib.Path(__file__).with_name("random_model.py")


def same(ours, theirs, what):
    theirs = {k if k.startswith("text_model.") or what != "text" else f"text_model.{k}": v for k, v in theirs.items()}
    theirs = {k: v for k, v in theirs.items() if "position_ids" not in k and k != "text_projection.weight"}
    assert ours.keys() == theirs.keys(), (what, sorted(ours.keys() ^ theirs.keys())[:6])
    for k in ours:
        assert torch.equal(ours[k], theirs[k].reshape(ours[k].shape)), (what, k)


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for preset in ("tiny-sd1", "tiny-sd2"):
        m = random_model.PIPELINES[preset]
        with tempfile.TemporaryDirectory() as tmp:
            folder, single = pathlib.Path(tmp) / "folder", pathlib.Path(tmp) / "single.safetensors"
            subprocess.run([sys.executable, TOOL, preset, folder], check=True)
            subprocess.run([sys.executable, TOOL, preset, single, "--layout", "ldm"], check=True)
            unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float64)
            vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float64)
            text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float64)
            ldm = load_file(single)
            parts = {p: load_file(folder / p / f"{s}.safetensors") for p, s in
                     (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model"))}
            same(parts["unet"], convert_ldm_unet_checkpoint(dict(ldm), config=dict(unet.config)), "unet")
            same(parts["vae"], convert_ldm_vae_checkpoint(dict(ldm), config=dict(vae.config)), "vae")
            if m["linear"]:
                same(parts["text_encoder"], convert_open_clip_checkpoint(text, dict(ldm)), "text")
            else:
                same(parts["text_encoder"], convert_ldm_clip_checkpoint(dict(ldm)), "text")
        gen = torch.Generator().manual_seed(21)
        x = torch.randn(1, 4, 8, 16, generator=gen).double()
        z = torch.randn(1, 4, 4, 6, generator=gen).double()
        ids = torch.randint(0, 1018, (2, 32), generator=gen)
        with torch.no_grad():
            hidden = text(input_ids=ids).last_hidden_state
            y = unet(x, 411, encoder_hidden_states=hidden[:1]).sample
            image = vae.decode(z).sample
        case = dict(sample=x, output=y, latent=z, decoded=image, text_hidden=hidden)
        save_file({"ids": ids, **{k: v.float().contiguous() for k, v in case.items()}}, out / f"{preset}.safetensors")
        shapes = {"unet": random_model.unet(m), "vae": random_model.vae(m), "text_encoder": random_model.text(m["text"])}
        lines = [json.dumps([name, list(shape), parts_]) for name, (shape, parts_) in random_model.ldm(m, shapes).items()]
        (out / f"{preset}.json").write_text("[" + ",\n".join(lines) + "]\n")


main()
