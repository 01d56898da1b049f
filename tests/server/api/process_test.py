#!/usr/bin/python3
"""draftd as a process: its command line, where it listens by default, one daemon a state folder and a socket, signals,
the supervisor's notification, its log.

    process_test.py --build BUILD [unittest arguments]
"""

import argparse
import json
import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import unittest

import grpc

from draftd_api import Daemon, Error, eventually, pb, tiny_spec

BUILD = None


class Process(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="draftd-process-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environment = {k: v for k, v in os.environ.items()
                            if not k.startswith(("XDG_", "DRAFTD_", "NOTIFY_"))}
        self.environment["HOME"] = self.folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def run_it(self, *arguments, **more):
        """A run that is expected to end by itself."""
        return subprocess.run([os.path.join(BUILD, "draftd"), *arguments], env=self.environment, capture_output=True,
                              text=True, timeout=60, **more)

    def start(self, *arguments, ready=True):
        log = open(self.path("log"), "ab")
        process = subprocess.Popen([os.path.join(BUILD, "draftd"), *arguments], env=self.environment, stderr=log,
                                   cwd=self.folder)
        log.close()
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        if ready:
            eventually(lambda: "is ready" in self.log() or process.poll() is not None)
            self.assertIsNone(process.poll(), self.log())
        return process

    def log(self):
        with open(self.path("log"), errors="replace") as file:
            return file.read()

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(timeout=60), 0, self.log())

    def answers(self, path):
        s = socket.socket(socket.AF_UNIX)
        with s:
            s.connect(path)

    def test_help_teaches_and_version_tells(self):
        done = self.run_it("--help")
        self.assertEqual(done.returncode, 0)
        for word in ("--state-dir", "--socket", "--drain-seconds", "Examples:", "SIGTERM", "draft submit"):
            self.assertIn(word, done.stdout)
        done = self.run_it("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"^draftd \d+\.\d+\.\d+\n$")

    def test_wrong_command_lines_are_refused(self):
        for arguments, words in [(["--no-such-option"], "unrecognized option"), (["serve"], "takes options only"),
                                 (["--threads", "many"], "--threads takes a whole number from 1 to 1024, not \"many\""),
                                 (["--threads", "0"], "1 to 1024"), (["--max-queue", "-1"], "--max-queue"),
                                 (["--drain-seconds", "1e9"], "--drain-seconds"), (["--log-format", "xml"], "text or json")]:
            with self.subTest(arguments=arguments):
                done = self.run_it(*arguments)
                self.assertEqual(done.returncode, 2, done)
                self.assertIn(words, done.stderr)

    def test_what_it_cannot_start_with_is_said(self):
        there = self.path("file")
        open(there, "w").close()
        for arguments, words in [
                (["--state-dir", self.path("s"), "--socket", "/" + "x" * 150], "may have 107"),
                (["--state-dir", self.path("s"), "--worker", self.path("nothing")], "cannot run the worker"),
                (["--state-dir", self.path("s"), "--demo-dir", self.path("nothing")], "--demo-dir"),
                (["--state-dir", self.path("s"), "--socket", there], "is no socket"),
                (["--state-dir", there], there)]:
            with self.subTest(arguments=arguments):
                done = self.run_it(*arguments)
                self.assertEqual(done.returncode, 1, done)
                self.assertIn("cannot start", done.stderr)
                self.assertIn(words, done.stderr)
        self.assertEqual(open(there).read(), "")
        del self.environment["HOME"]
        self.assertIn("give --state-dir", self.run_it().stderr)

    def test_default_places(self):
        process = self.start()
        state = self.path(".local/state/draftd")
        self.answers(os.path.join(state, "draftd.sock"))
        self.assertEqual(stat.S_IMODE(os.stat(state).st_mode), 0o700)
        self.assertEqual(stat.S_IMODE(os.stat(os.path.join(state, "draftd.sock")).st_mode), 0o600)
        self.stop(process)
        self.assertFalse(os.path.exists(os.path.join(state, "draftd.sock")))

        os.mkdir(self.path("run"), 0o700)
        os.unlink(self.path("log"))
        self.environment.update(XDG_STATE_HOME=self.path("xdg"), XDG_RUNTIME_DIR=self.path("run"))
        process = self.start()
        self.answers(self.path("run/draftd.sock"))
        self.assertTrue(os.path.exists(self.path("xdg/draftd/draftd.db")))
        self.stop(process)

        os.unlink(self.path("log"))
        self.environment.update(DRAFTD_SOCKET=self.path("own.sock"))
        process = self.start()
        self.answers(self.path("own.sock"))
        self.stop(process)

        os.unlink(self.path("log"))
        process = self.start("--state-dir", "here", "--socket", "there.sock")  # relative to where it was started
        self.answers(self.path("there.sock"))
        self.assertTrue(os.path.exists(self.path("here/draftd.db")))
        self.stop(process)

    def test_one_daemon_a_state_folder_and_a_socket(self):
        process = self.start("--state-dir", self.path("a"), "--socket", self.path("a.sock"))
        done = self.run_it("--state-dir", self.path("a"), "--socket", self.path("b.sock"))
        self.assertEqual(done.returncode, 1)
        self.assertIn(str(process.pid), done.stderr)  # who has it
        done = self.run_it("--state-dir", self.path("b"), "--socket", self.path("a.sock"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("another draftd listens", done.stderr)
        self.answers(self.path("a.sock"))
        process.kill()
        process.wait()
        self.assertTrue(os.path.exists(self.path("a.sock")))  # left behind ...
        os.unlink(self.path("log"))
        self.stop(self.start("--state-dir", self.path("a"), "--socket", self.path("a.sock")))  # ... and replaced

    def test_supervisor_is_notified(self):
        supervisor = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(supervisor.close)
        supervisor.settimeout(30)
        supervisor.bind(self.path("notify"))
        self.environment["NOTIFY_SOCKET"] = self.path("notify")
        process = self.start()
        self.assertEqual(supervisor.recv(100), b"READY=1")
        process.send_signal(signal.SIGHUP)  # nothing happens
        eventually(lambda: "SIGHUP" in self.log())
        process.send_signal(signal.SIGINT)
        self.assertEqual(supervisor.recv(100), b"STOPPING=1")
        self.assertEqual(process.wait(timeout=60), 0)

        abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(abstract.close)
        abstract.settimeout(30)
        name = f"draftd-test-{os.getpid()}"
        abstract.bind("\0" + name)
        self.environment["NOTIFY_SOCKET"] = "@" + name
        os.unlink(self.path("log"))
        process = self.start()
        self.assertEqual(abstract.recv(100), b"READY=1")
        self.stop(process)

    def test_log_as_json(self):
        self.stop(self.start("--log-format", "json"))
        lines = [json.loads(line) for line in self.log().splitlines()]
        self.assertTrue(any("is ready" in line["msg"] for line in lines))
        self.assertTrue(all({"time", "level", "msg"} <= line.keys() for line in lines))

    def test_a_parent_that_ignores_its_children_does_not_matter(self):
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # inherited through exec
        try:
            daemon = Daemon(BUILD)
        finally:
            signal.signal(signal.SIGCHLD, before)
        self.addCleanup(daemon.remove)
        # the checking worker's end is seen; without it the call would wait for its deadline
        daemon.submit(tiny_spec(daemon.folder), validate_only=True)
        eventually(lambda: not daemon.workers())

    def test_second_signal_stops_at_once(self):
        daemon = Daemon(BUILD, "--drain-seconds", "600")
        self.addCleanup(daemon.remove)
        job = daemon.submit(tiny_spec(daemon.folder, steps=100000))
        daemon.wait(job.id, lambda j: j.state == pb.jobs.Job.STATE_RUNNING and j.progress.step >= 1)
        (worker,) = daemon.workers()
        os.kill(int(worker), signal.SIGSTOP)  # it will not save, so the drain waits
        daemon.process.send_signal(signal.SIGTERM)
        for _ in range(5):  # as a kernel or a shell repeats itself
            time.sleep(0.05)
            daemon.process.send_signal(random.choice([signal.SIGTERM, signal.SIGINT]))
        time.sleep(1.2)
        # meanwhile it answers, and takes no new work
        eventually(lambda: daemon.system.GetServerInfo(pb.system.GetServerInfoRequest(), timeout=30).draining)
        self.assertEqual(daemon.health.Check(pb.health.HealthCheckRequest(), timeout=30).status,
                         pb.health.HealthCheckResponse.NOT_SERVING)
        for call in (lambda: daemon.submit(tiny_spec(daemon.folder)),
                     lambda: daemon.previews.CreatePreview(pb.previews.CreatePreviewRequest(job_id=job.id), timeout=30)):
            with self.assertRaises(grpc.RpcError) as caught:
                call()
            found = Error(caught.exception)
            self.assertEqual((found.code, found.reason), (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE"), found)
        self.assertEqual(daemon.get(job.id).id, job.id)
        self.assertIsNone(daemon.process.poll())
        daemon.process.send_signal(signal.SIGTERM)
        self.assertEqual(daemon.process.wait(timeout=5), 128 + signal.SIGTERM)
        os.kill(int(worker), signal.SIGCONT)
        eventually(lambda: not os.path.exists(f"/proc/{worker}") or
                   open(f"/proc/{worker}/stat").read().split(") ")[1][0] == "Z")  # nobody is left behind
        daemon.channel.close()
        daemon.start()
        self.assertIn(daemon.get(job.id).state, (pb.jobs.Job.STATE_QUEUED, pb.jobs.Job.STATE_PREPARING,
                                                 pb.jobs.Job.STATE_RUNNING))
        daemon.jobs.CancelJob(pb.jobs.CancelJobRequest(job_id=job.id), timeout=30)
        self.assertEqual(daemon.stop(), 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", required=True)
    known, rest = parser.parse_known_args()
    BUILD = os.path.abspath(known.build)
    unittest.main(argv=[sys.argv[0]] + rest, verbosity=2, warnings="ignore")
