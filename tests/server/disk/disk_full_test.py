"""A full disk: clear errors, nothing acknowledged lost, the daemon alive, and work goes on when there is room again.

    disk_full_test.py --build DIR

The state lies on a small tmpfs in a mount namespace of this test's own; where none can be had it is skipped (exit 77).
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

if os.environ.get("DRAFT_DISK_TEST") != "inside":
    how = ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-rm"]
    if subprocess.run(how + ["true"], stderr=subprocess.DEVNULL).returncode:
        print("skipped: no mount namespace can be made here")
        sys.exit(77)
    os.execvpe("unshare", how + [sys.executable, "-B"] + sys.argv, dict(os.environ, DRAFT_DISK_TEST="inside"))

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
import grpc  # noqa: E402
from draftd_api import ENDED, Daemon, Error, Job, eventually, pb, tiny_spec  # noqa: E402

arguments = None


class DiskFull(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="draftd-disk-")
        self.data = tempfile.mkdtemp(prefix="draftd-disk-data-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.addCleanup(shutil.rmtree, self.data, ignore_errors=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", self.folder], check=True)
        self.addCleanup(lambda: subprocess.run(["umount", "-l", self.folder]))
        self.daemon = Daemon(arguments.build, keep=self.folder)
        self.addCleanup(self.daemon.remove)
        self.reserve = os.path.join(self.folder, "state", "reserve")
        eventually(lambda: os.path.exists(self.reserve))

    def fill(self, leave=0):
        """Takes all room but `leave` bytes."""
        path = os.path.join(self.folder, "ballast")
        room = os.statvfs(self.folder)
        size = room.f_bavail * room.f_frsize - leave
        with open(path, "wb") as file:
            try:
                while size > 0:
                    size -= file.write(b"x" * min(size, 1 << 16))
                file.flush()
            except OSError:
                pass
        return path

    def test_submit_on_a_full_disk_is_refused_in_words_and_works_afterwards(self):
        ballast = self.fill()
        refused = None
        for _ in range(200):  # the database may still have a page or two to itself
            try:
                self.daemon.submit(tiny_spec(self.data, steps=100000))
            except grpc.RpcError as error:
                refused = Error(error)
                break
        self.assertIsNotNone(refused, "a full disk was never noticed")
        self.assertEqual(refused.code, grpc.StatusCode.RESOURCE_EXHAUSTED, refused)
        self.assertRegex(refused.message.lower(), "disk|space|full")
        kept = {job.id for job in self.daemon.jobs.ListJobs(pb.jobs.ListJobsRequest(page_size=1000), timeout=30).jobs}
        os.unlink(ballast)
        for job_id in kept:
            self.assertEqual(self.daemon.get(job_id).id, job_id)
        job = self.daemon.submit(tiny_spec(self.data))
        self.assertNotIn(job.id, kept)

    def test_a_job_that_would_not_fit_is_refused_with_what_it_needs(self):
        ballast = self.fill(leave=4 << 20)
        for validate_only in (True, False):
            with self.assertRaises(grpc.RpcError) as caught:
                self.daemon.submit(tiny_spec(self.data), validate_only=validate_only)
            refused = Error(caught.exception)
            self.assertEqual((refused.code, refused.reason), (grpc.StatusCode.RESOURCE_EXHAUSTED, "DISK_FULL"), refused)
            self.assertRegex(refused.message, r"[0-9.]+ MiB are needed .* [0-9.]+ MiB are free; free some space")
        os.unlink(ballast)
        job = self.daemon.submit(tiny_spec(self.data))
        self.daemon.wait(job.id, lambda j: j.state == Job.STATE_RUNNING)

    def test_a_job_on_a_full_disk_says_so_keeps_its_checkpoint_and_can_be_resumed(self):
        job = self.daemon.submit(tiny_spec(self.data, steps=1000, checkpoint_every=1, max_retries=-1))
        self.daemon.wait(job.id, lambda j: j.progress.step >= 2)
        watching = self.daemon.jobs.WatchJobs(pb.jobs.WatchJobsRequest(job_id=job.id), timeout=120)
        next(watching)
        ballast = self.fill()
        told = (message.event for message in watching if message.event.HasField("job"))
        event = next(event for event in told if event.job.state in ENDED + (Job.STATE_PAUSED,))
        watching.cancel()
        job = self.daemon.get(job.id)
        self.assertEqual((event.job.state, job.state), (Job.STATE_PAUSED, Job.STATE_PAUSED))
        self.assertEqual(event.job.reason_code, "DISK_FULL")
        self.assertEqual(job.reason_code, "DISK_FULL", job.reason)
        self.assertRegex(job.reason.lower(), "disk|space|full")
        self.assertIsNone(self.daemon.process.poll())
        os.unlink(ballast)
        checkpoints = self.daemon.checkpoints.ListCheckpoints(pb.checkpoints.ListCheckpointsRequest(job_id=job.id), timeout=30).checkpoints
        self.assertTrue(checkpoints, "the last checkpoint is gone")

        def resumed():  # the failure itself is written as soon as there is room; until then the daemon says "not now"
            try:
                self.daemon.jobs.ResumeJob(pb.jobs.ResumeJobRequest(job_id=job.id), timeout=120)
                return True
            except grpc.RpcError as error:
                self.assertEqual(error.code(), grpc.StatusCode.UNAVAILABLE, error.details())
                return False

        eventually(resumed)
        step = checkpoints[-1].step
        resumed = self.daemon.wait(job.id, lambda j: j.state == Job.STATE_RUNNING)
        self.assertGreaterEqual(resumed.progress.step, step)
        self.daemon.wait(job.id, lambda j: j.progress.step >= step + 2 or j.state in ENDED)
        self.assertEqual(self.daemon.get(job.id).state, Job.STATE_RUNNING)
        eventually(lambda: os.path.exists(self.reserve))  # for the next time


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", required=True)
    arguments, rest = parser.parse_known_args()
    unittest.main(argv=[sys.argv[0], "-v"] + rest)
