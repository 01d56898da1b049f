#!/usr/bin/python3
"""Drives the whole of draftd.v1 with Python's grpcio: every method, what it promises, and every documented error.

    api_test.py --build BUILD [unittest arguments]
"""

import argparse
import ctypes
import json
import math
import os
import shutil
import signal
import struct
import sys
import threading
import time
import unittest

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

from draftd_api import DEMO, ENDED, SECONDS, Daemon, Error, Job, Preview, eventually, pb, sanitizers, tiny_spec

BUILD = None
Code = grpc.StatusCode
PNG = b"\x89PNG\r\n\x1a\n"


class Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def xxh128(data):
    """As xxh128sum prints it."""
    function = ctypes.CDLL("libxxhash.so.0").XXH3_128bits
    function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_size_t], Hash128
    result = function(data, len(data))
    return f"{result.high:016x}{result.low:016x}"


class Case(unittest.TestCase):
    daemon = None
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon(BUILD, *cls.options)
        cls.addClassCleanup(cls.daemon.remove)

    def fails(self, call, code, field=None, words=None, reason=None):
        """The call ends with this error; returns it taken apart. Every error names its reason and our domain."""
        try:
            result = call()
            if hasattr(result, "__next__"):
                for _ in result:
                    pass
        except grpc.RpcError as error:
            found = Error(error)
            self.assertEqual(found.code, code, found)
            self.assertEqual(found.domain, "draftd", found)
            self.assertRegex(found.reason, r"^[A-Z][A-Z0-9_]{1,62}$")
            if reason:
                self.assertEqual(found.reason, reason)
            self.assertEqual(found.fields, [field] if field else [], found)
            self.assertEqual(found.metadata, {"field": field} if field else {}, found)
            self.assertTrue(found.message and len(found.message.encode()) <= 1024, found)
            self.assertFalse(found.message.endswith("."), found)
            if words:
                self.assertIn(words, found.message)
            return found
        self.fail(f"expected {code} for {field}, got {result}")

    # short forms of calls
    def spec(self, **more):
        return tiny_spec(self.daemon.folder, **more)

    def create(self, spec, **more):
        return self.daemon.jobs.CreateJob(pb.jobs.CreateJobRequest(spec=spec, **more), timeout=120)

    def cancel(self, job_id):
        return self.daemon.jobs.CancelJob(pb.jobs.CancelJobRequest(job_id=job_id), timeout=SECONDS).job

    def pause(self, job_id):
        return self.daemon.jobs.PauseJob(pb.jobs.PauseJobRequest(job_id=job_id), timeout=120).job

    def resume(self, job_id):
        return self.daemon.jobs.ResumeJob(pb.jobs.ResumeJobRequest(job_id=job_id), timeout=120).job

    def delete(self, job_id):
        return self.daemon.jobs.DeleteJob(pb.jobs.DeleteJobRequest(job_id=job_id), timeout=SECONDS)

    def watch(self, timeout=300, **more):
        return self.daemon.jobs.WatchJobs(pb.jobs.WatchJobsRequest(**more), timeout=timeout)

    def preview(self, job_id, request_id="", **more):
        request = pb.previews.CreatePreviewRequest(job_id=job_id, request_id=request_id,
                                                   spec=pb.previews.PreviewSpec(**more))
        return self.daemon.previews.CreatePreview(request, timeout=SECONDS).preview

    def watch_preview(self, preview_id):
        return self.daemon.previews.WatchPreview(pb.previews.WatchPreviewRequest(preview_id=preview_id), timeout=300)

    def picture(self, preview_id, index):
        pieces = list(self.daemon.previews.ReadPicture(
            pb.previews.ReadPictureRequest(preview_id=preview_id, index=index), timeout=SECONDS))
        self.assertTrue(all(len(piece.data) <= 65536 for piece in pieces))
        data = b"".join(piece.data for piece in pieces)
        self.assertTrue(all(piece.total_bytes == len(data) for piece in pieces))
        return data

    def export(self, **more):
        pieces = list(self.daemon.checkpoints.ExportLora(pb.checkpoints.ExportLoraRequest(**more), timeout=120))
        self.assertTrue(all(len(piece.data) <= 65536 for piece in pieces))
        data = b"".join(piece.data for piece in pieces)
        self.assertTrue(all(piece.total_bytes == len(data) for piece in pieces))
        self.assertTrue(pieces[0].file_name.endswith(".safetensors"), pieces[0].file_name)
        self.assertTrue(all(piece.file_name == "" for piece in pieces[1:]))
        return data

    def read_checkpoint(self, **more):
        """(what is recorded of it, its bytes)"""
        pieces = list(self.daemon.checkpoints.ReadCheckpoint(pb.checkpoints.ReadCheckpointRequest(**more), timeout=120))
        self.assertTrue(all(len(piece.data) <= 65536 for piece in pieces))
        data = b"".join(piece.data for piece in pieces)
        self.assertTrue(all(piece.total_bytes == len(data) for piece in pieces))
        self.assertEqual([piece.HasField("checkpoint") for piece in pieces], [True] + [False] * (len(pieces) - 1))
        return pieces[0].checkpoint, data

    def checkpoint_steps(self, job_id):
        reply = self.daemon.checkpoints.ListCheckpoints(pb.checkpoints.ListCheckpointsRequest(job_id=job_id),
                                                        timeout=SECONDS)
        return [checkpoint.step for checkpoint in reply.checkpoints]


def safetensors(data):
    """The header of a safetensors file, after checking that it describes the file."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__", {})
    ends = sorted(tensor["data_offsets"] for tensor in header.values())
    assert ends[0][0] == 0 and ends[-1][1] == len(data) - 8 - length
    assert all(a[1] == b[0] for a, b in zip(ends, ends[1:]))
    return metadata, header


class Submitting(Case):
    """What needs no training: the checks of a submit, the queue's limit, lists. Nothing is left running."""

    def test_server_info(self):
        info = self.daemon.system.GetServerInfo(pb.system.GetServerInfoRequest(), timeout=SECONDS)
        self.assertEqual(info.pid, self.daemon.process.pid)
        self.assertEqual(info.socket, self.daemon.socket)
        self.assertEqual(info.state_dir, os.path.join(self.daemon.folder, "state"))
        self.assertEqual(os.path.realpath(info.demo_dir), os.path.realpath(DEMO))
        self.assertRegex(info.version, r"^\d+\.\d+\.\d+$")
        self.assertEqual(info.max_queue, 512)
        self.assertFalse(info.draining)
        self.assertIn("cpu", [device.name for device in info.devices])
        self.assertGreater(info.devices[0].memory_bytes, 1 << 28)
        self.assertLessEqual({"clip", "jpeg"}, {reward.name for reward in info.rewards})
        self.assertLess(abs(info.start_time_us / 1e6 - time.time()), 600)

    def test_devices_are_looked_at_by_a_process_that_ends(self):
        ask = lambda device: self.daemon.system.ProbeDevices(
            pb.system.ProbeDevicesRequest(device=device), timeout=SECONDS)
        found = ask("")
        self.assertEqual(found.devices[0].name, "cpu")
        self.assertEqual(len(found.devices) == 1, found.no_gpu != "")  # GPUs, or why there is none
        self.fails(lambda: ask("cuda:77"), Code.NOT_FOUND, "device", "cuda:77")

    def test_health(self):
        check = lambda name: self.daemon.health.Check(pb.health.HealthCheckRequest(service=name), timeout=SECONDS).status
        for name in ["", "draftd.v1.JobService", "draftd.v1.MetricService", "draftd.v1.PreviewService",
                     "draftd.v1.CheckpointService", "draftd.v1.SystemService", "grpc.health.v1.Health"]:
            self.assertEqual(check(name), pb.health.HealthCheckResponse.SERVING, name)
        self.fails(lambda: check("no.such.Service"), Code.NOT_FOUND, "service")
        stream = self.daemon.health.Watch(pb.health.HealthCheckRequest(service="no.such.Service"), timeout=SECONDS)
        self.assertEqual(next(stream).status, pb.health.HealthCheckResponse.SERVICE_UNKNOWN)
        stream.cancel()
        stream = self.daemon.health.Watch(pb.health.HealthCheckRequest(), timeout=SECONDS)
        self.assertEqual(next(stream).status, pb.health.HealthCheckResponse.SERVING)
        stream.cancel()

    def test_validate_only_keeps_nothing(self):
        listed = lambda: [j.id for j in self.daemon.jobs.ListJobs(pb.jobs.ListJobsRequest(), timeout=SECONDS).jobs]
        before = listed()
        job = self.create(self.spec(), validate_only=True).job
        self.assertEqual(job.id, "")
        self.assertEqual(job.prompt_count, 3)
        self.assertEqual(job.progress.total_steps, 4)
        self.assertEqual((job.picture_height, job.picture_width), (64, 64))
        self.assertGreater(job.trained_parameters, 1000)
        self.assertGreater(job.memory_bytes, 1 << 20)
        self.assertRegex(job.fingerprint, r"^[0-9a-f]{32}$")
        self.assertEqual(listed(), before)

    def test_every_bad_field_is_named(self):
        folder = self.daemon.folder

        def file(name, data):
            path = os.path.join(folder, name)
            with open(path, "wb") as f:
                f.write(data)
            return path

        def change(function):
            spec = self.spec()
            function(spec)
            return spec

        def assign(path, value):
            def function(spec):
                *parents, last = path.split(".")
                target = spec
                for name in parents:
                    target = getattr(target, name)
                setattr(target, last, value)
            return function

        def rewards(*kinds):
            def function(spec):
                del spec.rewards[:]
                for kind in kinds:
                    spec.rewards.add(**kind)
            return function

        clip = os.path.join(DEMO, "emoji-clip")
        cases = [
            ("spec.display_name", assign("display_name", "x" * 64)),
            ("spec.model", assign("model", "")),
            ("spec.model", assign("model", "relative/folder")),
            ("spec.model", assign("model", os.path.join(folder, "no-such-model"))),
            ("spec.dataset", assign("dataset", "")),
            ("spec.dataset", assign("dataset", os.path.join(folder, "no-such-file.txt"))),
            ("spec.dataset", assign("dataset", file("empty.txt", b""))),
            ("spec.dataset", assign("dataset", file("latin1.txt", b"caf\xe9\n"))),
            ("spec.dataset", assign("dataset", file("nul.txt", b"an\0imal\n"))),
            ("spec.dataset", assign("dataset", file("prompts.bin", b"an animal\n"))),
            ("spec.dataset", assign("dataset", file("broken.jsonl", b'{"prompt": "a\n'))),
            ("spec.rewards", rewards()),
            ("spec.rewards[0].kind", rewards({"kind": "beauty"})),
            ("spec.rewards[1]", rewards({"kind": "clip", "path": clip}, {"kind": "clip", "path": "/no/such/folder"})),
            ("spec.rewards[0].path", rewards({"kind": "clip", "path": "relative"})),
            ("spec.rewards[0]", rewards({"kind": "jpeg", "options": "quality=101"})),
            ("spec.rewards[0].weight", rewards({"kind": "clip", "path": clip, "weight": math.nan})),
            ("spec.kl_coeff", assign("kl_coeff", -0.1)),
            ("spec.kl_coeff", assign("kl_coeff", math.nan)),
            ("spec.sampling.steps", assign("sampling.steps", -1)),
            ("spec.sampling.steps", assign("sampling.steps", 1001)),
            ("spec.sampling.truncation_steps", assign("sampling.truncation_steps", 5)),
            ("spec.sampling.lv_copies", assign("sampling.lv_copies", -2)),
            ("spec.sampling.guidance", assign("sampling.guidance", math.inf)),
            ("spec.sampling.sampler", assign("sampling.sampler", "Euler a")),
            ("spec.sampling.height", assign("sampling.height", 33)),
            ("spec.sampling.width", assign("sampling.width", -64)),
            ("spec.lora.rank", assign("lora.rank", -1)),
            ("spec.lora.rank", assign("lora.rank", 100000)),
            ("spec.lora.alpha", assign("lora.alpha", math.nan)),
            ("spec.optimizer.learning_rate", assign("optimizer.learning_rate", -1e-3)),
            ("spec.optimizer.learning_rate", assign("optimizer.learning_rate", math.inf)),
            ("spec.optimizer.beta1", assign("optimizer.beta1", 1.0)),
            ("spec.optimizer.beta2", assign("optimizer.beta2", 1.5)),
            ("spec.optimizer.epsilon", assign("optimizer.epsilon", -1e-8)),
            ("spec.optimizer.weight_decay", assign("optimizer.weight_decay", -1.0)),
            ("spec.optimizer.warmup_steps", assign("optimizer.warmup_steps", -1)),
            ("spec.optimizer.max_grad_norm", assign("optimizer.max_grad_norm", -1.0)),
            ("spec.length", assign("length.steps", 0)),
            ("spec.length", assign("length.epochs", 2.0)),
            ("spec.length.steps", assign("length.steps", -4)),
            ("spec.length.micro_batch", assign("length.micro_batch", -1)),
            ("spec.length.global_batch", assign("length.global_batch", 3)),
            ("spec.evaluation.every", assign("evaluation.every", -2)),
            ("spec.evaluation.seeds", assign("evaluation.seeds", -1)),
            ("spec.evaluation.lpips", assign("evaluation.lpips", "/no/such/folder")),
            ("spec.checkpoint_every", assign("checkpoint_every", -1)),
            ("spec.checkpoint_keep", assign("checkpoint_keep", -1)),
            ("spec.device", assign("device", "tpu")),
            ("spec.train", assign("train", "unet")),
            ("spec.ema_decay", assign("ema_decay", 1.0)),
            ("spec.ema_decay", assign("ema_decay", math.nan)),
            ("spec.precision", assign("precision", "fp16")),
            ("spec.threads", assign("threads", -1)),
            ("spec.max_retries", assign("max_retries", -2)),
        ]
        for field, function in cases:
            with self.subTest(field=field):
                self.fails(lambda: self.create(change(function), validate_only=True),
                           Code.INVALID_ARGUMENT, field)
        self.fails(lambda: self.create(None), Code.INVALID_ARGUMENT, "spec")

    def test_request_id_makes_a_retry_harmless(self):
        one = self.create(self.spec(steps=1000), request_id="7d0b7b5e-9d53-4b3a-8a3c-0a3a6a6f0001").job
        two = self.create(self.spec(steps=1000), request_id="7d0b7b5e-9d53-4b3a-8a3c-0a3a6a6f0001").job
        self.assertEqual(one.id, two.id)
        self.fails(lambda: self.create(self.spec(steps=999), request_id="7d0b7b5e-9d53-4b3a-8a3c-0a3a6a6f0001"),
                   Code.INVALID_ARGUMENT, "request_id")
        self.fails(lambda: self.create(self.spec(), request_id="x" * 65), Code.INVALID_ARGUMENT, "request_id")
        three = self.create(self.spec(steps=1000)).job
        four = self.create(self.spec(steps=1000)).job
        self.assertEqual(len({one.id, three.id, four.id}), 3)
        for job in (four, three, one):
            self.cancel(job.id)
        for job in (four, three, one):
            self.daemon.wait(job.id, lambda j: j.state in ENDED)

    def test_unknown_ids(self):
        d = self.daemon
        for bad in ("job-999999", "job-", "job-1x", "jobs/1", "job-99999999999999999999"):
            calls = [
                lambda: d.jobs.GetJob(pb.jobs.GetJobRequest(job_id=bad), timeout=SECONDS),
                lambda: self.cancel(bad), lambda: self.pause(bad), lambda: self.resume(bad), lambda: self.delete(bad),
                lambda: self.watch(job_id=bad, timeout=SECONDS),
                lambda: d.metrics.ListMetrics(pb.metrics.ListMetricsRequest(job_id=bad), timeout=SECONDS),
                lambda: d.metrics.QueryMetrics(pb.metrics.QueryMetricsRequest(job_id=bad), timeout=SECONDS),
                lambda: self.preview(bad),
                lambda: d.previews.ListPreviews(pb.previews.ListPreviewsRequest(job_id=bad), timeout=SECONDS),
                lambda: self.checkpoint_steps(bad),
                lambda: d.checkpoints.CreateCheckpoint(pb.checkpoints.CreateCheckpointRequest(job_id=bad), timeout=SECONDS),
                lambda: self.export(job_id=bad), lambda: self.read_checkpoint(job_id=bad),
            ]
            for number, call in enumerate(calls):
                with self.subTest(id=bad, call=number):
                    self.fails(call, Code.NOT_FOUND, "job_id")
        for bad in ("preview-999999", "preview-x", "job-1"):
            for number, call in enumerate([
                    lambda: d.previews.GetPreview(pb.previews.GetPreviewRequest(preview_id=bad), timeout=SECONDS),
                    lambda: self.watch_preview(bad), lambda: self.picture(bad, 0)]):
                with self.subTest(id=bad, call=number):
                    self.fails(call, Code.NOT_FOUND, "preview_id")

    def test_missing_ids(self):
        d = self.daemon
        for number, call in enumerate([
                lambda: d.jobs.GetJob(pb.jobs.GetJobRequest(), timeout=SECONDS),
                lambda: self.cancel(""), lambda: self.pause(""), lambda: self.resume(""), lambda: self.delete(""),
                lambda: d.metrics.ListMetrics(pb.metrics.ListMetricsRequest(), timeout=SECONDS),
                lambda: d.metrics.QueryMetrics(pb.metrics.QueryMetricsRequest(), timeout=SECONDS),
                lambda: self.preview(""),
                lambda: d.previews.ListPreviews(pb.previews.ListPreviewsRequest(), timeout=SECONDS),
                lambda: self.checkpoint_steps(""),
                lambda: d.checkpoints.CreateCheckpoint(pb.checkpoints.CreateCheckpointRequest(), timeout=SECONDS),
                lambda: self.export(job_id=""), lambda: self.read_checkpoint(job_id="")]):
            with self.subTest(call=number):
                self.fails(call, Code.INVALID_ARGUMENT, "job_id", words="missing")
        for call in (lambda: d.previews.GetPreview(pb.previews.GetPreviewRequest(), timeout=SECONDS),
                     lambda: self.watch_preview(""), lambda: self.picture("", 0)):
            self.fails(call, Code.INVALID_ARGUMENT, "preview_id", words="missing")

    def test_revisions_that_are_not_there(self):
        self.fails(lambda: self.watch(start_revision=10**9, timeout=SECONDS), Code.OUT_OF_RANGE, "start_revision",
                   reason="REVISION_FORGOTTEN")
        self.fails(lambda: self.watch(start_revision=-1, timeout=SECONDS), Code.INVALID_ARGUMENT, "start_revision")


class Queue(Case):
    """Waiting, places in the queue, its limit, lists in pages: one job occupies the device meanwhile."""
    options = ("--max-queue", "3")

    def test_the_queue(self):
        d = self.daemon
        first = self.create(self.spec(steps=100000)).job
        d.wait(first.id, lambda j: j.state == Job.STATE_RUNNING)
        waiting = [self.create(self.spec(steps=100000)).job for _ in range(3)]
        for place, job in enumerate(waiting):
            job = d.get(job.id)
            self.assertEqual(job.state, Job.STATE_QUEUED)
            self.assertEqual(job.queue_position, place + 1)
            self.assertIn(first.id, job.reason)  # for what it waits
        self.fails(lambda: self.create(self.spec()), Code.RESOURCE_EXHAUSTED, words="3")
        info = d.system.GetServerInfo(pb.system.GetServerInfoRequest(), timeout=SECONDS)
        self.assertEqual((info.queued_jobs, info.running_jobs, info.max_queue), (3, 1, 3))
        self.assertEqual(info.devices[0].job_id, first.id)

        # a queued job ends at once, those behind it move up
        self.assertEqual(self.cancel(waiting[0].id).state, Job.STATE_CANCELLED)
        self.assertEqual(d.get(waiting[1].id).queue_position, 1)
        self.fails(lambda: self.cancel(waiting[0].id), Code.FAILED_PRECONDITION)
        self.fails(lambda: self.pause(waiting[0].id), Code.FAILED_PRECONDITION)
        self.fails(lambda: self.resume(first.id), Code.FAILED_PRECONDITION)
        self.fails(lambda: self.delete(first.id), Code.FAILED_PRECONDITION)
        self.fails(lambda: self.delete(waiting[1].id), Code.FAILED_PRECONDITION)

        # pages, newest first
        ids = [first.id] + [job.id for job in waiting]
        found, token, pages = [], "", 0
        while True:
            page = d.jobs.ListJobs(pb.jobs.ListJobsRequest(page_size=3, page_token=token), timeout=SECONDS)
            self.assertLessEqual(len(page.jobs), 3)
            self.assertEqual(page.total_size, len(ids))
            found += [job.id for job in page.jobs]
            pages += 1
            token = page.next_page_token
            if not token:
                break
        self.assertEqual((found, pages), (ids[::-1], 2))
        queued = d.jobs.ListJobs(pb.jobs.ListJobsRequest(states=[Job.STATE_QUEUED], page_size=1), timeout=SECONDS)
        self.assertEqual([job.id for job in queued.jobs], [waiting[2].id])
        self.assertEqual(queued.total_size, 2)
        self.fails(lambda: d.jobs.ListJobs(pb.jobs.ListJobsRequest(page_size=1, page_token=queued.next_page_token),
                                           timeout=SECONDS), Code.INVALID_ARGUMENT, "page_token")
        self.fails(lambda: d.jobs.ListJobs(pb.jobs.ListJobsRequest(page_size=-1), timeout=SECONDS),
                   Code.INVALID_ARGUMENT, "page_size")
        for token in ("x", "0.0", "1", "1.g", "9" * 50):
            self.fails(lambda: d.jobs.ListJobs(pb.jobs.ListJobsRequest(page_token=token), timeout=SECONDS),
                       Code.INVALID_ARGUMENT, "page_token")
        self.fails(lambda: d.jobs.ListJobs(pb.jobs.ListJobsRequest(states=[77]), timeout=SECONDS),
                   Code.INVALID_ARGUMENT, "states")

        # a running one is stopped within seconds, then the next one gets the device
        begin = time.monotonic()
        self.assertIn(self.cancel(first.id).state, (Job.STATE_CANCELLING, Job.STATE_CANCELLED))
        d.wait(first.id, lambda j: j.state == Job.STATE_CANCELLED)
        self.assertLess(time.monotonic() - begin, 200 if sanitizers(BUILD) else 20)
        d.wait(waiting[1].id, lambda j: j.state == Job.STATE_RUNNING)

        # deleting: gone with all it had, told to watchers
        stream = self.watch()
        self.assertTrue(next(stream).is_snapshot)
        self.delete(first.id)
        for message in stream:
            if message.event.kind == pb.jobs.JobEvent.KIND_DELETED:
                break
        self.assertEqual(message.event.job_id, first.id)
        stream.cancel()
        self.fails(lambda: d.get(first.id), Code.NOT_FOUND, "job_id", words=first.id)
        for job in waiting[1:][::-1]:
            self.cancel(job.id)


class Training(Case):
    """One job from submit to LoRA file, then everything that can be asked of an ended job."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        spec = tiny_spec(cls.daemon.folder, steps=8)
        spec.evaluation.every = 4
        spec.evaluation.seeds = 2
        spec.evaluation.prompts.append("an animal")
        spec.evaluation.lpips = os.path.join(DEMO, "emoji-lpips")
        cls.spec_sent = spec
        # one who watches everything from before the beginning
        cls.messages = []
        stream = cls.daemon.jobs.WatchJobs(pb.jobs.WatchJobsRequest(), timeout=600)
        cls.messages.append(next(stream))

        def collect():
            try:
                for message in stream:
                    cls.messages.append(message)
            except grpc.RpcError:
                pass

        collector = threading.Thread(target=collect)
        collector.start()
        cls.job_id = cls.daemon.submit(spec).id
        cls.own = list(cls.daemon.jobs.WatchJobs(pb.jobs.WatchJobsRequest(job_id=cls.job_id), timeout=600))
        cls.job = cls.daemon.get(cls.job_id)
        last = cls.job.revision
        eventually(lambda: cls.messages[-1].revision >= last)
        stream.cancel()
        collector.join()

    def test_the_job_as_it_ended(self):
        job = self.job
        self.assertEqual(job.state, Job.STATE_SUCCEEDED, job)
        self.assertEqual(job.spec, self.spec_sent)  # kept unchanged
        self.assertEqual((job.progress.step, job.progress.total_steps), (8, 8))
        self.assertEqual((job.attempt, job.prompt_count, job.reason_code), (1, 3, ""))
        self.assertTrue(0 < job.create_time_us <= job.start_time_us <= job.end_time_us)
        for value in (job.progress.reward, job.progress.kl, job.progress.lpips):
            self.assertTrue(math.isfinite(value), job.progress)
        self.assertGreater(job.progress.seconds_per_step, 0)

    def test_watching_tells_every_state_in_order_and_once(self):
        for messages in (self.messages, self.own):
            self.assertTrue(messages[0].is_snapshot)
            self.assertFalse(any(message.is_snapshot for message in messages[1:]))
            revisions = [m.revision for m in messages[1:]]
            self.assertEqual(revisions, sorted(revisions))
            kept = [m for m in messages[1:] if m.event.kind in (pb.jobs.JobEvent.KIND_STATE,
                                                                pb.jobs.JobEvent.KIND_CHECKPOINT)]
            self.assertEqual(len({m.revision for m in kept}), len(kept))
        self.assertEqual(list(self.messages[0].snapshot), [])
        states = [m.event.job.state for m in self.messages[1:] if m.event.kind == pb.jobs.JobEvent.KIND_STATE]
        self.assertEqual(states, [Job.STATE_QUEUED, Job.STATE_PREPARING, Job.STATE_RUNNING, Job.STATE_SUCCEEDED])
        self.assertEqual(self.own[-1].event.job.state, Job.STATE_SUCCEEDED)
        kinds = {m.event.kind for m in self.messages[1:]}
        self.assertLessEqual({pb.jobs.JobEvent.KIND_PROGRESS, pb.jobs.JobEvent.KIND_METRICS,
                              pb.jobs.JobEvent.KIND_CHECKPOINT}, kinds)
        phases = {m.event.job.progress.phase for m in self.messages[1:] if m.event.HasField("job")}
        self.assertTrue(phases & {"sampling", "backward", "evaluating"}, phases)

    def test_a_watch_resumes_from_any_revision(self):
        def kept(messages):
            return [(m.revision, m.event.kind, m.event.job_id, m.event.step, m.event.job.state) for m in messages
                    if m.event.kind in (pb.jobs.JobEvent.KIND_STATE, pb.jobs.JobEvent.KIND_CHECKPOINT)]

        whole = kept(self.messages[1:])
        self.assertGreaterEqual(len(whole), 5)
        for cut in range(len(whole)):
            stream = self.watch(job_id=self.job_id, start_revision=whole[cut][0], timeout=SECONDS)
            again = list(stream)  # ends by itself after the final state
            self.assertFalse(again[0].is_snapshot)
            self.assertEqual(kept(again), whole[cut:])

    def test_watching_an_ended_job_is_a_snapshot_and_the_end(self):
        messages = list(self.watch(job_id=self.job_id, timeout=SECONDS))
        self.assertEqual(len(messages), 1)
        self.assertEqual([job.id for job in messages[0].snapshot], [self.job_id])

    def query(self, **more):
        return self.daemon.metrics.QueryMetrics(pb.metrics.QueryMetricsRequest(job_id=self.job_id, **more),
                                                timeout=SECONDS)

    def test_metrics(self):
        listed = self.daemon.metrics.ListMetrics(pb.metrics.ListMetricsRequest(job_id=self.job_id), timeout=SECONDS)
        series = {one.name: one for one in listed.series}
        self.assertLessEqual({"reward", "kl", "loss", "grad_norm", "eval/reward", "eval/kl", "eval/lpips"}, set(series))
        self.assertEqual((series["loss"].points, series["loss"].first_step, series["loss"].last_step), (8, 1, 8))
        self.assertEqual((series["eval/reward"].first_step, series["eval/reward"].last_step), (0, 8))

        all_of_it = self.query()
        self.assertEqual({one.name for one in all_of_it.series}, set(series))
        two = self.query(names=["reward", "kl"])
        self.assertEqual([one.name for one in two.series], ["reward", "kl"])
        for one in two.series:
            self.assertEqual([point.step for point in one.points], list(range(1, 9)))
            self.assertTrue(all(point.min == point.value == point.max and point.attempt == 1 for point in one.points))
            self.assertFalse(one.thinned)
        self.assertEqual(two.last_step, 8)
        self.assertEqual(two.series[0].points[-1].value, series["reward"].last_value)
        tail = self.query(names=["reward"], since_step=7)
        self.assertEqual(list(tail.series[0].points), list(two.series[0].points)[6:])

        thin = self.query(names=["reward"], max_points=3).series[0]
        self.assertTrue(thin.thinned)
        self.assertLessEqual(len(thin.points), 3)
        values = [point.value for point in two.series[0].points]
        self.assertEqual(thin.points[-1].value, values[-1])
        self.assertEqual(min(p.min for p in thin.points), min(values))
        self.assertEqual(max(p.max for p in thin.points), max(values))

        self.fails(lambda: self.query(max_points=-1), Code.INVALID_ARGUMENT, "max_points")
        self.assertFalse(self.query(names=["reward"], max_points=2**31 - 1).series[0].thinned)  # 10000 then
        nothing = self.query(names=["no/such/series"])
        self.assertEqual([(one.name, list(one.points)) for one in nothing.series], [("no/such/series", [])])

    def test_checkpoints(self):
        reply = self.daemon.checkpoints.ListCheckpoints(pb.checkpoints.ListCheckpointsRequest(job_id=self.job_id),
                                                        timeout=SECONDS)
        self.assertEqual([one.step for one in reply.checkpoints], [2, 4, 6, 8])
        for one in reply.checkpoints:
            self.assertEqual((one.job_id, one.attempt), (self.job_id, 1))
            self.assertRegex(one.checksum, r"^[0-9a-f]{32}$")
            self.assertGreater(one.bytes, 1000)
        self.fails(lambda: self.daemon.checkpoints.CreateCheckpoint(
            pb.checkpoints.CreateCheckpointRequest(job_id=self.job_id), timeout=SECONDS), Code.FAILED_PRECONDITION)

    def test_a_checkpoint_is_read_as_it_is(self):
        folder = os.path.join(self.daemon.folder, "state", "jobs", self.job_id, "checkpoints")
        files = {}
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            files[xxh128(data)] = data
        reply = self.daemon.checkpoints.ListCheckpoints(pb.checkpoints.ListCheckpointsRequest(job_id=self.job_id),
                                                        timeout=SECONDS)
        for one in reply.checkpoints:
            told, data = self.read_checkpoint(job_id=self.job_id, step=one.step)
            self.assertEqual(told, one)
            self.assertEqual(len(data), one.bytes)
            self.assertEqual(data, files[one.checksum])
        self.assertEqual(len(files), len(reply.checkpoints))
        told, data = self.read_checkpoint(job_id=self.job_id)
        self.assertEqual((told, data), (reply.checkpoints[-1], files[reply.checkpoints[-1].checksum]))
        self.fails(lambda: self.read_checkpoint(job_id=self.job_id, step=3), Code.NOT_FOUND, "step")
        self.fails(lambda: self.read_checkpoint(job_id=self.job_id, step=-1), Code.INVALID_ARGUMENT, "step")

    def test_export(self):
        data = self.export(job_id=self.job_id)
        metadata, tensors = safetensors(data)
        self.assertEqual(data, self.export(job_id=self.job_id))  # equal checkpoints, equal bytes
        self.assertEqual({tensor["dtype"] for tensor in tensors.values()}, {"F16"})
        self.assertTrue(all(name.startswith("lora_unet_") for name in tensors))
        self.assertIn("ss_network_dim", metadata)
        self.assertEqual(metadata["ss_network_dim"], "4")
        kohya = self.export(job_id=self.job_id, format=pb.checkpoints.ExportLoraRequest.FORMAT_KOHYA, step=8)
        self.assertEqual(kohya, data)
        early = self.export(job_id=self.job_id, step=2)
        self.assertEqual(safetensors(early)[1].keys(), tensors.keys())
        self.assertNotEqual(early, data)
        _, diffusers = safetensors(self.export(job_id=self.job_id, f32=True,
                                               format=pb.checkpoints.ExportLoraRequest.FORMAT_DIFFUSERS))
        self.assertEqual({tensor["dtype"] for tensor in diffusers.values()}, {"F32"})
        self.assertTrue(all(name.startswith("unet.") and "lora" in name for name in diffusers))
        self.fails(lambda: self.export(job_id=self.job_id, step=3), Code.NOT_FOUND, "step")
        self.fails(lambda: self.export(job_id=self.job_id, format=9), Code.INVALID_ARGUMENT, "format")
        self.assertEqual(os.listdir(os.path.join(self.daemon.folder, "state", "exports")), [])

    def test_previews_of_an_ended_job(self):
        d = self.daemon
        asked = self.preview(self.job_id, request_id="p-1", prompts=["a fruit", "a bird"], count=2, seed=7, steps=4,
                             guidance=2.0)
        self.assertEqual(asked.id, self.preview(self.job_id, request_id="p-1", prompts=["a fruit", "a bird"], count=2,
                                                seed=7, steps=4, guidance=2.0).id)
        self.fails(lambda: self.preview(self.job_id, request_id="p-1", prompts=["a fruit"]), Code.INVALID_ARGUMENT,
                   "request_id")
        messages = list(self.watch_preview(asked.id))
        final = messages[-1].preview
        self.assertEqual(final.state, Preview.STATE_SUCCEEDED, final)
        self.assertEqual((final.total, final.step, len(final.pictures)), (4, 8, 4))
        counts = [len(message.preview.pictures) for message in messages]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual([(p.prompt, p.seed, p.height, p.width) for p in final.pictures],
                         [("a fruit", 7, 64, 64), ("a fruit", 8, 64, 64), ("a bird", 7, 64, 64), ("a bird", 8, 64, 64)])
        pictures = [self.picture(final.id, index) for index in range(4)]
        for picture, described in zip(pictures, final.pictures):
            self.assertTrue(picture.startswith(PNG))
            self.assertEqual(len(picture), described.bytes)
            self.assertEqual(struct.unpack(">II", picture[16:24]), (64, 64))
            self.assertIn(b"a fruit" if "fruit" in described.prompt else b"a bird", picture)
            self.assertTrue(math.isfinite(described.reward))
        self.assertEqual(len(set(pictures)), 4)
        self.fails(lambda: self.picture(final.id, 4), Code.NOT_FOUND, "index")
        self.fails(lambda: self.picture(final.id, -1), Code.NOT_FOUND, "index")

        same = self.preview(self.job_id, prompts=["a fruit"], seed=7, steps=4, guidance=2.0)
        base = self.preview(self.job_id, prompts=["a fruit"], seed=7, steps=4, guidance=2.0, lora_scale=0.0)
        start = self.preview(self.job_id, prompts=["a fruit"], seed=7, steps=4, guidance=2.0, checkpoint_step=0)
        early = self.preview(self.job_id, prompts=["a fruit"], seed=7, steps=4, guidance=2.0, checkpoint_step=2)
        for preview in (same, base, start, early):
            list(self.watch_preview(preview.id))
        first = [self.picture(preview.id, 0) for preview in (same, base, start, early)]
        get = lambda preview: d.previews.GetPreview(pb.previews.GetPreviewRequest(preview_id=preview.id),
                                                    timeout=SECONDS).preview
        self.assertEqual([get(preview).step for preview in (same, early)], [8, 2])
        self.assertEqual(get(same).pictures[0].reward, final.pictures[0].reward)
        self.assertNotEqual(get(base).pictures[0].reward, get(same).pictures[0].reward)
        self.assertEqual(get(base).pictures[0].reward, get(start).pictures[0].reward)  # both are the base model
        self.assertEqual(len(first[0]), get(same).pictures[0].bytes)

        other = self.preview(self.job_id, prompts=["a fruit"], seed=7, steps=4, sampler="dpmpp_2m_karras")
        plms = self.preview(self.job_id, prompts=["a fruit"], seed=7, steps=4, sampler="pndm", aig="linear")
        for preview, title in ((same, b"DDIM"), (other, b"DPM++ 2M Karras"), (plms, b"PLMS")):
            last = list(self.watch_preview(preview.id))[-1]
            self.assertEqual(last.preview.state, Preview.STATE_SUCCEEDED, last.preview)
            self.assertIn(b"Steps: 4, Sampler: " + title + b", CFG scale", self.picture(preview.id, 0))

        default = self.preview(self.job_id)  # the job's evaluation prompts
        self.assertEqual(list(self.watch_preview(default.id))[-1].preview.pictures[0].prompt, "an animal")

        found, token = [], ""
        while True:
            page = d.previews.ListPreviews(pb.previews.ListPreviewsRequest(job_id=self.job_id, page_size=2,
                                                                           page_token=token), timeout=SECONDS)
            found += [preview.id for preview in page.previews]
            token = page.next_page_token
            if not token:
                break
        self.assertEqual(found, [p.id for p in (default, plms, other, early, start, base, same, asked)])
        self.fails(lambda: d.previews.ListPreviews(pb.previews.ListPreviewsRequest(
            job_id=self.job_id, page_size=-5), timeout=SECONDS), Code.INVALID_ARGUMENT, "page_size")
        self.fails(lambda: d.previews.ListPreviews(pb.previews.ListPreviewsRequest(
            job_id=self.job_id, page_token="?"), timeout=SECONDS), Code.INVALID_ARGUMENT, "page_token")

    def test_bad_previews(self):
        for field, more in [
                ("spec.prompts[1]", {"prompts": ["fine", ""]}), ("spec.count", {"prompts": ["x"], "count": 257}),
                ("spec.count", {"prompts": ["x"] * 20, "count": 20}), ("spec.count", {"prompts": ["x"], "count": -1}),
                ("spec.steps", {"steps": -1}), ("spec.steps", {"steps": 1001}), ("spec.guidance", {"guidance": math.nan}),
                ("spec.lora_scale", {"lora_scale": math.inf}), ("spec.height", {"height": 33}),
                ("spec.width", {"width": -8}), ("spec.aig", {"aig": "cubic"}), ("spec.sampler", {"sampler": "heun"}),
                ("spec.checkpoint_step", {"checkpoint_step": -1})]:
            with self.subTest(field=field):
                self.fails(lambda: self.preview(self.job_id, **more), Code.INVALID_ARGUMENT, field)
        self.fails(lambda: self.preview(self.job_id, checkpoint_step=3), Code.NOT_FOUND, "spec.checkpoint_step")


class Steering(Case):
    """A long job: pictures and checkpoints while it trains, pause, resume, restart of the daemon."""

    def test_steering(self):
        d = self.daemon
        job_id = self.create(self.spec(steps=100000, checkpoint_every=1000)).job.id
        d.wait(job_id, lambda j: j.state == Job.STATE_RUNNING and j.progress.step >= 1)

        # mid-training: at the next step boundary, while the job goes on
        preview = self.preview(job_id, prompts=["a fruit"], count=2, steps=4)
        self.assertIn(preview.state, (Preview.STATE_PENDING, Preview.STATE_RUNNING))
        messages = list(self.watch_preview(preview.id))
        final = messages[-1].preview
        self.assertEqual(final.state, Preview.STATE_SUCCEEDED, final)
        self.assertGreaterEqual(final.step, 1)
        self.assertTrue(all(self.picture(final.id, index).startswith(PNG) for index in range(2)))
        self.assertEqual(d.get(job_id).state, Job.STATE_RUNNING)

        saved = d.checkpoints.CreateCheckpoint(pb.checkpoints.CreateCheckpointRequest(job_id=job_id),
                                               timeout=120).checkpoint
        self.assertEqual(self.checkpoint_steps(job_id), [saved.step])

        job = self.pause(job_id)  # the reply comes when it is paused
        self.assertEqual(job.state, Job.STATE_PAUSED)
        step = job.progress.step
        self.assertEqual(self.checkpoint_steps(job_id)[-1], step)
        self.assertEqual(d.workers(), [])  # gone, the device is free
        self.assertEqual(self.pause(job_id).state, Job.STATE_PAUSED)  # asked again: it is what was wanted
        self.assertEqual(list(self.watch_preview(self.preview(job_id, prompts=["a bird"]).id))[-1].preview.step, step)

        self.assertIn(self.resume(job_id).state, (Job.STATE_QUEUED, Job.STATE_PREPARING))
        job = d.wait(job_id, lambda j: j.state == Job.STATE_RUNNING and j.progress.step > step)
        self.assertEqual(job.attempt, 2)

        # SIGTERM: NOT_SERVING, streams told, checkpoint, exit 0; the next daemon goes on with the job
        health = d.health.Watch(pb.health.HealthCheckRequest(), timeout=60)
        self.assertEqual(next(health).status, pb.health.HealthCheckResponse.SERVING)
        watch = self.watch()
        next(watch)
        d.process.send_signal(signal.SIGTERM)
        self.assertEqual(next(health).status, pb.health.HealthCheckResponse.NOT_SERVING)
        with self.assertRaises(grpc.RpcError) as caught:
            for _ in watch:
                pass
        self.assertEqual(caught.exception.code(), Code.UNAVAILABLE)
        self.assertIn("stopping", caught.exception.details())
        self.assertEqual(d.process.wait(timeout=90), 0)
        self.assertFalse(os.path.exists(d.socket))
        d.channel.close()
        d.start()
        before = self.checkpoint_steps(job_id)[-1]
        self.assertGreater(before, step)
        job = d.wait(job_id, lambda j: j.state == Job.STATE_RUNNING and j.progress.step > before)
        self.assertEqual(job.attempt, 3)
        self.cancel(job_id)
        job = d.wait(job_id, lambda j: j.state in ENDED)
        self.assertEqual(job.state, Job.STATE_CANCELLED)
        self.assertGreaterEqual(self.checkpoint_steps(job_id)[-1], before)  # its last checkpoint stays
        self.assertEqual(d.stop(), 0)


class FullTraining(Case):
    """A job that trains every weight of the UNet and keeps their average: the same life, other exports."""

    def test_full_training(self):
        d = self.daemon
        spec = self.spec(steps=2, train="full", ema_decay=0.5)
        self.fails(lambda: self.create(spec), Code.INVALID_ARGUMENT, "spec.lora")
        spec.ClearField("lora")
        spec.optimizer.learning_rate = 1e-4
        job = self.create(spec).job
        self.assertGreater(job.trained_parameters, 8e6)
        self.assertIn("every weight of the UNet is trained (8 million)", job.warnings[0])
        job = d.wait(job.id, lambda j: j.state not in (Job.STATE_QUEUED, Job.STATE_PREPARING, Job.STATE_RUNNING))
        self.assertEqual(job.state, Job.STATE_SUCCEEDED, job)

        shown = [self.preview(job.id, prompts=["a fruit"], steps=4, **more)
                 for more in ({}, {"ema": True}, {"lora_scale": 0.0}, {"aig": "linear"})]
        for preview in shown:
            last = list(self.watch_preview(preview.id))[-1].preview
            self.assertEqual(last.state, Preview.STATE_SUCCEEDED, last)
        self.assertEqual(len({self.picture(preview.id, 0) for preview in shown}), 4)
        self.fails(lambda: self.preview(job.id, lora_scale=0.5), Code.INVALID_ARGUMENT, "spec.lora_scale")

        Request = pb.checkpoints.ExportLoraRequest
        self.fails(lambda: self.export(job_id=job.id), Code.FAILED_PRECONDITION, words="export the whole model instead")
        merge = lambda path, **more: list(d.checkpoints.ExportLora(Request(job_id=job.id, path=path, **more), timeout=120))
        path = os.path.join(d.folder, "full-model")
        for ema in (False, True):
            where = path + "-ema" * ema
            self.assertEqual(merge(where, format=Request.FORMAT_MERGED, ema=ema)[0].file_name, where)
            self.assertTrue(os.path.exists(os.path.join(where, "unet", "diffusion_pytorch_model.safetensors")))
        self.fails(lambda: merge(path, format=Request.FORMAT_MERGED), Code.INVALID_ARGUMENT, "path")
        self.fails(lambda: merge(path + ".safetensors", format=Request.FORMAT_MERGED_SINGLE), Code.FAILED_PRECONDITION,
                   words="norm_num_groups")


class Weights(Case):
    def test_a_resume_refuses_changed_weights(self):
        d = self.daemon
        model = os.path.join(d.folder, "model")
        shutil.copytree(os.path.join(DEMO, "emoji-sd"), model)
        job_id = self.create(self.spec(steps=100000, model=model)).job.id
        d.wait(job_id, lambda j: j.progress.step >= 1)
        self.pause(job_id)
        weights = os.path.join(model, "unet", "diffusion_pytorch_model.safetensors")
        with open(weights, "r+b") as file:
            file.seek(-2, os.SEEK_END)
            last = file.read(2)
            file.seek(-2, os.SEEK_END)
            file.write(bytes([last[0] ^ 1, last[1]]))
        self.fails(lambda: self.resume(job_id), Code.FAILED_PRECONDITION, "fingerprint", reason="WEIGHTS_CHANGED")
        self.assertEqual(d.get(job_id).state, Job.STATE_PAUSED)
        with open(weights, "r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(last)
        self.resume(job_id)
        d.wait(job_id, lambda j: j.state == Job.STATE_RUNNING)
        self.cancel(job_id)
        d.wait(job_id, lambda j: j.state in ENDED)

        # a damaged checkpoint is never exported nor read; refusing forgets nothing
        self.export(job_id=job_id)
        steps = self.checkpoint_steps(job_id)
        self.read_checkpoint(job_id=job_id)
        folder = os.path.join(d.folder, "state", "jobs", job_id, "checkpoints")
        for name in os.listdir(folder):
            with open(os.path.join(folder, name), "r+b") as file:
                file.seek(-100, os.SEEK_END)
                byte = file.read(1)
                file.seek(-100, os.SEEK_END)
                file.write(bytes([byte[0] ^ 4]))
        self.fails(lambda: self.export(job_id=job_id), Code.DATA_LOSS, reason="DATA_LOSS")
        self.fails(lambda: self.read_checkpoint(job_id=job_id), Code.DATA_LOSS, reason="DATA_LOSS", words="damaged")
        self.fails(lambda: self.read_checkpoint(job_id=job_id, step=steps[-1]), Code.DATA_LOSS, words="damaged")
        self.assertEqual(self.checkpoint_steps(job_id), steps)
        for name in os.listdir(folder):
            os.remove(os.path.join(folder, name))
        self.fails(lambda: self.read_checkpoint(job_id=job_id, step=steps[-1]), Code.DATA_LOSS, words="missing")
        self.fails(lambda: self.read_checkpoint(job_id=job_id), Code.FAILED_PRECONDITION)


class Reflection(Case):
    """The protocol as draftd itself tells it equals the .proto files."""

    def ask(self, path, *requests):
        call = self.daemon.channel.stream_stream(
            path, request_serializer=pb.reflection.ServerReflectionRequest.SerializeToString,
            response_deserializer=pb.reflection.ServerReflectionResponse.FromString)
        return list(call(iter([pb.reflection.ServerReflectionRequest(**one) for one in requests]), timeout=SECONDS))

    def plain(self, file):
        """Without the names for JSON, which protoc adds in one of its outputs."""
        out = descriptor_pb2.FileDescriptorProto.FromString(file.serialized_pb)
        messages = list(out.message_type)
        while messages:
            message = messages.pop()
            messages += message.nested_type
            for field in message.field:
                field.ClearField("json_name")
        return out

    def test_reflection(self):
        for version in ("v1", "v1alpha"):
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            (listed,) = self.ask(path, {"list_services": ""})
            names = [service.name for service in listed.list_services_response.service]
            self.assertLessEqual({"draftd.v1.JobService", "grpc.health.v1.Health"}, set(names))
            pool = descriptor_pool.DescriptorPool()
            for name in names:
                (answer,) = self.ask(path, {"file_containing_symbol": name.replace("v1alpha", "v1")})
                files = {}
                for packed in answer.file_descriptor_response.file_descriptor_proto:
                    one = descriptor_pb2.FileDescriptorProto.FromString(packed)
                    files[one.name] = one

                def add(one):
                    for import_ in one.dependency:
                        add(files[import_])
                    pool.Add(one)

                for one in files.values():
                    add(one)
            for name in names:
                if name.startswith("draftd."):
                    ours = getattr(pb, {"Job": "jobs", "Metric": "metrics", "Preview": "previews", "System": "system",
                                        "Checkpoint": "checkpoints"}[name[10:-7]]).DESCRIPTOR
                    self.assertEqual(self.plain(pool.FindServiceByName(name).file), self.plain(ours))
            several = self.ask(path, {"file_containing_symbol": "draftd.v1.Job.State"},
                               {"file_containing_symbol": "draftd.v1.JobService.WatchJobs"},
                               {"file_containing_symbol": "draftd.v1.JobSpec.rewards"},
                               {"file_by_filename": "draftd/v1/jobs.proto"},
                               {"file_containing_symbol": "draftd.v1.Nothing"}, {"file_by_filename": "no.proto"},
                               {"all_extension_numbers_of_type": "draftd.v1.Job"})
            self.assertEqual([one.WhichOneof("message_response") for one in several],
                             ["file_descriptor_response"] * 4 + ["error_response"] * 3)
            self.assertEqual([one.error_response.error_code for one in several[4:]], [5, 5, 12])
            self.assertEqual(several[4].original_request.file_containing_symbol, "draftd.v1.Nothing")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", required=True)
    known, rest = parser.parse_known_args()
    BUILD = os.path.abspath(known.build)
    unittest.main(argv=[sys.argv[0]] + rest, verbosity=2, warnings="ignore")
