"""kill -9 of daemon and worker at random moments: nothing acknowledged is lost or doubled, and the LoRA comes out byte for
byte as from a run that nobody disturbed.

    crash_test.py --build DIR [--kills N] [--seed N]
"""

import argparse
import hashlib
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import unittest
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
import grpc  # noqa: E402
import draftd_api  # noqa: E402
from draftd_api import ENDED, Daemon, Job, Preview, pb, tiny_spec  # noqa: E402

STEPS = 14
arguments = None


def lora(daemon, job_id):
    """A digest of the exported file, whole, but for the job's own id in its metadata."""
    stream = daemon.checkpoints.ExportLora(pb.checkpoints.ExportLoraRequest(job_id=job_id, f32=True), timeout=60)
    data = b"".join(piece.data for piece in stream)
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8:8 + length])["__metadata__"]
    if metadata["draftd.job"] != job_id or metadata["draftd.step"] != str(STEPS):
        raise AssertionError(f"the file is of another job or step: {metadata}")
    return hashlib.sha256(data[8:].replace(f'"{job_id}"'.encode(), b'"JOB"')).hexdigest()


def series(daemon, job_id):
    """Every point of the series that numbers decide: {(name, step): value as written}."""
    reply = daemon.metrics.QueryMetrics(pb.metrics.QueryMetricsRequest(job_id=job_id, max_points=10000), timeout=60)
    return {(s.name, p.step): repr(p.value) for s in reply.series for p in s.points
            if not s.name.startswith(("seconds", "memory"))}


def worker_pid(daemon):
    """The worker of the daemon, by the kernel's list of its children; None when there is none."""
    for task in os.listdir(f"/proc/{daemon.process.pid}/task"):
        try:
            with open(f"/proc/{daemon.process.pid}/task/{task}/children") as file:
                children = file.read().split()
        except FileNotFoundError:
            continue
        if children:
            return int(children[0])
    return None


class Crash(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="draftd-crash-")
        self.random = random.Random(arguments.seed)
        self.daemon = Daemon(arguments.build)
        self.addCleanup(lambda: self.daemon.remove())

    def spec(self):
        spec = tiny_spec(self.folder, steps=STEPS, checkpoint_every=3, max_retries=100)
        spec.evaluation.every = 5
        spec.evaluation.seeds = 2
        spec.evaluation.prompts.append("an animal")
        spec.evaluation.lpips = os.path.join(draftd_api.DEMO, "emoji-lpips")
        return spec

    def call(self, function, seconds=120):
        """Repeats a call while the daemon is being killed and started."""
        end = time.monotonic() + seconds
        while True:
            try:
                return function()
            except grpc.RpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED) or time.monotonic() > end:
                    raise
            except ValueError:  # the channel was closed by the one who kills
                if time.monotonic() > end:
                    raise
            time.sleep(0.05)

    def kill_daemon(self):
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon.channel.close()
        self.daemon.start()

    def undisturbed(self):
        job = self.daemon.submit(self.spec())
        job = self.daemon.wait(job.id, lambda j: j.state in ENDED)
        self.assertEqual(job.state, Job.STATE_SUCCEEDED, job.reason)
        return lora(self.daemon, job.id), series(self.daemon, job.id)

    def test_kills_at_random_moments_lose_and_double_nothing(self):
        expected, expected_series = self.undisturbed()
        acknowledged, asked_previews = {}, {}
        for n in range(arguments.kills):
            request_id = str(uuid.uuid4())
            done = threading.Event()

            def submit():
                request = pb.jobs.CreateJobRequest(spec=self.spec(), request_id=request_id)
                # The same request until it is acknowledged: a kill may fall before or after the commit.
                acknowledged[request_id] = self.call(lambda: self.daemon.jobs.CreateJob(request, timeout=60)).job.id
                done.set()

            if len(acknowledged) < 3:  # a kill while it is being submitted, for some of the kills
                threading.Thread(target=submit, daemon=True).start()
            else:
                done.set()
            time.sleep(self.random.uniform(0.05, 2.5))
            victim = self.random.choice(["daemon", "worker"])
            if victim == "worker" and (pid := worker_pid(self.daemon)):
                os.kill(pid, signal.SIGKILL)
            else:
                self.kill_daemon()
            self.assertTrue(done.wait(120), "a submit was never acknowledged")
            running = [i for i in acknowledged.values() if self.call(lambda i=i: self.daemon.get(i)).state == Job.STATE_RUNNING]
            if running and self.random.random() < 0.5:
                spec = pb.previews.PreviewSpec(prompts=["a bird"], seed=n, steps=3)
                preview = self.call(lambda: self.daemon.previews.CreatePreview(
                    pb.previews.CreatePreviewRequest(job_id=running[0], spec=spec, request_id=str(uuid.uuid4())), timeout=30)).preview
                asked_previews[preview.id] = running[0]
            with self.subTest(kill=n, victim=victim):
                listed = [j.id for j in self.call(lambda: self.daemon.jobs.ListJobs(pb.jobs.ListJobsRequest(page_size=1000), timeout=30)).jobs]
                self.assertEqual(len(listed), len(set(listed)))
                self.assertEqual(sorted(listed[:-1]), sorted(acknowledged.values()), "a job was lost or doubled")

        for job_id in acknowledged.values():
            job = self.daemon.wait(job_id, lambda j: j.state in ENDED)
            self.assertEqual(job.state, Job.STATE_SUCCEEDED, job.reason)
            self.assertEqual(lora(self.daemon, job_id), expected, f"{job_id}: another LoRA than the undisturbed run's")
            self.assertEqual(series(self.daemon, job_id), expected_series, f"{job_id}: another series")
        for preview_id in asked_previews:
            def ready():
                p = self.daemon.previews.GetPreview(pb.previews.GetPreviewRequest(preview_id=preview_id), timeout=30).preview
                return p.state in (Preview.STATE_SUCCEEDED, Preview.STATE_FAILED) and p
            draftd_api.eventually(ready, seconds=120)
            preview = ready()
            self.assertEqual(preview.state, Preview.STATE_SUCCEEDED, preview.reason)
            data = b"".join(piece.data for piece in self.daemon.previews.ReadPicture(
                pb.previews.ReadPictureRequest(preview_id=preview_id, index=0), timeout=30))
            self.assertTrue(data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82"), "a picture is incomplete")

        self.assertEqual(self.daemon.stop(), 0)
        with sqlite3.connect(os.path.join(self.daemon.folder, "state", "draftd.db")) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchone(), ("ok",))

    def test_pauses_and_previews_change_no_byte_of_the_lora(self):
        expected, expected_series = self.undisturbed()
        job = self.daemon.submit(self.spec())
        for at in (2, 6, 9):
            self.daemon.wait(job.id, lambda j: j.progress.step >= at or j.state in ENDED)
            self.daemon.previews.CreatePreview(pb.previews.CreatePreviewRequest(
                job_id=job.id, spec=pb.previews.PreviewSpec(prompts=["a fruit"], seed=at, count=2)), timeout=30)
            paused = self.daemon.jobs.PauseJob(pb.jobs.PauseJobRequest(job_id=job.id), timeout=120).job
            self.assertEqual(paused.state, Job.STATE_PAUSED)
            draftd_api.eventually(lambda: worker_pid(self.daemon) is None)
            self.daemon.jobs.ResumeJob(pb.jobs.ResumeJobRequest(job_id=job.id), timeout=120)
        job = self.daemon.wait(job.id, lambda j: j.state in ENDED)
        self.assertEqual(job.state, Job.STATE_SUCCEEDED, job.reason)
        self.assertGreaterEqual(job.attempt, 4)
        self.assertEqual(lora(self.daemon, job.id), expected)
        self.assertEqual(series(self.daemon, job.id), expected_series)

    def test_a_drained_daemon_resumes_its_job_where_it_was(self):
        expected, expected_series = self.undisturbed()
        job = self.daemon.submit(self.spec())
        self.daemon.wait(job.id, lambda j: j.progress.step >= 4)
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        job = self.daemon.wait(job.id, lambda j: j.state in ENDED)
        self.assertEqual(job.state, Job.STATE_SUCCEEDED, job.reason)
        self.assertEqual(lora(self.daemon, job.id), expected)
        self.assertEqual(series(self.daemon, job.id), expected_series)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments, rest = parser.parse_known_args()
    print(f"seed {arguments.seed}, {arguments.kills} kills", flush=True)
    unittest.main(argv=[sys.argv[0], "-v"] + rest)
