#!/usr/bin/python3
"""Bad files and absurd numbers, from the client to the real worker and back: each is refused in a sentence that names the
field and the file, draftd lives, and in the end holds no process, descriptor or folder more than before.

    bad_input_test.py --build BUILD [unittest arguments]

Malformed messages and clients that stop reading: hostile_rpc_test.py. A full disk: ../disk/disk_full_test.py.
"""

import argparse
import concurrent.futures
import gzip
import json
import math
import os
import random
import re
import struct
import sys
import time
import unittest

import grpc

from draftd_api import DEMO, ENDED, SECONDS, Daemon, Error, Job, eventually, pb, sanitizers, tiny_spec

BUILD = None
Code = grpc.StatusCode
GARBAGE = random.Random(5).randbytes(20000)
UNET, TEXT, VAE = (f"{part}/{name}.safetensors" for part, name in
                   [("unet", "diffusion_pytorch_model"), ("text_encoder", "model"), ("vae", "diffusion_pytorch_model")])


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Replaced:
    """A copy of a folder, by links, in which some files are others: {relative path: bytes, None (missing) or a
    function that makes the file}."""

    def __init__(self, source, target, changes):
        for folder, _, names in os.walk(source):
            inside = os.path.join(target, os.path.relpath(folder, source))
            os.makedirs(inside, exist_ok=True)
            for name in names:
                relative = os.path.normpath(os.path.join(os.path.relpath(folder, source), name))
                if relative not in changes:
                    os.symlink(os.path.join(folder, name), os.path.join(inside, name))
        for relative, change in changes.items():
            path = os.path.join(target, relative)
            if callable(change):
                change(path)
            elif change is not None:
                with open(path, "wb") as file:
                    file.write(change)


def tensors(data):
    """A safetensors file as (header, bytes)."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8:8 + length]), data[8 + length:]


def packed(header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def edited(path, edit):
    """The file with its header changed by edit(header, name of a tensor)."""
    header, data = tensors(read(path))
    name = next(n for n, t in sorted(header.items()) if n != "__metadata__" and len(t["shape"]) >= 2)
    replaced = edit(header, name)
    return packed(header if replaced is None else replaced, data)


def set_to(key, value):
    def edit(header, name):
        header[name][key] = value
    return edit


def drop(header, name):
    del header[name]


def transposed(header, name):
    header[name]["shape"].reverse()
    if header[name]["shape"] == header[name]["shape"][::-1]:
        header[name]["shape"] = [1, math.prod(header[name]["shape"])]


def overlapping(header, name):
    other = next(n for n in header if n not in (name, "__metadata__"))
    header[name]["data_offsets"] = list(header[other]["data_offsets"])


def with_value(path, bits):
    """Every tensor's first value is one bit pattern."""
    header, data = tensors(read(path))
    data = bytearray(data)
    for name, tensor in header.items():
        if name != "__metadata__":
            size = {"F32": 4, "F16": 2, "BF16": 2}.get(tensor["dtype"])
            if size:
                begin = tensor["data_offsets"][0]
                data[begin:begin + size] = {4: struct.pack("<f", bits), 2: struct.pack("<e", bits)}[size]
    return packed(header, bytes(data))


def weight_cases(path):
    """(what, bytes or maker) of a weight file gone wrong."""
    data = read(path)
    return [
        ("empty", b""), ("4 bytes", data[:4]), ("length only", data[:8]), ("half a header", data[:200]),
        ("truncated", data[:len(data) // 2]), ("one byte short", data[:-1]), ("one byte more", data + b"\0"),
        ("garbage", GARBAGE), ("text", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        ("a pickle", b"PK\x03\x04" + GARBAGE), ("header longer than all", struct.pack("<Q", 1 << 40) + data[8:]),
        ("header of 2^64-1", b"\xff" * 8 + data[8:]), ("header of nothing", packed(b"", data)),
        ("header no JSON", packed(b"{" * 300, data)), ("header an array", packed(b"[]", data)),
        ("header nested", packed(b'{"a":' + b"[" * 50000 + b"]" * 50000 + b"}", data)),
        ("header not UTF-8", packed(b'{"caf\xe9": 1}', data)), ("header with a NUL", packed(b'{"a\\u0000": 1}', data)),
        ("no tensors", packed(b"{}", b"")),
        ("offsets past the end", edited(path, set_to("data_offsets", [0, 1 << 62]))),
        ("offsets backwards", edited(path, set_to("data_offsets", [64, 0]))),
        ("offsets negative", edited(path, set_to("data_offsets", [-64, 0]))),
        ("offsets text", edited(path, set_to("data_offsets", "0-64"))),
        ("offsets overlap", edited(path, overlapping)),
        ("type unknown", edited(path, set_to("dtype", "F1024"))), ("type a number", edited(path, set_to("dtype", 4))),
        ("shape overflows", edited(path, set_to("shape", [1 << 40, 1 << 40]))),
        ("shape negative", edited(path, set_to("shape", [-1, 4]))),
        ("shape of 10000", edited(path, set_to("shape", [1] * 10000))),
        ("shape of fractions", edited(path, set_to("shape", [1.5, 2]))),
        ("another shape", edited(path, transposed)), ("a tensor missing", edited(path, drop)),
        ("missing", None), ("a folder", os.mkdir), ("a pipe", os.mkfifo),
        ("a broken link", lambda p: os.symlink("/no/such/file", p)), ("a device", lambda p: os.symlink("/dev/zero", p)),
    ]


def json_cases(path):
    data = read(path)
    return [
        ("empty", b""), ("truncated", data[:len(data) // 2]), ("garbage", GARBAGE), ("an array", b"[1, 2]"),
        ("not UTF-8", b'{"_class_name": "caf\xe9"}'), ("nested", b'{"a":' + b"[" * 100000 + b"]" * 100000 + b"}"),
        ("two values", data + data), ("a key twice", b'{"a": 1, "a": 2}'), ("NaN", b'{"a": NaN}'),
        ("huge", b'{"a": "' + b"x" * (17 << 20) + b'"}'), ("missing", None), ("a folder", os.mkdir),
        ("a pipe", os.mkfifo), ("a device", lambda p: os.symlink("/dev/zero", p)),
    ]


def config(path, **changes):
    value = json.loads(read(path))
    for key, change in changes.items():
        if change is None:
            value.pop(key, None)
        else:
            value[key] = change
    return json.dumps(value).encode()


class BadInput(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(BUILD, "--hang-seconds", "60")
        cls.addClassCleanup(cls.daemon.remove)
        cls.sd, cls.clip, cls.lpips = (os.path.join(DEMO, name) for name in ("emoji-sd", "emoji-clip", "emoji-lpips"))
        cls.folders = 0
        cls.validate(cls.spec())  # the good one; what is made once is made now
        cls.descriptors = cls.daemon.descriptors()

    @classmethod
    def tearDownClass(cls):
        eventually(lambda: cls.daemon.workers() == [])
        eventually(lambda: cls.daemon.descriptors() <= cls.descriptors + 1)
        state = os.path.join(cls.daemon.folder, "state")
        assert os.listdir(os.path.join(state, "incoming")) == [], "a refused submit left its folder behind"
        log = cls.daemon.log()
        assert "Sanitizer" not in log and "Assertion" not in log and "runtime error" not in log, log[-4000:]
        # a worker that leaks says so to the sanitizers at its end, with a status of its own
        ends = set(re.findall(r"worker \d+ ended, status (\w+)", log))
        assert ends <= {"0", "0x100", "0x9", "0xf"}, ends
        assert cls.daemon.stop() == 0, cls.daemon.log()[-4000:]

    @classmethod
    def spec(cls, **more):
        return tiny_spec(cls.daemon.folder, **more)

    @classmethod
    def validate(cls, spec):
        return cls.daemon.jobs.CreateJob(pb.jobs.CreateJobRequest(spec=spec, validate_only=True), timeout=300).job

    @classmethod
    def new_folder(cls):
        cls.folders += 1
        return os.path.join(cls.daemon.folder, f"case-{cls.folders}")

    def refused(self, spec, field, words=""):
        """None, or what was wrong with the refusal."""
        try:
            job = self.validate(spec)
        except grpc.RpcError as error:
            found = Error(error)
            if found.code != Code.INVALID_ARGUMENT or found.fields != [field] or found.domain != "draftd":
                return f"expected INVALID_ARGUMENT of {field}: {found}"
            if not re.search(words, found.message):
                return f"expected {words!r} in: {found}"
            if "crashed" in found.message or "hung" in found.message:
                return f"the worker did not survive it: {found}"
            return None
        return f"accepted, with warnings {list(job.warnings)}"

    def check_all(self, cases):
        """cases: (what, spec, field, words). Two at a time, as many as draftd checks at once."""
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda case: self.refused(*case[1:]), cases))
        for case, wrong in zip(cases, results):
            with self.subTest(case[0]):
                self.assertIsNone(wrong, case[0])
        self.assertIsNone(self.daemon.process.poll(), "draftd is gone")
        self.daemon.system.GetServerInfo(pb.system.GetServerInfoRequest(), timeout=SECONDS)

    def of_model(self, changes):
        folder = self.new_folder()
        Replaced(self.sd, folder, changes)
        return self.spec(model=folder)

    def of_reward(self, changes):
        folder = self.new_folder()
        Replaced(self.clip, folder, changes)
        spec = self.spec()
        spec.rewards[0].path = folder
        return spec

    def of_lpips(self, changes):
        folder = self.new_folder()
        Replaced(self.lpips, folder, changes)
        spec = self.spec()
        spec.evaluation.every = 0
        spec.evaluation.lpips = folder
        return spec

    def test_weights_of_the_model(self):
        cases = [(f"{UNET}: {what}", self.of_model({UNET: data}), "spec.model", re.escape(UNET.split("/")[1].split(".")[0]))
                 for what, data in weight_cases(os.path.join(self.sd, UNET))]
        for file in (TEXT, VAE):
            some = weight_cases(os.path.join(self.sd, file))
            cases += [(f"{file}: {what}", self.of_model({file: data}), "spec.model", file.split("/")[0])
                      for what, data in some if what in ("truncated", "garbage", "another shape", "missing", "a tensor missing")]
        self.check_all(cases)

    def test_models_of_one_file(self):
        cases = []
        for name, data in [("garbage.safetensors", GARBAGE), ("empty.safetensors", b""), ("pipe.safetensors", os.mkfifo),
                           ("cut.safetensors", read(os.path.join(self.sd, UNET))[:5000]), ("folder.safetensors", os.mkdir),
                           ("other.safetensors", read(os.path.join(self.sd, VAE))),
                           ("device.safetensors", lambda p: os.symlink("/dev/zero", p)),
                           ("gone.safetensors", lambda p: os.symlink("/no/such/file", p)),
                           ("pickle.ckpt", b"PK\x03\x04" + GARBAGE), ("pickle.safetensors", b"PK\x03\x04" + GARBAGE)]:
            folder = self.new_folder()
            os.mkdir(folder)
            Replaced(folder, folder, {name: data})
            os.symlink(os.path.join(self.sd, "tokenizer"), os.path.join(folder, "tokenizer"))
            cases.append((name, self.spec(model=os.path.join(folder, name)), "spec.model", name.split(".")[0]))
        self.check_all(cases)

    def test_weights_of_reward_and_lpips(self):
        wanted = ("truncated", "garbage", "header nested", "offsets past the end", "another shape", "a tensor missing",
                  "missing", "empty")
        cases = [(f"reward: {what}", self.of_reward({"model.safetensors": data}), "spec.rewards[0]", "model")
                 for what, data in weight_cases(os.path.join(self.clip, "model.safetensors")) if what in wanted]
        for file in ("alexnet.safetensors", "lin.safetensors"):
            cases += [(f"lpips: {file} {what}", self.of_lpips({file: data}), "spec.evaluation.lpips", "lpips|alexnet|lin")
                      for what, data in weight_cases(os.path.join(self.lpips, "alexnet.safetensors")) if what in wanted]
        self.check_all(cases)

    def test_lora_files(self):
        job = self.daemon.submit(self.spec(steps=2))
        self.daemon.wait(job.id, lambda j: j.state == Job.STATE_SUCCEEDED)
        good = os.path.join(self.daemon.folder, "good.safetensors")
        with open(good, "wb") as file:
            for piece in self.daemon.checkpoints.ExportLora(pb.checkpoints.ExportLoraRequest(job_id=job.id), timeout=60):
                file.write(piece.data)

        def with_file(path, base):
            spec = self.spec()
            if base:
                spec.base_loras.add(path=path)
            else:
                spec.lora.continue_from = path
            return spec

        for base in (True, False):
            self.validate(with_file(good, base))
        cases = []
        for number, (what, data) in enumerate(weight_cases(good) + [("nan", with_value(good, math.nan))]):
            folder = os.path.join(self.daemon.folder, f"lora-{number}")
            os.mkdir(folder)
            Replaced(folder, folder, {"bad.safetensors": data})
            for base, field in ((True, "spec.base_loras[0].path"), (False, "spec.lora.continue_from")):
                cases.append((f"{field}: {what}", with_file(os.path.join(folder, "bad.safetensors"), base), field, "bad"))
        self.check_all(cases)

    def test_json(self):
        cases = []
        for file in ("unet/config.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json"):
            some = json_cases(os.path.join(self.sd, file))
            if file != "unet/config.json":
                some = [case for case in some if case[0] in ("truncated", "garbage", "an array", "missing", "nested")]
            cases += [(f"{file}: {what}", self.of_model({file: data}), "spec.model", "(?i)" + file.split("/")[-1].split(".")[0])
                      for what, data in some]
        cases += [(f"reward: config.json {what}", self.of_reward({"config.json": data}), "spec.rewards[0]", "config")
                  for what, data in json_cases(os.path.join(self.clip, "config.json"))]
        cases += [("merges binary", self.of_model({"tokenizer/merges.txt": GARBAGE}), "spec.model", "merges"),
                  ("merges missing", self.of_model({"tokenizer/merges.txt": None}), "spec.model", "merges")]
        self.check_all(cases)

    def test_absurd_numbers_in_configs(self):
        unet = os.path.join(self.sd, "unet/config.json")
        vae = os.path.join(self.sd, "vae/config.json")
        text = os.path.join(self.sd, "text_encoder/config.json")
        scheduler = os.path.join(self.sd, "scheduler/scheduler_config.json")
        huge = 1 << 40
        cases = []
        for file, path, changes in [
                ("unet/config.json", unet, [
                    {"block_out_channels": [huge, huge, huge]}, {"block_out_channels": [-32, 64, 96]}, {"block_out_channels": []},
                    {"block_out_channels": "wide"}, {"block_out_channels": [1e300, 1, 1]}, {"layers_per_block": 1 << 30},
                    {"layers_per_block": 0}, {"in_channels": 0}, {"in_channels": -4}, {"norm_num_groups": 0},
                    {"norm_num_groups": 7}, {"attention_head_dim": 0}, {"attention_head_dim": huge},
                    {"cross_attention_dim": -1}, {"sample_size": huge}, {"sample_size": -8},
                    {"down_block_types": ["NoSuchBlock2D"]}, {"act_fn": "cube"}]),
                ("vae/config.json", vae, [{"scaling_factor": "x"}, {"latent_channels": 0}, {"block_out_channels": [huge]},
                                          {"norm_num_groups": -1}]),
                ("text_encoder/config.json", text, [
                    {"hidden_size": huge}, {"num_attention_heads": 0}, {"num_attention_heads": 7},
                    {"num_hidden_layers": -1}, {"num_hidden_layers": huge}, {"vocab_size": 3}, {"max_position_embeddings": 0}]),
                ("scheduler/scheduler_config.json", scheduler, [
                    {"num_train_timesteps": 0}, {"num_train_timesteps": -5}, {"num_train_timesteps": huge},
                    {"beta_start": "small"}, {"beta_start": -1.0}, {"beta_end": 1e308}, {"beta_schedule": "wavy"},
                    {"prediction_type": "guess"}])]:
            cases += [(f"{file}: {change}", self.of_model({file: config(path, **change)}), "spec.model", "")
                      for change in changes]
        self.check_all(cases)

    def test_datasets(self):
        def file(name, data):
            path = os.path.join(self.daemon.folder, name)
            if callable(data):
                data(path)
            else:
                with open(path, "wb") as f:
                    f.write(data)
            return path

        def sparse(path):
            with open(path, "wb") as f:
                f.write(b"a cat\n")
                f.truncate((64 << 20) + 1)

        cases = []
        for name, data, words in [
                ("empty.txt", b"", "no prompt"), ("blank.txt", b" \n\t\n\n", "prompt|control"), ("empty.csv", b"", "no column"),
                ("empty.jsonl", b"\n\n", "no prompt"), ("binary.txt", GARBAGE, "line"), ("binary.jsonl", GARBAGE, "line"),
                ("binary.csv", GARBAGE, "line|column"), ("utf16.txt", "a cat\n".encode("utf-16"), "line 1"),
                ("latin.txt", b"a cat\ncaf\xe9\n", "line 2"), ("latin.jsonl", b'"a cat"\n"caf\xe9"\n', "line 2"),
                ("latin.csv", b"prompt\ncaf\xe9\n", "line 2"), ("nul.txt", b"a\0cat\n", "NUL"), ("surrogate.jsonl", b'"\\ud800"\n', "line 1"),
                ("huge.txt", sparse, "at most"), ("many.txt", b"a\n" * 1000001, "more than 1000000"),
                ("long.txt", b"x" * 2001, "bytes long"), ("one-line.txt", b"x" * (8 << 20), "bytes long"),
                ("deep.jsonl", b"[" * 100000 + b"]" * 100000 + b"\n", "line 1"), ("broken.jsonl", b'{"prompt": "a', "line 1"),
                ("header.csv", b"id,name\n1,x\n", "column"), ("quote.csv", b'prompt\n"open', "quote"),
                ("image.png", b"\x89PNG\r\n\x1a\n" + GARBAGE, "must end with"), ("folder.txt", os.mkdir, "regular"),
                ("pipe.txt", os.mkfifo, "regular"), ("device.txt", lambda p: os.symlink("/dev/zero", p), "regular"),
                ("garbage.tar", GARBAGE, "damaged or no tar"), ("empty.tar", b"", "damaged|no sample"),
                ("bomb.tar.gz", gzip.compress(bytes(1 << 26)), "damaged|no sample"), ("cut.tar.gz", gzip.compress(GARBAGE)[:999], "damaged"),
                ("pipe.tar", os.mkfifo, "regular"),
                ("gone.txt", lambda p: os.symlink("/no/such/file", p), "gone.txt")]:
            cases.append((name, self.spec(dataset=file(name, data)), "spec.dataset", words))
        self.check_all(cases)

    def test_absurd_numbers_in_a_spec(self):
        cases = []
        for path, values in {
                "sampling.steps": (2147483647, -2147483648), "sampling.truncation_steps": (2147483647, -1),
                "sampling.lv_copies": (2147483647,), "sampling.height": (2147483647, -64, 7), "sampling.width": (1 << 30,),
                "sampling.guidance": (1e308, float("nan"), -float("inf")), "lora.rank": (2147483647, -1),
                "lora.alpha": (1e300, -1.0, float("nan")), "optimizer.learning_rate": (1e300, float("inf")),
                "optimizer.beta1": (-1.0, float("nan")), "optimizer.warmup_steps": (2147483647,),
                "optimizer.max_grad_norm": (-1.0, float("inf")), "length.micro_batch": (2147483647, -1),
                "length.global_batch": (2147483647,), "length.steps": (1 << 62, -1), "evaluation.seeds": (2147483647,),
                "evaluation.every": (-2147483648,), "evaluation.sampling_steps": (2147483647, -1),
                "checkpoint_every": (-1, 2147483647), "checkpoint_keep": (2147483647,), "threads": (2147483647, -7),
                "max_retries": (2147483647,), "kl_coeff": (float("nan"), -1.0, 1e300)}.items():
            for value in values:
                spec = self.spec()
                *parents, last = path.split(".")
                target = spec
                for name in parents:
                    target = getattr(target, name)
                setattr(target, last, value)
                cases.append((f"{path} = {value}", spec, "spec." + path, ""))
        epochs = self.spec()
        epochs.length.steps, epochs.length.epochs = 0, 1e300
        cases.append(("epochs", epochs, "spec.length.epochs", ""))
        self.check_all(cases)

    def test_nan_weights_end_the_job_in_words(self):
        """Whether they are found at submit or by the first steps: a stated reason, and no LoRA made of NaN."""
        for what, bits in (("nan", float("nan")), ("inf", float("inf"))):
            with self.subTest(what):
                spec = self.of_model({UNET: with_value(os.path.join(self.sd, UNET), bits)})
                spec.max_retries = -1
                spec.length.steps = 20
                try:
                    job = self.daemon.submit(spec)
                except grpc.RpcError as error:
                    found = Error(error)
                    self.assertEqual((found.code, found.fields), (Code.INVALID_ARGUMENT, ["spec.model"]), found)
                    self.assertRegex(found.message, "(?i)nan|finite|inf")
                    continue
                job = self.daemon.wait(job.id, lambda j: j.state in ENDED)
                self.assertEqual((job.state, job.reason_code), (Job.STATE_FAILED, "NON_FINITE"), job)
                self.assertRegex(job.reason, "(?i)nan|finite")

    def test_damaged_checkpoints(self):
        job = self.daemon.submit(self.spec(steps=400))
        self.daemon.wait(job.id, lambda j: j.progress.step >= 5)
        self.daemon.jobs.PauseJob(pb.jobs.PauseJobRequest(job_id=job.id), timeout=120)
        folder = os.path.join(self.daemon.folder, "state/jobs", job.id, "checkpoints")
        listed = self.daemon.checkpoints.ListCheckpoints(pb.checkpoints.ListCheckpointsRequest(job_id=job.id),
                                                         timeout=SECONDS).checkpoints
        newest = max(os.listdir(folder), key=lambda name: os.path.getmtime(os.path.join(folder, name)))
        path = os.path.join(folder, newest)
        data = read(path)
        step = listed[-1].step
        # not yet noticed by its size: a bit in the middle
        for what, bad in (("a bit", data[:len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1:]),
                          ("garbage", GARBAGE), ("truncated", data[:100]), ("empty", b"")):
            with self.subTest(what):
                with open(path, "wb") as file:
                    file.write(bad)
                with self.assertRaises(grpc.RpcError) as caught:
                    for _ in self.daemon.checkpoints.ExportLora(pb.checkpoints.ExportLoraRequest(
                            job_id=job.id, step=step), timeout=60):
                        pass
                found = Error(caught.exception)
                self.assertEqual(found.code, Code.DATA_LOSS, found)
                self.assertRegex(found.message, "damaged|size|checksum|missing")
        self.daemon.jobs.ResumeJob(pb.jobs.ResumeJobRequest(job_id=job.id), timeout=120)
        resumed = self.daemon.wait(job.id, lambda j: j.state == Job.STATE_RUNNING)
        self.assertGreater(listed[-1].step, resumed.progress.step - 1)
        self.assertIn(f"the checkpoint of step {step}", self.daemon.log())
        self.daemon.jobs.CancelJob(pb.jobs.CancelJobRequest(job_id=job.id), timeout=SECONDS)
        self.daemon.wait(job.id, lambda j: j.state in ENDED)

    def test_files_that_vanish_after_submit(self):
        running = self.daemon.submit(self.spec(steps=100000))
        folder = self.new_folder()
        Replaced(self.sd, folder, {})
        spec = self.spec(model=folder, max_retries=-1)
        job = self.daemon.submit(spec)
        os.unlink(os.path.join(folder, UNET))
        self.daemon.jobs.CancelJob(pb.jobs.CancelJobRequest(job_id=running.id), timeout=SECONDS)
        job = self.daemon.wait(job.id, lambda j: j.state in ENDED)
        self.assertEqual(job.state, Job.STATE_FAILED)
        self.assertIn(job.reason_code, ("NOT_FOUND", "WEIGHTS_CHANGED", "INVALID_ARGUMENT"), job.reason)
        self.assertIn("diffusion_pytorch_model", job.reason)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", required=True)
    known, rest = parser.parse_known_args()
    BUILD = os.path.abspath(known.build)
    unittest.main(argv=[sys.argv[0]] + rest, verbosity=2, warnings="ignore")
