"""DRaFT+ on every weight of the UNet, in PyTorch: the reference for `train: full` and for the average of the weights.

    python full_training.py PIPELINE REWARD --golden out.safetensors      (float64; tests/fixtures/full_training.safetensors)

torch.optim.AdamW over all parameters of the UNet, the frozen copy beside it, an average as torch_ema's with a constant
decay. A golden holds noise, the log, and of some small weights gradients, changes and changes of the average.
"""
import argparse, copy, json
import torch, torch.nn as nn
from safetensors.torch import save_file
from draft_plus import Trainer

# One of every kind: convolution, bias, norm, linear of time, of attention and of the feed-forward.
TOLD = ("conv_in.weight", "conv_in.bias", "conv_out.weight", "conv_out.bias", "conv_norm_out.weight", "time_embedding.linear_1.bias",
        "down_blocks.0.resnets.0.norm1.weight", "down_blocks.0.resnets.0.conv1.bias", "down_blocks.1.attentions.0.norm.bias",
        "down_blocks.1.attentions.0.transformer_blocks.0.norm2.weight", "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0.bias",
        "down_blocks.1.attentions.0.transformer_blocks.0.ff.net.2.bias", "mid_block.resnets.1.time_emb_proj.bias",
        "up_blocks.2.resnets.0.conv_shortcut.weight", "up_blocks.2.resnets.1.norm2.bias")


class FullTrainer(Trainer):
    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        for name, lora in self.lora.items():            # no adapter here
            setattr(self.unet.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], lora.base)
        self.lora, self.base = {}, copy.deepcopy(self.unet)
        self.unet.requires_grad_(True)
        self.params = list(self.unet.parameters())

    def frozen(self, x, t, cond, uncond, w):
        tuned, self.unet = self.unet, self.base
        with torch.no_grad():
            e = self.eps(x, t, cond, uncond, w)
        self.unet = tuned
        return e


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("pipeline"); p.add_argument("reward"); p.add_argument("--golden", required=True)
    p.add_argument("--prompts", default="a lion|a cat on a blue background", help="separated by |")
    p.add_argument("--steps", type=int, default=4); p.add_argument("--T", type=int, default=4); p.add_argument("--K", type=int, default=1)
    p.add_argument("--cfg", type=float, default=3.0); p.add_argument("--kl", type=float, default=10.0)
    p.add_argument("--lr", type=float, default=1e-4); p.add_argument("--decay", type=float, default=0.01, help="weight decay")
    p.add_argument("--clip", type=float, default=1.0); p.add_argument("--ema", type=float, default=0.9); p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    tr = FullTrainer(a.pipeline, a.reward, 1, torch.float64, "cpu", a.seed)
    prompts = a.prompts.split("|")
    a.batch, a.train = len(prompts), "full"
    size = tr.unet.config.sample_size
    named = dict(tr.unet.named_parameters())
    first = {k: named[k].detach().clone() for k in TOLD}
    average = {k: v.clone() for k, v in first.items()}
    opt = torch.optim.AdamW(tr.params, lr=a.lr, betas=(.9, .999), eps=1e-8, weight_decay=a.decay)
    gen = torch.Generator().manual_seed(a.seed)
    out, log = {}, []
    for s in range(a.steps):
        x = torch.randn((a.batch, tr.unet.config.in_channels, size, size), generator=gen).double()
        out[f"step{s}/noise"] = x.clone()
        m = tr.step(prompts, x, a.T, a.K, a.cfg, a.kl)
        if s in (0, a.steps - 1):
            out.update({f"step{s}/grad/{k}": named[k].grad.clone() for k in TOLD})
        norm = nn.utils.clip_grad_norm_(tr.params, a.clip).item()
        opt.step(); opt.zero_grad(set_to_none=True)
        for k in TOLD:
            average[k] -= (1 - a.ema) * (average[k] - named[k].detach())
        log.append(dict(step=s, loss=m["loss"], reward=m["reward"], kl=m["kl"], grad_norm=norm))
        print(json.dumps(log[-1]), flush=True)
    out.update({f"change/{k}": named[k].detach() - first[k] for k in TOLD})
    out.update({f"average/{k}": average[k] - first[k] for k in TOLD})
    meta = {k: str(v) for k, v in vars(a).items() if k not in ("pipeline", "reward", "golden")}
    save_file({k: v.float().contiguous() for k, v in out.items()}, a.golden, metadata={**meta, "log": json.dumps(log)})


if __name__ == "__main__":
    main()
