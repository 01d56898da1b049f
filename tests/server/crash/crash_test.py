"""kill -9 of daemon and worker at random moments, workers that hang, kills during a drain, a save, a pause: nothing
acknowledged is lost or doubled, and the LoRA comes out byte for byte as from a run that nobody disturbed.

    crash_test.py --build DIR [--kills N] [--seed N]
"""

import argparse
import hashlib
import json
import os
import random
import shutil
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

STEPS = 30
arguments = None


def lora(daemon, job_id):
    """A digest of the exported file, whole, but for the job's own id in its metadata."""
    stream = daemon.checkpoints.ExportLora(pb.checkpoints.ExportLoraRequest(job_id=job_id, f32=True), timeout=60)
    data = b"".join(piece.data for piece in stream)
    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8:8 + length])["__metadata__"]
    if metadata["draftd.job"] != job_id or metadata["draftd.step"] != str(STEPS):
        raise AssertionError(f"the file is of another job or step: {metadata}")
    return hashlib.sha256(data[8:8 + length].rstrip().replace(f'"{job_id}"'.encode(), b'"JOB"') + data[8 + length:]).hexdigest()


def series(daemon, job_id):
    """Every point of the series that numbers decide: {(name, step): value as written}."""
    reply = daemon.metrics.QueryMetrics(pb.metrics.QueryMetricsRequest(job_id=job_id, max_points=10000), timeout=60)
    return {(s.name, p.step): repr(p.value) for s in reply.series for p in s.points
            if not s.name.startswith(("seconds", "memory"))}


def worker_pid(daemon):
    """A worker of the daemon, by the kernel's list of its children; None when there is none."""
    children = daemon.workers()
    return int(children[0]) if children else None


class Crash(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        """What comes out when nobody disturbs."""
        cls.folder = tempfile.mkdtemp(prefix="draftd-crash-")
        cls.addClassCleanup(shutil.rmtree, cls.folder, ignore_errors=True)
        daemon = Daemon(arguments.build)
        cls.addClassCleanup(daemon.remove)
        job = daemon.submit(cls.spec())
        job = daemon.wait(job.id, lambda j: j.state in ENDED)
        assert job.state == Job.STATE_SUCCEEDED, job.reason
        cls.expected = lora(daemon, job.id), series(daemon, job.id)
        assert daemon.stop() == 0, daemon.log()[-4000:]

    def setUp(self):
        self.random = random.Random(arguments.seed)
        self.daemon = Daemon(arguments.build, "--hang-seconds", "3")
        self.addCleanup(self.daemon.remove)

    @classmethod
    def spec(cls):
        spec = tiny_spec(cls.folder, steps=STEPS, checkpoint_every=3, max_retries=100)
        spec.evaluation.every = 5
        spec.evaluation.seeds = 2
        spec.evaluation.prompts.append("an animal")
        spec.evaluation.lpips = os.path.join(draftd_api.DEMO, "emoji-lpips")
        return spec

    def comes_out_the_same(self, job_id):
        job = self.daemon.wait(job_id, lambda j: j.state in ENDED + (Job.STATE_PAUSED,))
        self.assertEqual(job.state, Job.STATE_SUCCEEDED, job.reason)
        self.assertEqual(lora(self.daemon, job_id), self.expected[0], f"{job_id}: another LoRA than the undisturbed run's")
        self.assertEqual(series(self.daemon, job_id), self.expected[1], f"{job_id}: another series")
        return job

    def call(self, function, seconds=180):
        """Repeats a call while the daemon is being killed and started. RESOURCE_EXHAUSTED: the checker was killed."""
        again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED)
        end = time.monotonic() + seconds
        while True:
            try:
                return function()
            except grpc.RpcError as error:
                if error.code() not in again or time.monotonic() > end:
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

    # the victims; each gets the ids of running jobs
    def kill_the_daemon(self, running):
        self.kill_daemon()

    def kill_a_worker(self, running):
        if pid := worker_pid(self.daemon):
            os.kill(pid, signal.SIGKILL)

    def hang_a_worker(self, running):
        if pid := worker_pid(self.daemon):
            os.kill(pid, signal.SIGSTOP)  # the daemon notices and ends it

    def kill_the_daemon_while_it_drains(self, running):
        self.daemon.process.send_signal(signal.SIGTERM)
        time.sleep(self.random.uniform(0, 0.4))
        self.kill_daemon()

    def during(self, function):
        """Kills the daemon while it is answering; what it acknowledged, or None."""
        answers = []

        def ask():
            try:
                answers.append(function())
            except (grpc.RpcError, ValueError):
                pass

        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(self.random.uniform(0, 0.5))
        if self.random.random() < 0.3 and (pid := worker_pid(self.daemon)):
            os.kill(pid, signal.SIGKILL)
        self.kill_daemon()
        thread.join()
        return answers[0] if answers else None

    def kill_the_daemon_while_it_saves(self, running):
        for job_id in running[:1]:
            saved = self.during(lambda: self.daemon.checkpoints.CreateCheckpoint(
                pb.checkpoints.CreateCheckpointRequest(job_id=job_id), timeout=30).checkpoint)
            if saved:
                listed = self.call(lambda: self.daemon.checkpoints.ListCheckpoints(
                    pb.checkpoints.ListCheckpointsRequest(job_id=job_id), timeout=30)).checkpoints
                self.assertIn((saved.step, saved.checksum), [(c.step, c.checksum) for c in listed])

    def kill_the_daemon_while_it_pauses(self, running):
        for job_id in running[:1]:
            paused = self.during(lambda: self.daemon.jobs.PauseJob(pb.jobs.PauseJobRequest(job_id=job_id), timeout=30).job)
            job = self.call(lambda: self.daemon.get(job_id))
            if paused:
                self.assertEqual(job.state, Job.STATE_PAUSED)
            if job.state == Job.STATE_PAUSED:
                self.call(lambda: self.daemon.jobs.ResumeJob(pb.jobs.ResumeJobRequest(job_id=job_id), timeout=60))

    def preview_is_whole(self, preview_id):
        def ready():
            p = self.daemon.previews.GetPreview(pb.previews.GetPreviewRequest(preview_id=preview_id), timeout=30).preview
            return p.state in (Preview.STATE_SUCCEEDED, Preview.STATE_FAILED) and p
        draftd_api.eventually(ready, seconds=120)
        preview = ready()
        if preview.state == Preview.STATE_FAILED:  # its worker was killed each time
            self.assertIn("given up after 2 tries", preview.reason)
            return
        data = b"".join(piece.data for piece in self.daemon.previews.ReadPicture(
            pb.previews.ReadPictureRequest(preview_id=preview_id, index=0), timeout=30))
        self.assertTrue(data.startswith(b"\x89PNG") and data.endswith(b"IEND\xaeB`\x82"), "a picture is incomplete")

    def test_kills_at_random_moments_lose_and_double_nothing(self):
        acknowledged, asked_previews = {}, []
        victims = [self.kill_the_daemon, self.kill_a_worker, self.hang_a_worker, self.kill_the_daemon_while_it_drains,
                   self.kill_the_daemon_while_it_saves, self.kill_the_daemon_while_it_pauses]
        for n in range(arguments.kills):
            request_id = str(uuid.uuid4())
            done = threading.Event()

            def submit():
                request = pb.jobs.CreateJobRequest(spec=self.spec(), request_id=request_id)
                # The same request until it is acknowledged: a kill may fall before or after the commit.
                acknowledged[request_id] = self.call(lambda: self.daemon.jobs.CreateJob(request, timeout=60)).job.id
                done.set()

            # Two jobs are always under way, however fast the machine: every kill meets a running job, or one being
            # submitted, or both.
            unfinished = [i for i in list(acknowledged.values())
                          if self.call(lambda i=i: self.daemon.get(i)).state not in ENDED]
            if len(unfinished) < 2:
                threading.Thread(target=submit, daemon=True).start()
            else:
                done.set()
            time.sleep(self.random.uniform(0.05, 2.5))
            running = [i for i in list(acknowledged.values())
                       if self.call(lambda i=i: self.daemon.get(i)).state == Job.STATE_RUNNING]
            if running and self.random.random() < 0.5:
                spec = pb.previews.PreviewSpec(prompts=["a bird"], seed=n, steps=3)
                asked_previews.append(self.call(lambda: self.daemon.previews.CreatePreview(
                    pb.previews.CreatePreviewRequest(job_id=running[0], spec=spec, request_id=f"{arguments.seed}-{n}"),
                    timeout=30)).preview.id)
            victim = victims[n % len(victims)]
            print(f"{n}: {victim.__name__}, running: {running}", flush=True)
            with self.subTest(kill=n, victim=victim.__name__):
                victim(running)
                self.assertTrue(done.wait(180), "a submit was never acknowledged")
                listed = [j.id for j in self.call(lambda: self.daemon.jobs.ListJobs(pb.jobs.ListJobsRequest(page_size=1000), timeout=30)).jobs]
                self.assertEqual(len(listed), len(set(listed)))
                self.assertEqual(sorted(listed), sorted(acknowledged.values()), "a job was lost or doubled")

        for job_id in acknowledged.values():
            self.comes_out_the_same(job_id)
        for preview_id in asked_previews:
            self.preview_is_whole(preview_id)
        draftd_api.eventually(lambda: self.daemon.workers() == [])
        self.assertEqual(self.daemon.stop(), 0)
        with sqlite3.connect(os.path.join(self.daemon.folder, "state", "draftd.db")) as database:
            self.assertEqual(database.execute("PRAGMA integrity_check").fetchone(), ("ok",))
        database.close()

    def test_a_hung_worker_is_ended_and_its_job_retried_with_a_reason(self):
        job = self.daemon.submit(self.spec())
        self.daemon.wait(job.id, lambda j: j.progress.step >= 4)
        pid = worker_pid(self.daemon)
        os.kill(pid, signal.SIGSTOP)
        job = self.daemon.wait(job.id, lambda j: j.reason_code == "WORKER_HUNG", seconds=60)
        self.assertEqual(job.state, Job.STATE_QUEUED)
        self.assertIn("no sign of life for 3 s", job.reason)
        self.assertIn("from its last checkpoint", job.reason)
        self.assertFalse(os.path.exists(f"/proc/{pid}"))
        self.assertGreaterEqual(self.comes_out_the_same(job.id).attempt, 2)

    def test_pauses_and_previews_change_no_byte_of_the_lora(self):
        job = self.daemon.submit(self.spec())
        for at in (2, 6, 9):
            self.daemon.wait(job.id, lambda j: j.progress.step >= at or j.state in ENDED)
            self.daemon.previews.CreatePreview(pb.previews.CreatePreviewRequest(
                job_id=job.id, spec=pb.previews.PreviewSpec(prompts=["a fruit"], seed=at, count=2)), timeout=30)
            paused = self.daemon.jobs.PauseJob(pb.jobs.PauseJobRequest(job_id=job.id), timeout=120).job
            self.assertEqual(paused.state, Job.STATE_PAUSED)
            draftd_api.eventually(lambda: worker_pid(self.daemon) is None)
            self.daemon.jobs.ResumeJob(pb.jobs.ResumeJobRequest(job_id=job.id), timeout=120)
        self.assertGreaterEqual(self.comes_out_the_same(job.id).attempt, 4)

    def test_a_drained_daemon_resumes_its_job_where_it_was(self):
        job = self.daemon.submit(self.spec())
        self.daemon.wait(job.id, lambda j: j.progress.step >= 4)
        self.assertEqual(self.daemon.stop(), 0)
        self.daemon.start()
        self.comes_out_the_same(job.id)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    arguments, rest = parser.parse_known_args()
    print(f"seed {arguments.seed}, {arguments.kills} kills", flush=True)
    unittest.main(argv=[sys.argv[0], "-v"] + rest)
